//! Whoever waits for an order, and what he hears.

use tokio::sync::mpsc;

use crate::{
    master::words::Word,
    rules::restart::{Life, Report, State},
};

pub(super) struct Waiter {
    pub(super) wish: Wish,
    pub(super) tell: mpsc::Sender<Word>,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Up,
    Stopped,
    Restarted,
    Deployed,
}

impl Waiter {
    /// False: it has heard the end.
    pub(super) fn hears(&self, report: &Report, text: &str) -> bool {
        let failed = || Some(Word::Failed(text.to_owned()));
        let done = || Some(Word::Done(text.to_owned()));
        let end = match (self.wish, report) {
            (Wish::Restarted, Report::RollDone) | (Wish::Deployed, Report::DeployDone) => done(),
            (Wish::Restarted, Report::RollAborted { .. })
            | (Wish::Deployed, Report::DeployFailed { .. })
            | (Wish::Up, Report::Again { .. } | Report::BudgetSpent { .. } | Report::Taken { lasts: true, .. }) => failed(),
            (
                Wish::Up | Wish::Stopped | Wish::Restarted | Wish::Deployed,
                Report::Ready { .. }
                | Report::Again { .. }
                | Report::Taken { .. }
                | Report::Ended { .. }
                | Report::Stopped { .. }
                | Report::Unhealthy { .. }
                | Report::Stubborn { .. }
                | Report::BudgetSpent { .. }
                | Report::Recovered
                | Report::NoRoom { .. }
                | Report::RollDone
                | Report::RollAborted { .. }
                | Report::Recycling { .. }
                | Report::RecycleFailed { .. }
                | Report::Warmed { .. }
                | Report::Switched { .. }
                | Report::DeployDone
                | Report::DeployFailed { .. },
            ) => None,
        };
        match end {
            Some(end) => {
                // There is room: progress leaves the last place free.
                let _ = self.tell.try_send(end);
                false
            }
            None => {
                // A client that does not read loses words, not the supervisor's time.
                if self.tell.capacity() > 1 {
                    let _ = self.tell.try_send(Word::Progress(text.to_owned()));
                }
                !self.tell.is_closed()
            }
        }
    }

    pub(super) fn is_over(&self, life: &Life) -> bool {
        let end = match self.wish {
            Wish::Up => life.are(&[State::Ready, State::Exited]).then_some("all instances are up"),
            Wish::Stopped => life.is_at_rest().then_some("all instances are stopped"),
            Wish::Restarted | Wish::Deployed => None,
        };
        if let Some(text) = end {
            let _ = self.tell.try_send(Word::Done(text.to_owned()));
        }
        end.is_some() || self.tell.is_closed()
    }
}
