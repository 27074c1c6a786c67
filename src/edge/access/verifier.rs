//! Verifies passwords on threads of its own, and remembers what it found for a while.
//!
//! Shape: bounded in threads, in what waits, in what one client may have waiting, and in what is remembered; beyond a bound the answer is [`Answer::Busy`].
//!        Whoever asks what is being verified already waits for that. What was right and what was wrong is kept apart, so that guesses push nobody out.
//!        Kept is a keyed hash of name, password and stored hash: no password, and nothing that outlives a change of the file.
//!        A verification that panics is a wrong password that is not remembered, and its thread goes on; a thread that could not be started is tried again.
//! Units: the threads have niceness [`NICE`], so that they take what the threads that serve leave.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use aws_lc_rs::{hmac, rand::SystemRandom};
use tokio::sync::oneshot;

use crate::{
    rules::password::Stored,
    vocab::{
        Network,
        lock::{lock, wait},
    },
};

/// Verifications at a time, on a machine with so many cores.
const THREADS: usize = 2;
/// A tenth of the weight of a thread that serves.
const NICE: i32 = 10;
/// Verifications that wait.
const WAITING: usize = 64;
/// Of these, of one client, by his [`Network`].
const OF_ONE: u32 = 4;
/// Requests that wait for one and the same verification.
const SHARING: usize = 1024;
const GOOD_FOR: Duration = Duration::from_secs(60);
const BAD_FOR: Duration = Duration::from_secs(10);
/// Of right passwords, and as many of wrong ones.
const REMEMBERED: usize = 4096;

/// Which password of whom it is, and against what.
pub struct Question<'a> {
    pub name: &'a [u8],
    pub password: &'a [u8],
    pub stored: &'a Arc<Stored>,
    /// What `stored` was read from.
    pub hash: &'a str,
    /// The name is that of `stored`; else the answer will be no.
    pub known: bool,
}

/// What there is to say at once.
pub enum Answer {
    Known(bool),
    Waits(oneshot::Receiver<bool>),
    Busy,
}

/// The pool. Its threads are started by the first question, and end with it.
pub struct Verifier {
    shared: Arc<Shared>,
}

/// A question, in a form that tells nothing.
type Mark = [u8; 32];

struct Shared {
    key: hmac::Key,
    /// Whether a password is the stored one: [`Stored::fits`], but for tests.
    judge: fn(&Stored, &[u8]) -> bool,
    desk: Mutex<Desk>,
    bell: Condvar,
}

#[derive(Default)]
struct Desk {
    jobs: VecDeque<Job>,
    /// Those who wait, by what is verified or waits to be.
    asked: HashMap<Mark, Vec<oneshot::Sender<bool>>>,
    /// How many of `jobs` are whose.
    of_clients: HashMap<Network, u32>,
    good: Memory,
    bad: Memory,
    /// That run, or are being started.
    threads: usize,
    /// It was said that one could not be started.
    complained: bool,
    closed: bool,
}

struct Job {
    mark: Mark,
    client: Network,
    password: Box<[u8]>,
    stored: Arc<Stored>,
    known: bool,
}

/// Marks, and until when they hold: all hold equally long, so the oldest end first.
#[derive(Default)]
struct Memory {
    until: HashMap<Mark, Instant>,
    order: VecDeque<Mark>,
}

impl Memory {
    fn has(&self, mark: &Mark, now: Instant) -> bool {
        self.until.get(mark).is_some_and(|until| *until > now)
    }

    fn keep(&mut self, mark: Mark, now: Instant, holds: Duration) {
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= REMEMBERED || self.until.get(oldest).is_none_or(|until| *until <= now))
        {
            self.until.remove(oldest);
            self.order.pop_front();
        }
        if self.until.insert(mark, now + holds).is_none() {
            self.order.push_back(mark);
        }
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::with(Stored::fits)
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.desk().closed = true;
        self.shared.bell.notify_all();
    }
}

impl Verifier {
    fn with(judge: fn(&Stored, &[u8]) -> bool) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the generator of aws-lc is seeded because TLS has been set up with it");
        Self { shared: Arc::new(Shared { key, judge, desk: Mutex::default(), bell: Condvar::new() }) }
    }

    /// What is known of the question; else it is put to the threads.
    pub fn ask(&self, client: IpAddr, question: &Question<'_>) -> Answer {
        let mark = self.shared.mark(question);
        let now = Instant::now();
        let client = Network::of(client);
        let mut desk = self.shared.desk();
        if desk.good.has(&mark, now) {
            return Answer::Known(true);
        }
        if desk.bad.has(&mark, now) {
            return Answer::Known(false);
        }
        let (tell, answer) = oneshot::channel();
        if let Some(others) = desk.asked.get_mut(&mark) {
            if others.len() >= SHARING {
                others.retain(|other| !other.is_closed());
            }
            if others.len() >= SHARING {
                return Answer::Busy;
            }
            others.push(tell);
            return Answer::Waits(answer);
        }
        let of_client = desk.of_clients.get(&client).copied().unwrap_or(0);
        if desk.jobs.len() >= WAITING || of_client >= OF_ONE {
            return Answer::Busy;
        }
        let Question { password, stored, known, .. } = question;
        desk.of_clients.insert(client, of_client + 1);
        desk.asked.insert(mark, vec![tell]);
        desk.jobs.push_back(Job { mark, client, password: (*password).into(), stored: Arc::clone(stored), known: *known });
        let running = desk.threads;
        desk.threads = running.max(threads());
        drop(desk);
        (running..threads()).for_each(|n| self.start(n));
        self.shared.bell.notify_one();
        Answer::Waits(answer)
    }

    fn start(&self, n: usize) {
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name(format!("password-{n}")).spawn(move || shared.work());
        let mut desk = self.shared.desk();
        match started {
            Ok(_) => desk.complained = false,
            Err(error) => {
                // The next question tries again.
                desk.threads -= 1;
                if !std::mem::replace(&mut desk.complained, true) {
                    tracing::error!(%error, "a thread that verifies passwords could not be started");
                }
            }
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held.
        lock(&self.desk)
    }

    fn mark(&self, question: &Question<'_>) -> Mark {
        let Question { name, password, stored: _, hash, known } = question;
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[u8::from(*known)]);
        for part in [name, password, hash.as_bytes()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }

    /// One thread's life.
    fn work(&self) {
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::warn!(%error, "passwords are verified at the priority of traffic");
        }
        while let Some(job) = self.next() {
            let Job { mark, client: _, password, stored, known } = job;
            // It touches nothing of ours: whoever catches it finds all as it was.
            let judged = catch_unwind(AssertUnwindSafe(|| (self.judge)(&stored, &password)));
            let right = judged.as_ref().is_ok_and(|fits| *fits) & known;
            let mut desk = self.desk();
            let now = Instant::now();
            match judged {
                Ok(_) if right => desk.good.keep(mark, now, GOOD_FOR),
                Ok(_) => desk.bad.keep(mark, now, BAD_FOR),
                Err(_) => tracing::error!("a password could not be verified: its verification panicked; the log has where"),
            }
            for waits in desk.asked.remove(&mark).unwrap_or_default() {
                // Whoever has left needs no answer.
                let _ = waits.send(right);
            }
        }
    }

    /// The next password that somebody waits for; `None`: it is over.
    fn next(&self) -> Option<Job> {
        let mut desk = self.desk();
        loop {
            if desk.closed {
                return None;
            }
            let Some(job) = desk.jobs.pop_front() else {
                desk = wait(&self.bell, desk);
                continue;
            };
            match desk.of_clients.get_mut(&job.client) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => drop(desk.of_clients.remove(&job.client)),
            }
            if desk.asked.get(&job.mark).is_some_and(|waiting| waiting.iter().any(|one| !one.is_closed())) {
                return Some(job);
            }
            desk.asked.remove(&job.mark);
        }
    }
}

/// How many there are to be.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About 50 ms.
    const SLOW: &str = "$2y$10$CkBbF7bMdpwuSSQyFmmdXeZ4uf/Swi0BCocSc0sRshxdHAoxc6rHq";

    fn client(n: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, n])
    }

    fn ask(verifier: &Verifier, stored: &Arc<Stored>, client: IpAddr, password: &str) -> Answer {
        verifier.ask(client, &Question { name: b"alice", password: password.as_bytes(), stored, hash: SLOW, known: true })
    }

    #[test]
    fn one_client_has_few_waiting_and_all_together_so_many() {
        let (verifier, stored) = (Verifier::default(), Arc::new(Stored::parse(SLOW).expect("a hash")));
        let mut waiting = Vec::new();
        let mut busy = 0;
        for n in 0..50 {
            match ask(&verifier, &stored, client(1), &format!("guess {n}")) {
                Answer::Waits(answer) => waiting.push(answer),
                Answer::Busy => busy += 1,
                Answer::Known(_) => panic!("nothing is known yet"),
            }
        }
        // Those that the threads have taken up already are not waiting.
        assert!(waiting.len() <= OF_ONE as usize + 2 * THREADS && busy > 0, "{}", waiting.len());
        assert!(matches!(ask(&verifier, &stored, client(2), "guess"), Answer::Waits(_)), "another one is not touched");
        for n in 3..200 {
            if let Answer::Waits(answer) = ask(&verifier, &stored, client(n), &format!("guess of {n}")) {
                waiting.push(answer);
            }
        }
        assert!(waiting.len() <= WAITING + OF_ONE as usize + 4 * THREADS, "{}", waiting.len());
        assert!(matches!(ask(&verifier, &stored, client(250), "late"), Answer::Busy));
    }

    #[tokio::test]
    async fn who_asks_what_is_asked_already_waits_for_that_and_takes_no_place() {
        let (verifier, stored) = (Verifier::default(), Arc::new(Stored::parse(SLOW).expect("a hash")));
        let answers: Vec<_> = (0..100)
            .map(|_| match ask(&verifier, &stored, client(1), "the same") {
                Answer::Waits(answer) => answer,
                Answer::Busy | Answer::Known(_) => panic!("it is to wait"),
            })
            .collect();
        for answer in answers {
            assert_eq!(answer.await, Ok(false));
        }
        assert!(matches!(ask(&verifier, &stored, client(1), "the same"), Answer::Known(false)));
    }

    #[tokio::test]
    async fn nobody_verifies_for_those_who_have_left() {
        let (verifier, stored) = (Verifier::default(), Arc::new(Stored::parse(&SLOW.replace("$10$", "$13$")).expect("a hash")));
        for n in 0..WAITING {
            drop(ask(&verifier, &stored, client(u8::try_from(n).expect("small")), &format!("guess {n}")));
        }
        // Each would take most of a second: this one comes after at most those that were begun.
        let began = Instant::now();
        let answer = loop {
            match ask(&verifier, &stored, client(200), "mine") {
                Answer::Waits(answer) => break answer,
                Answer::Busy => tokio::task::yield_now().await,
                Answer::Known(_) => panic!("nothing is known yet"),
            }
        };
        assert_eq!(answer.await, Ok(false));
        let one = began.elapsed();
        let again = Instant::now();
        let _ = stored.fits(b"alone");
        assert!(one < again.elapsed() * 20, "{one:?}");
    }

    #[tokio::test]
    async fn a_verification_that_panics_ends_no_thread_and_is_not_remembered() {
        fn judge(_: &Stored, password: &[u8]) -> bool {
            assert!(!password.starts_with(b"poison"), "on purpose");
            password == b"right"
        }
        let (verifier, stored) = (Verifier::with(judge), Arc::new(Stored::parse(SLOW).expect("a hash")));
        // More often than there are threads, and the last twice.
        for n in (0..3 * THREADS).chain([0]) {
            match ask(&verifier, &stored, client(1), &format!("poison {n}")) {
                Answer::Waits(answer) => assert_eq!(answer.await, Ok(false)),
                Answer::Known(_) | Answer::Busy => panic!("it is asked each time"),
            }
        }
        let Answer::Waits(answer) = ask(&verifier, &stored, client(1), "right") else { panic!("it is to wait") };
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), answer).await.expect("a thread is left"), Ok(true));
    }

    #[test]
    fn memory_is_bounded_and_forgets() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let mark = |n: usize| {
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&n.to_le_bytes());
            mark
        };
        (0..3 * REMEMBERED).for_each(|n| memory.keep(mark(n), now, BAD_FOR));
        assert!(memory.until.len() <= REMEMBERED && memory.order.len() <= REMEMBERED);
        assert!(memory.has(&mark(3 * REMEMBERED - 1), now) && !memory.has(&mark(0), now));
        assert!(!memory.has(&mark(3 * REMEMBERED - 1), now + BAD_FOR));
        memory.keep(mark(1), now + BAD_FOR, BAD_FOR);
        assert_eq!((memory.until.len(), memory.order.len()), (1, 1), "what holds no longer is not kept");
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let (verifier, stored) = (Verifier::default(), Arc::new(Stored::parse(SLOW).expect("a hash")));
        let ip = |network: u16, n: u16| IpAddr::from([0x2001, 0xdb8, 1, network, 0, 0, 0, n]);
        let mut waiting = Vec::new();
        let mut busy = 0;
        for n in 0..50 {
            match ask(&verifier, &stored, ip(2, n), &format!("guess {n}")) {
                Answer::Waits(answer) => waiting.push(answer),
                Answer::Busy => busy += 1,
                Answer::Known(_) => panic!("nothing is known yet"),
            }
        }
        assert!(busy > 0, "50 addresses of one network have a share each");
        assert!(matches!(ask(&verifier, &stored, ip(3, 1), "guess"), Answer::Waits(_)), "another network is not touched");
    }
}
