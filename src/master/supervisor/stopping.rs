//! The end of all apps: wave after wave of those that nothing else needs any more.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::oneshot;

use super::Supervisor;
use crate::{plan::waves, rules::restart::Event, vocab::AppName};

pub(super) struct Stopping {
    waves: VecDeque<BTreeSet<AppName>>,
    /// Told to stop.
    current: BTreeSet<AppName>,
    done: Option<oneshot::Sender<()>>,
}

impl Supervisor {
    pub(super) fn begin_stopping(&mut self, done: oneshot::Sender<()>) {
        for track in self.tracks.values_mut() {
            track.again = None;
        }
        let after = self.tracks.iter().map(|(app, track)| (app.clone(), track.life.spec().after.clone())).collect();
        self.stopping = Some(Stopping { waves: waves::waves(after).into(), current: BTreeSet::new(), done: Some(done) });
    }

    /// The next wave's turn when all of the one before are at rest.
    pub(super) fn go_on_stopping(&mut self) {
        while let Some(Stopping { waves, current, done }) = &mut self.stopping {
            let busy = current.iter().filter_map(|app| self.tracks.get(app)).any(|track| !track.life.is_at_rest());
            if busy {
                return;
            }
            let Some(wave) = waves.pop_front() else {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
                return;
            };
            current.clone_from(&wave);
            for app in wave {
                self.step(&app, Event::Stop);
            }
        }
    }
}
