//! What apps said last, and who listens: the source of `gateway logs`.
//!
//! Shape: for each app of the configuration a ring of what its processes wrote, bounded in bytes, and its followers. A follower that reads too slowly loses
//!        batches and is told how many lines; whoever writes never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::queue::count;
use crate::{
    ipc::{control::LogLine, message::InstanceId},
    vocab::{AppName, lock},
};

/// Of one app, kept in memory.
const RING_BYTES: usize = 256 * 1024;
/// Over all apps. Each may hold [`BACKLOG`] batches of 32 KB.
pub const FOLLOWERS: usize = 16;
/// Batches that wait for a follower. Full: it loses what comes then.
const BACKLOG: usize = 16;

/// Why an app cannot be followed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum FollowError {
    #[error("there is no app {:?}; there {}", app.as_str(), apps(known))]
    Unknown { app: AppName, known: Vec<AppName> },
    #[error("{FOLLOWERS} follow logs already: try again when one of them has ended")]
    Full,
}

fn apps(known: &[AppName]) -> String {
    const SHOWN: usize = 20;
    let names: Vec<_> = known.iter().take(SHOWN).map(AppName::as_str).collect();
    match known.len() {
        0 => "are none".to_owned(),
        1 => format!("is {}", names.join("")),
        more if more > SHOWN => format!("are {} and {} more", names.join(", "), more - SHOWN),
        _ => format!("are {}", names.join(", ")),
    }
}

/// Whole lines that a process wrote in one go.
#[derive(Debug)]
pub struct Batch {
    pub id: InstanceId,
    pub pid: u32,
    pub err: bool,
    pub at: Timestamp,
    /// Each line with its end.
    pub text: Vec<u8>,
}

impl Batch {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.capacity()
    }

    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.text.strip_suffix(b"\n").unwrap_or(&self.text).split(|byte| *byte == b'\n')
    }

    #[must_use]
    pub fn line(&self, line: &[u8]) -> LogLine {
        let text = String::from_utf8_lossy(line);
        LogLine {
            t: Some(format!("{:.3}", self.at)),
            app: self.id.app.clone(),
            n: Some(self.id.n),
            pid: Some(self.pid),
            stream: Some(if self.err { "stderr" } else { "stdout" }.to_owned()),
            msg: text.strip_suffix('\r').unwrap_or(&text).to_owned(),
        }
    }
}

/// What a follower gets.
#[derive(Clone, Debug)]
pub enum News {
    Lines(Arc<Batch>),
    /// So many lines are missing here.
    Lost(u64),
}

#[derive(Debug)]
struct Follower {
    to: Sender<News>,
    lost: u64,
}

#[derive(Debug, Default)]
struct Lane {
    ring: VecDeque<Arc<Batch>>,
    bytes: usize,
    followers: Vec<Follower>,
}

#[derive(Debug, Default)]
pub struct Hub {
    lanes: Mutex<BTreeMap<AppName, Lane>>,
}

impl Hub {
    /// The apps that there are from now on. Who follows one that is gone hears the end.
    pub fn know(&self, apps: &BTreeSet<AppName>) {
        let mut lanes = self.lock();
        lanes.retain(|app, _| apps.contains(app));
        for app in apps {
            lanes.entry(app.clone()).or_default();
        }
    }

    /// What a process wrote. Never waits.
    pub fn push(&self, mut batch: Batch) {
        if batch.text.is_empty() {
            return;
        }
        // Read with a long line that has no end yet, it may have room for much more than it holds.
        batch.text.shrink_to_fit();
        let mut lanes = self.lock();
        // Its app was removed by a reload, and it is on its way out.
        let Some(lane) = lanes.get_mut(&batch.id.app) else { return };
        lane.push(Arc::new(batch));
    }

    /// The last batches that hold `lines` lines, oldest first, or all that are kept.
    ///
    /// Errors: [`FollowError::Unknown`]
    pub fn last(&self, app: &AppName, lines: usize) -> Result<Vec<Arc<Batch>>, FollowError> {
        let last = self.lock().get(app).map(|lane| lane.last(lines));
        // The lock is free again: to say which apps there are takes it once more.
        last.ok_or_else(|| self.unknown(app))
    }

    /// As [`Hub::last`], and what comes after it, without a gap. Ends when the app is removed.
    ///
    /// Errors: [`FollowError`]
    pub fn follow(&self, app: &AppName, lines: usize) -> Result<(Vec<Arc<Batch>>, Receiver<News>), FollowError> {
        let mut lanes = self.lock();
        for lane in lanes.values_mut() {
            lane.followers.retain(|follower| !follower.to.is_closed());
        }
        let following: usize = lanes.values().map(|lane| lane.followers.len()).sum();
        let Some(lane) = lanes.get_mut(app) else {
            drop(lanes);
            return Err(self.unknown(app));
        };
        if following >= FOLLOWERS {
            return Err(FollowError::Full);
        }
        let (to, news) = channel(BACKLOG);
        lane.followers.push(Follower { to, lost: 0 });
        Ok((lane.last(lines), news))
    }

    fn unknown(&self, app: &AppName) -> FollowError {
        FollowError::Unknown { app: app.clone(), known: self.lock().keys().cloned().collect() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppName, Lane>> {
        // Batches are in or not in: whoever panicked left them whole.
        lock(&self.lanes)
    }
}

impl Lane {
    fn push(&mut self, batch: Arc<Batch>) {
        self.followers.retain_mut(|follower| follower.tell(&batch));
        self.bytes += batch.bytes();
        self.ring.push_back(batch);
        while self.bytes > RING_BYTES && self.ring.len() > 1 {
            let Some(oldest) = self.ring.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    fn last(&self, lines: usize) -> Vec<Arc<Batch>> {
        let mut held = 0;
        let enough = self.ring.iter().rev().take_while(|batch| {
            let more = held < lines;
            held += batch.lines().count();
            more
        });
        let mut batches: Vec<_> = enough.cloned().collect();
        batches.reverse();
        batches
    }
}

impl Follower {
    /// False: it has gone.
    fn tell(&mut self, batch: &Arc<Batch>) -> bool {
        if self.lost > 0 {
            match self.to.try_send(News::Lost(self.lost)) {
                Ok(()) => self.lost = 0,
                Err(TrySendError::Full(_)) => {
                    self.lost += count(&batch.text);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        match self.to.try_send(News::Lines(batch.clone())) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost += count(&batch.text);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AppName {
        AppName::parse(text).expect("valid")
    }

    fn batch(app: &str, text: &str) -> Batch {
        Batch { id: InstanceId { app: name(app), n: 0 }, pid: 7, err: false, at: Timestamp::UNIX_EPOCH, text: text.as_bytes().to_vec() }
    }

    fn hub(apps: &[&str]) -> Hub {
        let hub = Hub::default();
        hub.know(&apps.iter().map(|app| name(app)).collect());
        hub
    }

    fn texts(batches: &[Arc<Batch>]) -> Vec<String> {
        batches.iter().flat_map(|batch| batch.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_ring_holds_the_newest_within_its_bytes() {
        let hub = hub(&["web"]);
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..1000 {
            hub.push(batch("web", &line));
        }
        let lane = &hub.lock()[&name("web")];
        assert!(lane.bytes <= RING_BYTES && lane.bytes > RING_BYTES / 2, "{}", lane.bytes);
        assert_eq!(lane.bytes, lane.ring.iter().map(|batch| batch.bytes()).sum::<usize>());
    }

    #[test]
    fn short_lines_out_of_large_reads_do_not_grow_the_ring() {
        let hub = hub(&["web"]);
        for _ in 0..10_000 {
            let mut text = Vec::with_capacity(16 * 1024);
            text.push(b'\n');
            hub.push(Batch { text, ..batch("web", "") });
        }
        let lane = &hub.lock()[&name("web")];
        let held: usize = lane.ring.iter().map(|batch| size_of::<Batch>() + batch.text.capacity()).sum();
        assert!(held <= RING_BYTES, "{held}");
    }

    #[test]
    fn the_last_lines_come_from_the_last_batches() {
        let hub = hub(&["web"]);
        hub.push(batch("web", "one\ntwo\n"));
        hub.push(batch("web", "three\n"));
        hub.push(batch("web", "\nfive\n"));
        assert_eq!(texts(&hub.last(&name("web"), 2).expect("known")), ["", "five"]);
        assert_eq!(texts(&hub.last(&name("web"), 3).expect("known")), ["three", "", "five"]);
        assert_eq!(texts(&hub.last(&name("web"), 100).expect("known")), ["one", "two", "three", "", "five"]);
        assert!(hub.last(&name("web"), 0).expect("known").is_empty());
    }

    #[test]
    fn a_slow_follower_loses_lines_and_is_told_how_many() {
        let hub = hub(&["web"]);
        let (_, mut news) = hub.follow(&name("web"), 0).expect("known");
        for _ in 0..1000 {
            hub.push(batch("web", "a\nb\n"));
        }
        let (mut got, mut lost) = (0, 0);
        for round in 0..2 {
            while let Ok(one) = news.try_recv() {
                match one {
                    News::Lines(batch) => got += batch.lines().count() as u64,
                    News::Lost(lines) => lost += lines,
                }
            }
            if round == 0 {
                hub.push(batch("web", "last\n"));
            }
        }
        assert_eq!((got + lost, got), (2001, 2 * BACKLOG as u64 + 1));
    }

    #[test]
    fn so_many_follow_and_one_that_leaves_makes_room() {
        let hub = hub(&["web", "api"]);
        let mut all: Vec<_> = (0..FOLLOWERS).map(|_| hub.follow(&name("web"), 0).expect("room")).collect();
        assert_eq!(hub.follow(&name("api"), 0).err(), Some(FollowError::Full));
        all.pop();
        assert!(hub.follow(&name("api"), 0).is_ok());
    }

    #[test]
    fn who_follows_an_app_that_is_removed_hears_the_end_and_others_do_not() {
        let hub = hub(&["web", "api"]);
        let (_, mut web) = hub.follow(&name("web"), 0).expect("known");
        let (_, mut api) = hub.follow(&name("api"), 0).expect("known");
        hub.push(batch("api", "before\n"));
        hub.know(&[name("api"), name("new")].into());
        hub.push(batch("web", "late\n"));
        hub.push(batch("api", "after\n"));
        assert!(matches!(web.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)));
        assert!(matches!((api.try_recv(), api.try_recv()), (Ok(News::Lines(_)), Ok(News::Lines(_)))));
        let unknown = hub.last(&name("web"), 1).expect_err("gone").to_string();
        assert_eq!(unknown, "there is no app \"web\"; there are api, new");
    }
}
