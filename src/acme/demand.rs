//! Certificates on demand: whether a name may have one is asked of the user's own program.
//!
//! Shape: 200 is yes, anything else no; answers are remembered for a while. Bounded: questions at a time, answers kept, new names an hour. Beyond a bound the answer is no.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::vocab::Host;

const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time.
const ASKING: usize = 16;
/// Answers kept; past it the oldest is forgotten.
const KEPT: usize = 4096;
/// How long an answer holds, in seconds.
const YES_HOLDS: i64 = 3600;
const NO_HOLDS: i64 = 60;
/// New names an hour: below a third of what Let's Encrypt grants an account.
const AN_HOUR: usize = 90;

/// Asks, and remembers.
#[derive(Debug)]
pub struct Asker {
    slots: Arc<Semaphore>,
    answers: HashMap<(Host, String), (bool, i64)>,
    /// Their keys, the oldest first.
    order: VecDeque<(Host, String)>,
    /// When names of the last hour were granted.
    granted: VecDeque<i64>,
}

impl Default for Asker {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(ASKING)), answers: HashMap::new(), order: VecDeque::new(), granted: VecDeque::new() }
    }
}

impl Asker {
    /// The answer, if it was given not long ago.
    #[must_use]
    pub fn known(&self, name: &Host, ask: &str, now: i64) -> Option<bool> {
        let (yes, at) = self.answers.get(&(name.clone(), ask.to_owned()))?;
        let holds = if *yes { YES_HOLDS } else { NO_HOLDS };
        // A clock that was set back makes no answer last longer.
        (0..holds).contains(&now.saturating_sub(*at)).then_some(*yes)
    }

    pub fn heard(&mut self, name: &Host, ask: &str, yes: bool, now: i64) {
        let key = (name.clone(), ask.to_owned());
        if self.answers.insert(key.clone(), (yes, now)).is_none() {
            self.order.push_back(key);
            if self.order.len() > KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.answers.remove(&oldest);
            }
        }
    }

    /// The question on its way; `None`: too many are.
    #[must_use]
    pub fn ask(&self, name: &Host, ask: &str) -> Option<impl Future<Output = io::Result<bool>> + Send + 'static + use<>> {
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        Some(question(name.clone(), ask.to_owned(), Some(slot)))
    }

    /// Takes one of the names that may be new in this hour.
    pub fn may_order(&mut self, now: i64) -> bool {
        while self.granted.front().is_some_and(|at| !(0..3600).contains(&now.saturating_sub(*at))) {
            self.granted.pop_front();
        }
        let may = self.granted.len() < AN_HOUR;
        if may {
            self.granted.push_back(now);
        }
        may
    }
}

/// Asks once.
///
/// Errors: there was no answer, or none in time.
pub async fn question(name: Host, ask: String, slot: Option<OwnedSemaphorePermit>) -> io::Result<bool> {
    let answer = timeout(PATIENCE, fetch(&name, &ask)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    drop(slot);
    Ok(answer? == 200)
}

async fn fetch(name: &Host, ask: &str) -> io::Result<u16> {
    let uri: Uri = ask.parse().map_err(io::Error::other)?;
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?.trim_matches(['[', ']']).to_owned();
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(io::Error::other)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let joint = if path.contains('?') { '&' } else { '?' };
    let request = Request::get(format!("{path}{joint}domain={name}"))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let mut asked = pin!(async { sender.send_request(request).await.map_err(io::Error::other).map(|answer| answer.status().as_u16()) });
    tokio::select! {
        status = &mut asked => status,
        // The last byte of an answer ends its connection too: what was heard counts.
        _ = connection => asked.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).expect("a host")
    }

    #[test]
    fn an_answer_holds_for_a_while_and_their_number_is_bounded() {
        let mut asker = Asker::default();
        asker.heard(&host("a.test"), "http://x/", true, 1000);
        asker.heard(&host("b.test"), "http://x/", false, 1000);
        assert_eq!(asker.known(&host("a.test"), "http://x/", 1000 + YES_HOLDS - 1), Some(true));
        assert_eq!(asker.known(&host("a.test"), "http://x/", 1000 + YES_HOLDS), None);
        assert_eq!(asker.known(&host("b.test"), "http://x/", 1000 + NO_HOLDS), None, "a no is asked again soon");
        assert_eq!(asker.known(&host("a.test"), "http://other/", 1000), None);
        for n in 0..KEPT + 100 {
            asker.heard(&host(&format!("h{n}.test")), "http://x/", true, 2000);
        }
        assert!(asker.answers.len() <= KEPT && asker.order.len() <= KEPT);
    }

    #[tokio::test]
    async fn a_program_that_closes_as_it_answers_is_heard_every_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ask = format!("http://{}/ask", listener.local_addr().expect("its address"));
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = tcp.read(&mut head).await;
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            }
        });
        for n in 0..50 {
            assert!(question(host("a.test"), ask.clone(), None).await.expect("an answer"), "question {n}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_neither_keeps_answers_nor_forbids_names() {
        let mut asker = Asker::default();
        asker.heard(&host("a.test"), "http://x/", true, 1_000_000);
        assert_eq!(asker.known(&host("a.test"), "http://x/", 1000), None);
        assert_eq!((0..200).filter(|_| asker.may_order(1_000_000)).count(), AN_HOUR);
        assert!(asker.may_order(1000));
    }

    #[test]
    fn new_names_are_bounded_by_the_hour_and_questions_at_a_time() {
        let mut asker = Asker::default();
        assert_eq!((0..200).filter(|_| asker.may_order(5)).count(), AN_HOUR);
        assert!(!asker.may_order(3604) && asker.may_order(3605));
        let asking: Vec<_> = (0..100).filter_map(|_| asker.ask(&host("a.test"), "http://127.0.0.1:1/")).collect();
        assert_eq!(asking.len(), ASKING);
    }
}
