//! The end of all apps: in reverse order, one after the other.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::Supervisor;
use crate::{rules::restart::Event, vocab::AppName};

pub(super) struct Stopping {
    pub(super) queue: VecDeque<AppName>,
    pub(super) current: Option<AppName>,
    pub(super) done: Option<oneshot::Sender<()>>,
}

impl Supervisor {
    /// The next app's turn when the one before is at rest.
    pub(super) fn go_on_stopping(&mut self) {
        while let Some(Stopping { queue, current, done }) = &mut self.stopping {
            let busy = current.as_ref().and_then(|app| self.tracks.get(app)).is_some_and(|track| !track.life.is_at_rest());
            if busy {
                return;
            }
            *current = queue.pop_front();
            let Some(app) = current.clone() else {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
                return;
            };
            self.step(&app, Event::Stop);
        }
    }
}
