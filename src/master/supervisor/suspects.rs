//! Requests that a process had when it ended: the edge knows them, we know its end, and either may be told first.

use super::Supervisor;
use crate::{
    ipc::{
        message::{Incarnation, InstanceId},
        why::Suspect,
    },
    master::obituary::Noted,
    rules::restart::{Event, Exit, State},
};

impl Supervisor {
    /// The edge saw a process break off with this request in its hands.
    pub(super) fn lost(&mut self, id: &InstanceId, incarnation: Incarnation, suspect: Suspect, answered: bool) {
        match self.register.lost(id, incarnation.0, suspect.clone(), answered) {
            Noted::Lives => {}
            Noted::Ended { exit, first } => {
                if first || suspect.again {
                    tell(id, exit, &suspect);
                }
                self.blame(id, incarnation.0);
            }
        }
    }

    /// It has ended, and what it had was told before.
    pub(super) fn blame_known(&mut self, id: &InstanceId, incarnation: u64, exit: Exit) {
        let suspects = self.register.suspects(id, incarnation);
        let Some(suspect) = suspects.first() else { return };
        tell(id, exit, suspect);
        self.blame(id, incarnation);
    }

    /// Whether it is in rotation: nobody has asked for its end.
    pub(super) fn serves(&self, id: &InstanceId, incarnation: u64) -> bool {
        let Some(track) = self.tracks.get(&id.app) else { return false };
        track.life.view().any(|view| view.n == id.n && view.incarnation == incarnation && view.state == State::Ready)
    }

    fn blame(&mut self, id: &InstanceId, incarnation: u64) {
        let answered = self.register.had_answered(id, incarnation);
        self.step(&id.app, Event::Blamed { n: id.n, incarnation, answered });
    }
}

fn tell(id: &InstanceId, exit: Exit, Suspect { id: request_id, request, again }: &Suspect) {
    let (app, instance) = (&id.app, id.n);
    if *again {
        tracing::error!(%app, instance, %exit, request, request_id, "ended while it had this request, as another process did: it probably kills them, and is not sent again");
    } else {
        tracing::warn!(%app, instance, %exit, request, request_id, "ended while it had this request, which may have killed it");
    }
}
