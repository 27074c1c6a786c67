//! The wait of a request for the head of its answer: what its server is known to owe, and what becomes of it when we end the wait.

use super::{Exchange, pool_of};
use crate::{
    edge::upstream::{Choice, End},
    rules::attempt::{Cause, Event, Next, Repeat},
};

impl Exchange {
    /// The connection to the server has this descriptor, and no other request.
    pub fn owns(&mut self, fd: i32) {
        if let Some(on) = &mut self.on {
            on.fd = Some(fd);
        }
    }

    /// The server has all of the request: its answer is awaited.
    pub fn asked(&mut self, repeat: Repeat) {
        let Some(pool) = pool_of(&self.live, self.site, self.route) else { return };
        let Some(on) = self.on.as_mut().filter(|on| on.status.is_none() && !on.lease.is_sent()) else { return };
        // Once, and only one that nobody has failed yet: somebody is left to take it.
        let first = self.attempt.tries() - u32::from(self.attempt.needs_new_connection()) <= 1;
        let moves = if first && repeat == Repeat::Harmless { pool.moves() } else { None };
        on.lease.sent(self.live.now(), on.fd, pool.timeouts().read, moves);
    }

    /// A byte of an answer came from the server.
    pub fn heard(&self) {
        if let Some(on) = &self.on {
            on.lease.heard();
        }
    }

    /// The head of its answer came. Whether we had ended the wait for it: then it may be cut.
    pub fn comes_too_late(&mut self) -> bool {
        let now = self.live.now();
        if let Some(on) = &self.on {
            on.lease.answers(now);
        }
        self.ended().is_some()
    }

    /// Why we ended the wait for its answer, if we did. It is over in any case.
    pub fn ended(&mut self) -> Option<End> {
        let on = self.on.as_mut()?;
        on.ended = on.ended.or(on.lease.waited());
        on.ended
    }

    /// We have ended the wait for the head of its answer. Whether the request goes on, to another server.
    pub fn cut_short(&mut self, end: End, repeat: Repeat) -> bool {
        match end {
            End::Late => self.fail_try(Cause::Timeout, repeat),
            End::Hung => {
                self.blame();
                self.end_try(|on, _, _, _| {
                    on.lease.hung();
                    None
                });
                if self.step_paid(Event::Late(repeat)) == Next::Go {
                    return true;
                }
                // The sibling has gone meanwhile.
                self.step(Event::Failed(Cause::Timeout, Repeat::Harmful));
                false
            }
        }
    }

    /// As [`Exchange::step`], with a retry that is paid for.
    fn step_paid(&mut self, event: Event) -> Next {
        let Some(pool) = pool_of(&self.live, self.site, self.route) else { return Next::End };
        let mut choice = Choice::new(pool, &self.live.pools).paid();
        let next = self.attempt.step(event, &mut choice);
        let made = choice.made();
        self.takes(next, made).0
    }
}
