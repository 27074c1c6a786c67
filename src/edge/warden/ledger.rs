//! The ledger: bans on disk, so that neither a crash nor an upgrade frees anybody.
//!
//! Shape: STATE/edge/bans, written whole when a ban is made or ended: at once, then at most once a second, and at most a twentieth of the time where there are so many
//!        that it takes long. While two edges overlap, the elder writes a last time when it is told to leave; whoever finds that another has written takes what he does
//!        not know, at the latest before he writes himself.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{Warden, now};
use crate::{
    store::{
        atomic::WriteError,
        bans::{Bans, ReadError, Stamp},
    },
    vocab::{chain, lock},
};

const SWEEP: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
/// So many times what a write took passes before the next one.
const SHARE: u32 = 20;
/// After a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug)]
pub struct Ledger {
    warden: Arc<Warden>,
    file: Bans,
    /// Held while the file is read or written: one at a time.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file as we know it.
    stamp: Option<Stamp>,
    /// Another edge has it.
    closed: bool,
}

impl Ledger {
    /// Takes what is written down. A damaged file is put aside, and nobody is banned by it.
    #[must_use]
    pub fn open(home: PathBuf, warden: Arc<Warden>) -> Arc<Self> {
        let ledger = Self { warden, file: Bans::of(&home), state: Mutex::default() };
        let mut state = ledger.state();
        state.stamp = ledger.file.stamp();
        match ledger.take() {
            Ok(0) => {}
            Ok(bans) => tracing::info!(bans, "bans taken up"),
            Err(error) => {
                tracing::error!(error = %chain(&error), "bans not read: nobody is banned");
                if let ReadError::Damaged { .. } = error {
                    match ledger.file.put_aside() {
                        Ok(to) => tracing::error!(file = %to.display(), "damaged file put aside"),
                        Err(error) => tracing::error!(%error, "damaged file not put aside"),
                    }
                }
            }
        }
        drop(state);
        Arc::new(ledger)
    }

    /// Writes when there is something to write, and finds who is banned no more, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        loop {
            let due = self.warden.unwritten.load(Relaxed);
            tokio::select! {
                () = self.warden.changed.notified(), if !due => {}
                () = sleep_until(not_before), if due => {
                    let (ledger, began) = (self.clone(), Instant::now());
                    let saved = spawn_blocking(move || ledger.save()).await.unwrap_or(false);
                    not_before = Instant::now() + if saved { PAUSE.max(began.elapsed() * SHARE) } else { AFTER_FAILURE };
                }
                _ = sweep.tick() => {
                    self.warden.jail.sweep(now());
                    self.look();
                }
            }
        }
    }

    /// Writes what there is, if it is not written. Blocks for the disk. Whether it is on disk now.
    pub fn save(&self) -> bool {
        self.keep().is_ok()
    }

    /// As [`Ledger::save`].
    ///
    /// Errors: it is not on disk, and is tried again.
    pub fn keep(&self) -> Result<(), WriteError> {
        let mut state = self.state();
        if state.closed || !self.warden.unwritten.swap(false, Relaxed) {
            return Ok(());
        }
        // Another edge may have written since the last look: what is ours alone joins it, and does not take its place.
        self.take_over(&mut state);
        match self.file.write(|see| self.warden.jail.each(see)) {
            Ok(()) => {
                state.stamp = self.file.stamp();
                Ok(())
            }
            Err(error) => {
                self.warden.unwritten.store(true, Relaxed);
                tracing::warn!(error = %chain(&error), "bans not written");
                Err(error)
            }
        }
    }

    /// A last time: from here on another edge writes.
    pub fn close(&self) {
        self.save();
        self.state().closed = true;
    }

    /// Whether another edge has written; what it knew and we do not is taken.
    fn look(&self) {
        let mut state = self.state();
        if !state.closed && self.take_over(&mut state) {
            // Its file lacks what is ours alone.
            self.warden.is_unwritten();
        }
    }

    /// Takes what another edge has written. Whether there was something to take.
    fn take_over(&self, state: &mut State) -> bool {
        let stamp = self.file.stamp();
        if stamp.is_none() || stamp == state.stamp {
            return false;
        }
        state.stamp = stamp;
        let taken = self.take();
        if let Err(error) = &taken {
            tracing::warn!(error = %chain(error), "bans of another edge not read");
        }
        taken.is_ok()
    }

    fn take(&self) -> Result<usize, ReadError> {
        let (mut taken, now) = (0, now());
        let strange = self.file.read(|who, sentence| taken += usize::from(self.warden.jail.restore(who, sentence, now)))?;
        if strange > 0 {
            tracing::warn!(lines = strange, "lines in the file of bans name no ban and are passed over");
        }
        Ok(taken)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{rules::jail::Who, telemetry::Metrics};

    fn warden() -> Arc<Warden> {
        Arc::new(Warden::new(&Metrics::new()))
    }

    fn who(n: u8) -> Who {
        Who::of([192, 0, 2, n].into()).expect("an address")
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_ban_is_on_disk_at_once_and_the_next_edge_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = warden();
        let ledger = Ledger::open(dir.path().into(), first.clone());
        let running = tokio::task::JoinSet::from_iter([ledger.clone().run()]);
        first.ban(who(1), HOUR);
        while !dir.path().join("bans").exists() {
            tokio::task::yield_now().await;
        }
        drop(running);
        let second = warden();
        let _ledger = Ledger::open(dir.path().into(), second.clone());
        assert!(second.held(who(1).address()).is_some() && second.held(who(2).address()).is_none());
    }

    #[test]
    fn what_the_edge_before_has_written_last_is_taken_by_the_one_that_follows() {
        let dir = tempfile::tempdir().expect("a directory");
        let (elder, next) = (warden(), warden());
        let (elders, nexts) = (Ledger::open(dir.path().into(), elder.clone()), Ledger::open(dir.path().into(), next.clone()));
        next.ban(who(2), HOUR);
        assert!(nexts.save());
        elder.ban(who(1), HOUR);
        elders.close();
        elder.ban(who(3), HOUR);
        assert!(elders.save(), "nothing is written by one that has left");
        nexts.look();
        assert!([1, 2].iter().all(|n| next.held(who(*n).address()).is_some()) && next.held(who(3).address()).is_none());
        assert!(nexts.save());
        let last = warden();
        let _ledger = Ledger::open(dir.path().into(), last.clone());
        assert_eq!(last.count(), 2);
        // Who is freed is not brought back by a file of our own.
        assert!(next.free(who(1)) && nexts.save());
        nexts.look();
        assert_eq!(next.count(), 1);
    }

    #[test]
    fn whoever_writes_before_he_looks_does_not_forget_what_another_has_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (elder, next) = (warden(), warden());
        let (elders, nexts) = (Ledger::open(dir.path().into(), elder.clone()), Ledger::open(dir.path().into(), next.clone()));
        elder.ban(who(1), HOUR);
        elders.close();
        next.ban(who(2), HOUR);
        assert!(nexts.save());
        assert!(next.held(who(1).address()).is_some(), "taken over");
        let last = warden();
        let _ledger = Ledger::open(dir.path().into(), last.clone());
        assert!([1, 2].iter().all(|n| last.held(who(*n).address()).is_some()), "both are on disk");
    }

    #[test]
    fn one_line_that_names_nobody_frees_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = "gateway bans 1\n0.0.0.0 1 4000000000 1 manual\n192.0.2.1 1 4000000000 1 manual\nend 2\n";
        fs::write(dir.path().join("bans"), text).expect("written");
        let warden = warden();
        let _ledger = Ledger::open(dir.path().into(), warden.clone());
        assert!(warden.held(who(1).address()).is_some() && dir.path().join("bans").exists());
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_nobody_is_banned() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("bans"), "gateway bans 1\n192.0.2.1 1 4000000000 1 manual\n").expect("written");
        let warden = warden();
        let ledger = Ledger::open(dir.path().into(), warden.clone());
        assert!(warden.is_idle());
        assert!(dir.path().join("bans.damaged").exists() && !dir.path().join("bans").exists());
        warden.ban(who(1), HOUR);
        assert!(ledger.save() && dir.path().join("bans").exists());
    }
}
