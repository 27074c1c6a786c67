//! A bounded load that counts every answer.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;

use super::{
    client::{Answer, ClientError, Conn, request, request_h2},
    tls::TlsClient,
    wait::{ms, secs},
};

/// No load of a test goes beyond this, whatever the test forgets.
const MOST_REQUESTS: u64 = 2_000_000;
const LONGEST: Duration = secs(150);

#[derive(Clone)]
pub enum How {
    Plain,
    H2(TlsClient),
}

/// The same request again and again over so many connections, each with one request at a time.
#[derive(Clone)]
pub struct Load {
    pub addr: SocketAddr,
    pub how: How,
    pub host: String,
    pub path: String,
    pub connections: usize,
    /// What an answer must be beside arriving.
    pub check: fn(&Answer) -> Result<(), String>,
    /// A new connection for every request.
    pub fresh: bool,
}

/// What became of every request.
#[derive(Debug, Default)]
pub struct Tally {
    pub answers: BTreeMap<u16, u64>,
    /// Connections refused by the kernel.
    pub refused: u64,
    /// Requests that got no whole answer.
    pub broken: u64,
    /// Answers that the check refused.
    pub wrong: u64,
    /// The first few failures, in words.
    pub failures: Vec<String>,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Every request was answered 200 and passed the check.
    pub fn assert_all_200(&self) {
        let only_200 = self.answers.keys().all(|status| *status == 200);
        assert!(
            only_200 && self.refused == 0 && self.broken == 0 && self.wrong == 0 && self.total() > 0,
            "not every request was answered as it should: {self:?}"
        );
    }

    fn failed(&mut self, what: String) {
        if self.failures.len() < 8 {
            self.failures.push(what);
        }
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        self.refused += other.refused;
        self.broken += other.broken;
        self.wrong += other.wrong;
        other.failures.into_iter().for_each(|what| self.failed(what));
    }
}

impl Load {
    pub fn new(addr: SocketAddr, how: How, host: &str, path: &str, connections: usize) -> Self {
        Self { addr, how, host: host.into(), path: path.into(), connections, check: |_| Ok(()), fresh: false }
    }

    /// Exactly so many requests.
    pub async fn run(&self, requests: u64) -> Tally {
        let mut running = self.begin(requests);
        running.collect().await
    }

    /// Until [`Running::stop`].
    pub fn start(&self) -> Running {
        self.begin(MOST_REQUESTS)
    }

    fn begin(&self, requests: u64) -> Running {
        let shared = Arc::new(Shared { left: AtomicU64::new(requests), answered: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let mut tasks = JoinSet::new();
        for _ in 0..self.connections {
            tasks.spawn(worker(self.clone(), shared.clone()));
        }
        Running { shared, tasks }
    }

    async fn connect(&self) -> Result<Conn, ClientError> {
        match &self.how {
            How::Plain => Conn::h1(self.addr).await,
            How::H2(tls) => Conn::h2_tls(self.addr, tls, &self.host).await,
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let builder = match self.how {
            How::Plain => request("GET", &self.host, &self.path),
            How::H2(_) => request_h2("GET", &self.host, &self.path),
        };
        builder.body(Full::default()).expect("a request")
    }
}

struct Shared {
    left: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// A load that goes on beside the test. Dropped: it ends.
pub struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<Tally>,
}

impl Running {
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more answers have come.
    pub async fn more(&self, count: u64) {
        let goal = self.answered() + count;
        let end = Instant::now() + secs(60);
        while self.answered() < goal {
            assert!(Instant::now() < end, "the load stands still at {} answers", self.answered());
            tokio::time::sleep(ms(5)).await;
        }
    }

    pub async fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.collect().await
    }

    async fn collect(&mut self) -> Tally {
        let mut tally = Tally::default();
        while let Some(part) = self.tasks.join_next().await {
            tally.add(part.expect("a worker does not panic"));
        }
        tally
    }
}

async fn worker(load: Load, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    let mut conn: Option<Conn> = None;
    let end = Instant::now() + LONGEST;
    while !shared.stop.load(Ordering::Relaxed) && Instant::now() < end {
        if shared.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            break;
        }
        let mut open = match conn.take().filter(|conn| conn.open() && !load.fresh) {
            Some(open) => open,
            None => match load.connect().await {
                Ok(open) => open,
                Err(error) => {
                    match &error {
                        ClientError::Connect(io) if io.kind() == io::ErrorKind::ConnectionRefused => tally.refused += 1,
                        ClientError::Connect(_) | ClientError::Tls(_) | ClientError::Http(_) | ClientError::Late => tally.broken += 1,
                    }
                    tally.failed(error.to_string());
                    tokio::time::sleep(ms(2)).await;
                    continue;
                }
            },
        };
        match open.send(load.request()).await {
            Ok(answer) => {
                *tally.answers.entry(answer.status.as_u16()).or_default() += 1;
                shared.answered.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = (load.check)(&answer) {
                    tally.wrong += 1;
                    tally.failed(why);
                }
                conn = Some(open);
            }
            Err(error) => {
                tally.broken += 1;
                tally.failed(format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string)));
            }
        }
    }
    tally
}
