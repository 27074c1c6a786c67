//! The access log on its way out of the edge: records go to a buffer of their thread, a writer thread takes them to the pipe.
//!
//! Shape: `record` never waits for the reader of the pipe: a buffer that is full while the writer is stuck drops records, and counts them.
//!        A buffer leaves when it holds 32 KB, else within a second. Memory: at most a megabyte a slot, and one more.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use nix::{
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    access::{AccessRecord, Stamp, write_combined, write_json},
    cell::Slots,
};
use crate::{
    plan,
    vocab::lock::{lock, wait_for},
};

const FLUSH_SIZE: usize = 32 * 1024;
const FLUSH_AGE: Duration = Duration::from_secs(1);
/// What a slot keeps while the writer is stuck; at 400 bytes a record some 2,600 records.
const FULL_SIZE: usize = 1024 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
const KEEP_SIZE: usize = 2 * FLUSH_SIZE;
/// Asked of the kernel, so that the writer waits less for the reader; it may refuse.
const PIPE_SIZE: i32 = 1024 * 1024;

/// The way to the pipe, one a process.
pub struct AccessWriter {
    slots: Slots<Mutex<Slot>>,
    zone: TimeZone,
    dropped: Arc<AtomicU64>,
    /// Set by `close`, and when the reader has gone.
    closed: AtomicBool,
    /// Whether the writer has written all and gone.
    ended: Mutex<bool>,
    has_ended: Condvar,
    thread: Mutex<Option<Thread>>,
}

#[derive(Default)]
struct Slot {
    lines: Vec<u8>,
    stamp: Option<Stamp>,
}

impl AccessWriter {
    /// Takes the write end of the pipe; `dropped` counts what could not be kept.
    ///
    /// Errors: no thread could be had.
    pub fn start(pipe: OwnedFd, dropped: Arc<AtomicU64>) -> io::Result<Arc<Self>> {
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        let writer = Arc::new(Self {
            slots: Slots::default(),
            zone: TimeZone::system(),
            dropped,
            closed: AtomicBool::new(false),
            ended: Mutex::new(false),
            has_ended: Condvar::new(),
            thread: Mutex::new(None),
        });
        let own = writer.clone();
        let handle = thread::Builder::new().name("access-log".into()).spawn(move || own.run(File::from(pipe)))?;
        *lock(&writer.thread) = Some(handle.thread().clone());
        Ok(writer)
    }

    /// Writes what there is and ends; waits for it no longer than `within`. Later records are dropped.
    pub fn close(&self, within: Duration) {
        self.closed.store(true, Relaxed);
        self.wake();
        let deadline = Instant::now() + within;
        let mut ended = lock(&self.ended);
        while !*ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            ended = wait_for(&self.has_ended, ended, left);
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    fn append(&self, write: impl FnOnce(&mut Stamp, &mut Vec<u8>)) {
        let full = {
            let mut slot = lock(self.slots.mine());
            if slot.lines.len() >= FULL_SIZE || self.closed.load(Relaxed) {
                self.dropped.fetch_add(1, Relaxed);
                return;
            }
            let Slot { lines, stamp } = &mut *slot;
            let before = lines.len();
            write(stamp.get_or_insert_with(|| Stamp::new(self.zone.clone())), lines);
            before < FLUSH_SIZE && lines.len() >= FLUSH_SIZE
        };
        if full {
            self.wake();
        }
    }

    fn run(&self, mut pipe: File) {
        let mut taken = Vec::new();
        loop {
            // Read before the slots are: what came before `close` is written.
            let last = self.closed.load(Relaxed);
            for slot in self.slots.iter() {
                std::mem::swap(&mut taken, &mut lock(slot).lines);
                if !taken.is_empty() && write_all(&mut pipe, &taken).is_err() {
                    self.closed.store(true, Relaxed);
                    let lost = taken.iter().filter(|byte| **byte == b'\n').count();
                    self.dropped.fetch_add(lost as u64, Relaxed);
                }
                taken.clear();
                taken.shrink_to(KEEP_SIZE);
            }
            if last {
                break;
            }
            thread::park_timeout(FLUSH_AGE);
        }
        *lock(&self.ended) = true;
        self.has_ended.notify_all();
    }
}

/// Waits where the pipe is full, whether or not someone made it non-blocking.
fn write_all(pipe: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match pipe.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The access log as one plan wants it, on the process's one way out.
#[derive(Clone)]
pub struct AccessLog {
    writer: Arc<AccessWriter>,
    format: plan::AccessFormat,
    /// A request is logged where its id's hash is below; `None`: all.
    below: Option<u64>,
}

impl AccessLog {
    #[must_use]
    pub fn new(writer: &Arc<AccessWriter>, spec: &plan::AccessLog) -> Self {
        let plan::AccessLog { format, sample } = *spec;
        // A float beyond the range saturates, which is what is meant.
        let below = (sample < 1.0).then_some((sample.max(0.0) * u64::MAX as f64) as u64);
        Self { writer: writer.clone(), format, below }
    }

    /// Whether the request with this id is logged: the same everywhere and each time it is asked; answers of 500 and above always.
    #[must_use]
    pub fn wants(&self, id: &str, status: u16) -> bool {
        status >= 500 || self.below.is_none_or(|below| hash(id) < below)
    }

    /// Cancel-safety: does not wait.
    pub fn record(&self, record: &AccessRecord<'_>) {
        if !self.wants(record.id, record.status) {
            return;
        }
        self.writer.append(|stamp, out| match self.format {
            plan::AccessFormat::Json => write_json(record, stamp, out),
            plan::AccessFormat::Combined => write_combined(record, stamp, out),
        });
    }
}

/// FNV-1a with a finisher, so that the high bits know of every byte.
fn hash(id: &str) -> u64 {
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        net::IpAddr,
    };

    use super::*;

    fn start() -> (Arc<AccessWriter>, File, Arc<AtomicU64>) {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let dropped = Arc::new(AtomicU64::new(0));
        (AccessWriter::start(write, dropped.clone()).expect("a thread"), File::from(read), dropped)
    }

    fn spec(sample: f64) -> plan::AccessLog {
        plan::AccessLog { format: plan::AccessFormat::Json, sample }
    }

    fn record<'a>(id: &'a str, agent: &'a [u8]) -> AccessRecord<'a> {
        AccessRecord {
            at_ms: 0,
            id,
            client: IpAddr::from([127, 0, 0, 1]),
            user: None,
            method: "GET",
            host: "a",
            target: b"/",
            version: http::Version::HTTP_11,
            status: 200,
            received: 0,
            sent: 0,
            took: Duration::ZERO,
            site: "a",
            route: None,
            upstream: None,
            server: None,
            upstream_took: None,
            tries: 0,
            tls: None,
            user_agent: Some(agent),
            referer: None,
            refused: None,
            filter: None,
        }
    }

    #[test]
    fn what_many_threads_record_arrives_whole_and_once() {
        let (writer, mut read, dropped) = start();
        let log = AccessLog::new(&writer, &spec(1.0));
        let reader = thread::spawn(move || {
            let mut text = String::new();
            read.read_to_string(&mut text).map(|_| text)
        });
        let threads: Vec<_> = (0..4)
            .map(|t| {
                let log = log.clone();
                thread::spawn(move || (0..500).for_each(|n| log.record(&record(&format!("{t}-{n}"), b"x"))))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        writer.close(Duration::from_secs(10));
        drop((log, writer));
        let text = reader.join().expect("no panic").expect("utf-8");
        let mut ids: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line")["id"].as_str().expect("text").to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), dropped.load(Relaxed)), (2_000, 0));
    }

    #[test]
    fn a_lone_record_leaves_without_another_one() {
        let (writer, read, _) = start();
        AccessLog::new(&writer, &spec(1.0)).record(&record("lone", b"x"));
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).expect("a line");
        assert!(line.contains("lone"));
    }

    #[test]
    fn a_reader_that_does_not_read_costs_records_not_memory_and_not_time() {
        let (writer, _read, dropped) = start();
        let log = AccessLog::new(&writer, &spec(1.0));
        let agent = vec![b'x'; 4096];
        let deadline = Instant::now() + Duration::from_secs(20);
        while dropped.load(Relaxed) == 0 {
            assert!(Instant::now() < deadline, "nothing was dropped");
            log.record(&record("id", &agent));
        }
        writer.close(Duration::from_millis(1));
    }

    #[test]
    fn a_reader_that_went_away_ends_the_writer() {
        let (writer, read, dropped) = start();
        drop(read);
        AccessLog::new(&writer, &spec(1.0)).record(&record("id", b"x"));
        writer.close(Duration::from_secs(10));
        assert!(*lock(&writer.ended));
        assert_eq!(dropped.load(Relaxed), 1);
    }

    #[test]
    fn a_sample_takes_its_share_the_same_ones_each_time_and_every_server_error() {
        let (writer, _read, _) = start();
        let log = AccessLog::new(&writer, &spec(0.25));
        let ids: Vec<_> = (0..10_000).map(|n| format!("{n:032x}")).collect();
        let taken = ids.iter().filter(|id| log.wants(id, 200)).count();
        assert!((2_200..2_800).contains(&taken), "{taken}");
        assert!(ids.iter().all(|id| log.wants(id, 200) == log.wants(id, 404)));
        assert!(ids.iter().all(|id| log.wants(id, 500)));
        let none = AccessLog::new(&writer, &spec(0.0));
        assert!(!ids.iter().any(|id| none.wants(id, 200)));
        writer.close(Duration::ZERO);
    }
}
