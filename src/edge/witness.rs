//! The witness: tells the master what only the edge sees of its processes: which requests they had when they broke off, and that requests find none of them.
//!
//! Shape: never waits. What the master has no room for, or would hear too often, is not told: it is asked for reasons, not for counts.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;

use super::blackbox::plain;
use crate::{
    ipc::{
        message::{Incarnation, InstanceId, ToMaster},
        why::{LONGEST_ID, Suspect},
    },
    vocab::AppName,
};

/// Requests a second that are told of; those that have met one end before are always worth it.
const SUSPECTS: NonZeroU32 = NonZeroU32::new(64).expect("not zero");
/// The longest method and path.
const LONGEST: usize = 200;

/// A process that broke off with a request in its hands.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    pub id: &'a InstanceId,
    pub incarnation: Incarnation,
    /// The request has met that before, in another process.
    pub again: bool,
    /// The process had answered others.
    pub answered: bool,
}

#[derive(Debug)]
pub struct Witness {
    master: mpsc::Sender<ToMaster>,
    first: DefaultDirectRateLimiter,
    again: DefaultDirectRateLimiter,
}

impl Witness {
    #[must_use]
    pub fn new(master: mpsc::Sender<ToMaster>) -> Self {
        let paced = |pace| RateLimiter::direct(Quota::per_second(pace));
        Self { master, first: paced(SUSPECTS), again: paced(SUSPECTS) }
    }

    /// A process broke its connection off before it answered this request.
    pub fn lost(&self, Loss { id, incarnation, again, answered }: Loss<'_>, request: &str, method: &str, path: &[u8]) {
        let pace = if again { &self.again } else { &self.first };
        if pace.check().is_err() {
            return;
        }
        // A query may hold what is nobody's business.
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let words = [method.as_bytes(), path].join(&b' ');
        let suspect = Suspect { id: plain(request.as_bytes(), LONGEST_ID).into(), request: plain(&words, LONGEST).into(), again };
        // Full: the master is busy, and will hear of others.
        let _ = self.master.try_send(ToMaster::Lost { id: id.clone(), incarnation, suspect, answered });
    }

    /// A request finds no process of this app. Whoever tells keeps the pace.
    pub fn wants(&self, app: &AppName) {
        let _ = self.master.try_send(ToMaster::Wanted { app: app.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lost_requests_is_told_in_part_and_what_is_told_is_plain() {
        let (send, mut told) = mpsc::channel(1000);
        let witness = Witness::new(send);
        let id = InstanceId { app: AppName::parse("web").expect("valid"), n: 0 };
        let loss = Loss { id: &id, incarnation: Incarnation(3), again: false, answered: true };
        for _ in 0..10_000 {
            witness.lost(loss, "id", "GET", b"/crash\x1b[31m?secret=1");
        }
        witness.wants(&id.app);
        let mut suspects = 0;
        while let Ok(message) = told.try_recv() {
            match message {
                ToMaster::Lost { suspect, .. } => {
                    suspects += 1;
                    assert_eq!(suspect.request, "GET /crash\\x1b[31m");
                }
                other => assert!(matches!(other, ToMaster::Wanted { .. }), "{other:?}"),
            }
        }
        assert!((1..1000).contains(&suspects), "{suspects}");
    }
}
