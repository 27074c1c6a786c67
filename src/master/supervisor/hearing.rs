//! What the edge tells of the processes, as events of their lives.

use super::{Supervisor, Track};
use crate::{
    ipc::message::{Health, Incarnation, InstanceId, Tally},
    master::words::Heard,
    plan,
    rules::restart::Event,
};

impl Supervisor {
    pub(super) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Health { id: InstanceId { app, n }, incarnation: Incarnation(incarnation), health } => {
                let seen_by_us = |track: &Track| matches!(track.life.spec().ready, plan::Ready::Log { .. } | plan::Ready::Notify { .. });
                let event = match health {
                    Health::Ready if self.tracks.get(&app).is_some_and(seen_by_us) => return,
                    Health::Ready => return self.arrived(&app, n, incarnation),
                    Health::Live => Event::Alive { n, incarnation },
                    Health::Dead { reason } => Event::Dead { n, incarnation, why: reason },
                };
                self.step(&app, event);
            }
            Heard::Drained { id, incarnation } => self.step(&id.app, Event::Drained { n: id.n, incarnation: incarnation.0 }),
            Heard::Warmed { id, incarnation, result } => {
                self.step(&id.app, Event::Warmed { n: id.n, incarnation: incarnation.0, result });
            }
            Heard::Tallies(tallies) => {
                for Tally { id, incarnation, requests, failures } in tallies {
                    self.step(&id.app, Event::Tallied { n: id.n, incarnation: incarnation.0, requests, failures });
                }
            }
            Heard::Lost { id, incarnation, suspect, answered } => self.lost(&id, incarnation, suspect, answered),
            Heard::Wanted { app } => self.step(&app, Event::Wanted),
            Heard::EdgeDied => {
                self.edge_restarts += 1;
                self.changed = true;
            }
        }
    }
}
