//! Waits: the requests of one thread that wait for the head of their answer, and what ends a wait before the server does.
//!
//! The engine waits for each piece of a head anew, so a server that drips one, or that sends interim answers without end, would hold a request for ever; and nothing ends the
//! wait for one that hangs. So the connection's receiving side is shut down, the engine sees its end, and the hook that hears of it asks here why.
//!
//! Shape: a list a thread, as a request never changes threads; a request adds and removes itself without a lock or a timer. One task a thread ([`keep`]) looks at the list each
//!        [`LOOK`], and sleeps while it is empty. A request is on the list from its last byte to the head of its answer: while it is there it owns the connection, so the
//!        descriptor is its own. What comes after the end was ordered is not looked at: it may be cut.
//! Units: moments since the epoch of [`super::Pools::now`].

use std::{
    cell::RefCell,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::{sync::Notify, time::sleep};

use super::{budget::Move, server::Server};
use crate::rules::suspicion;

/// Between two looks at those that wait.
const LOOK: Duration = Duration::from_millis(100);

/// Why a wait was ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// `timeouts.read` has passed.
    Late,
    /// The server hangs and a sibling may have the request: the retry is paid for.
    Hung,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    server: Arc<Server>,
    fd: RawFd,
    sent: Duration,
    since: Instant,
    read: Duration,
    moves: Option<Move>,
    end: Option<End>,
}

#[derive(Debug)]
struct Waits {
    list: Vec<Option<Waiting>>,
    free: Vec<usize>,
    ids: u64,
    /// Rung when the list is empty no more.
    bell: Option<Arc<Notify>>,
}

thread_local! {
    static WAITS: RefCell<Waits> = const { RefCell::new(Waits { list: Vec::new(), free: Vec::new(), ids: 0, bell: None }) };
}

/// A request's place on the list of its thread; gone when dropped.
#[derive(Debug)]
pub(super) struct Wait {
    at: usize,
    id: u64,
}

impl Wait {
    pub(super) fn begin(server: Arc<Server>, fd: RawFd, sent: Duration, read: Duration, moves: Option<Move>) -> Self {
        WAITS.with_borrow_mut(|waits| {
            waits.ids += 1;
            let id = waits.ids;
            if waits.free.len() == waits.list.len()
                && let Some(bell) = &waits.bell
            {
                bell.notify_one();
            }
            let waiting = Waiting { id, server, fd, sent, since: Instant::now(), read, moves, end: None };
            let at = waits.free.pop().unwrap_or_else(|| {
                waits.list.push(None);
                waits.list.len() - 1
            });
            waits.list[at] = Some(waiting);
            Self { at, id }
        })
    }

    /// Why it was ended, if it was by us.
    pub(super) fn end(self) -> Option<End> {
        WAITS.with_borrow_mut(|waits| waits.remove(&self))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // The thread may be about to end.
        let _ = WAITS.try_with(|waits| waits.borrow_mut().remove(self));
    }
}

impl Waits {
    fn remove(&mut self, wait: &Wait) -> Option<End> {
        let slot = self.list.get_mut(wait.at).filter(|slot| slot.as_ref().is_some_and(|waiting| waiting.id == wait.id))?;
        let end = slot.take()?.end;
        self.free.push(wait.at);
        end
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.list.len()
    }

    fn look(&mut self) {
        for waiting in self.list.iter_mut().flatten().filter(|waiting| waiting.end.is_none()) {
            let waited = waiting.since.elapsed();
            waiting.end = if waited >= waiting.read {
                Some(End::Late)
            } else if waiting.goes_on(waiting.sent + waited) {
                Some(End::Hung)
            } else {
                continue;
            };
            // Closed by the server meanwhile: the engine sees that as well.
            let _ = shutdown(waiting.fd, Shutdown::Both);
        }
    }
}

impl Waiting {
    /// Whether a sibling gets it now.
    fn goes_on(&self, now: Duration) -> bool {
        let silence = &self.server.vitals.silence;
        let (Some(moves), Some(since)) = (&self.moves, silence.owes_since()) else { return false };
        silence.is_suspect() && suspicion::moves(since, self.sent, now) && moves.pay(now)
    }
}

/// Looks after the requests of this thread. Runs until it is dropped.
pub async fn keep() {
    let bell = WAITS.with_borrow_mut(|waits| waits.bell.get_or_insert_default().clone());
    loop {
        // One that came in between has rung: the bell remembers.
        if WAITS.with_borrow(Waits::is_empty) {
            bell.notified().await;
        }
        sleep(LOOK).await;
        WAITS.with_borrow_mut(Waits::look);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream, UnixStream},
        task::JoinSet,
        time::timeout,
    };

    use super::*;
    use crate::{
        edge::upstream::{Pool, Pools, testing::TestPlan},
        rules::suspicion::Verdict,
        telemetry::Metrics,
    };

    const SOON: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(3600);

    fn pool() -> (Pools, Arc<Pool>) {
        let pools = Pools::build(&TestPlan::new().upstream("api", |_| {}).plan(), None, &Metrics::new());
        let pool = pools.iter().next().expect("one").clone();
        (pools, pool)
    }

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        (near, listener.accept().await.expect("a connection").0)
    }

    fn kept() -> JoinSet<()> {
        let mut keeper = JoinSet::new();
        keeper.spawn(keep());
        keeper
    }

    #[tokio::test]
    async fn a_head_that_comes_too_late_is_waited_for_no_longer_drip_or_not() {
        let _keeper = kept();
        let (pools, pool) = pool();
        let (mut near, mut far) = tcp().await;
        let server = pool.servers()[0].clone();
        let wait = Wait::begin(server, near.as_raw_fd(), pools.now(), Duration::from_millis(300), None);
        let drip = async {
            while far.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let read = async { while near.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} };
        timeout(SOON, async {
            tokio::select! { () = drip => {}, () = read => {} }
        })
        .await
        .expect("it ends");
        assert_eq!(wait.end(), Some(End::Late));
    }

    #[tokio::test]
    async fn a_request_leaves_a_suspect_once_the_retry_is_paid_for_and_others_stay() {
        let _keeper = kept();
        let (pools, pool) = pool();
        let server = pool.servers()[0].clone();
        let began = pools.now().saturating_sub(Duration::from_secs(4));
        server.vitals.silence.asked(began);
        server.vitals.silence.judged(Verdict::Suspect, Some(began));
        let ((mut near, _far), (stays, _other)) = (UnixStream::pair().expect("a pair"), UnixStream::pair().expect("a pair"));
        let later = began + Duration::from_millis(1);
        let wait = |fd: &UnixStream, sent, moves| Wait::begin(server.clone(), fd.as_raw_fd(), sent, LONG, moves);
        let harmful = wait(&stays, later, None);
        // What it may be working on has more patience.
        let first = wait(&stays, began, pool.moves());
        let goes = wait(&near, later, pool.moves());
        // As if they had been sent four seconds ago.
        WAITS.with_borrow_mut(|waits| {
            waits.list.iter_mut().flatten().for_each(|waiting| waiting.since -= Duration::from_secs(4));
        });
        assert_eq!(timeout(SOON, near.read(&mut [0; 8])).await.expect("it ends").expect("readable"), 0);
        assert_eq!(goes.end(), Some(End::Hung));
        assert_eq!([harmful.end(), first.end()], [None; 2]);
        assert!(stays.try_write(b"x").is_ok(), "its connection stands");
    }

    #[tokio::test]
    async fn whoever_has_an_answer_is_left_alone_and_his_place_is_used_again() {
        let (pools, pool) = pool();
        let (near, _far) = tcp().await;
        let begin = || Wait::begin(pool.servers()[0].clone(), near.as_raw_fd(), pools.now(), Duration::ZERO, None);
        let (first, second) = (begin(), begin());
        assert_eq!(first.end(), None);
        drop(second);
        WAITS.with_borrow_mut(|waits| {
            assert!(waits.is_empty());
            waits.look();
        });
        let (third, fourth) = (begin(), begin());
        assert_eq!(WAITS.with_borrow(|waits| waits.list.len()), 2);
        assert!(near.try_write(b"x").is_ok(), "nobody looked");
        drop((third, fourth));
    }
}
