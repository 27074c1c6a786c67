//! What becomes of an app, in the words of the log and of whoever waits.

use super::{Supervisor, millis};
use crate::{
    rules::restart::Report,
    vocab::{AppName, units::duration_text},
};

impl Supervisor {
    pub(super) fn report(&mut self, app: &AppName, report: &Report) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        let last_line = |n: &u16| {
            let tail = track.processes.values().rev().find(|process| process.n == *n).and_then(|process| process.tail.as_ref());
            tail.and_then(|tail| tail.lines().pop()).unwrap_or_default()
        };
        let text = match report {
            Report::Ready { n, took } => {
                tracing::info!(%app, instance = n, took_ms = millis(*took), "ready");
                format!("{app}.{n} is ready after {} ms", millis(*took))
            }
            Report::Again { n, why, delay } => {
                let note = track.processes.values().rev().find(|process| process.n == *n).and_then(|process| process.note.clone());
                let why = note.into_iter().fold(why.clone(), |why, note| format!("{why}; {note}"));
                tracing::warn!(%app, instance = n, why, delay_ms = millis(*delay), last_line = last_line(n), "ended, will be started again");
                let last = last_line(n);
                let last = if last.is_empty() { last } else { format!(", its last words: {last}") };
                format!("{app}.{n} ended: {why}; it is started again in {} ms{last}", millis(*delay))
            }
            Report::Taken { n, why, delay, lasts } => {
                if *lasts {
                    tracing::debug!(%app, instance = n, why, delay_ms = millis(*delay), "still not started");
                } else {
                    tracing::warn!(%app, instance = n, why, "not started: end what has its address, or choose another `port`");
                }
                format!("{app}.{n} is not started: {why}; end it, or choose another `port`; the next try is in {} ms", millis(*delay))
            }
            Report::Ended { n, why } => {
                tracing::info!(%app, instance = n, why, "ended, and stays so");
                format!("{app}.{n} ended: {why}")
            }
            Report::Stopped { n } => {
                tracing::info!(%app, instance = n, "stopped");
                format!("{app}.{n} is stopped")
            }
            Report::Unhealthy { n, why } => {
                tracing::warn!(%app, instance = n, why, "unhealthy");
                format!("{app}.{n} is unhealthy: {why}")
            }
            Report::Stubborn { n } => {
                tracing::warn!(%app, instance = n, "did not stop in time, killing its group");
                format!("{app}.{n} did not stop in time and is killed")
            }
            Report::BudgetSpent { exits } => {
                tracing::error!(%app, exits, "keeps failing: one try a minute from now on, until one holds or `gateway start`");
                format!("{app} keeps failing: {exits} exits; from now on one try a minute")
            }
            Report::Recovered => {
                tracing::info!(%app, "has recovered");
                format!("{app} has recovered")
            }
            Report::RollDone => format!("all of {app} are new"),
            Report::RollAborted { n, why } => {
                tracing::error!(%app, instance = n, why, "restart given up, the rest stays as it is");
                format!("the restart of {app} was given up at instance {n}: {why}")
            }
            Report::NoRoom { n, why } => {
                tracing::warn!(%app, instance = n, why, "no memory for two: the old one goes first, requests are held meanwhile");
                format!("{app}.{n}: {why}: the old one goes first, requests are held meanwhile")
            }
            Report::Recycling { n, why } => {
                tracing::info!(%app, instance = n, why, "is replaced");
                format!("{app}.{n} is replaced: {why}")
            }
            Report::RecycleFailed { n, why } => {
                tracing::error!(%app, instance = n, why, last_line = last_line(n), "its replacement did not come up: the old one goes on for now");
                format!("the replacement of {app}.{n} did not come up: {why}")
            }
            Report::Warmed { n } => format!("{app}.{n} is warm"),
            Report::Switched { guard } if guard.is_zero() => format!("switched: the new release of {app} serves"),
            Report::Switched { guard } => {
                tracing::info!(%app, guard_ms = millis(*guard), "the new release serves, the old one stands by");
                format!("switched: the new release of {app} serves, the old one stands by for {}", duration_text(*guard))
            }
            Report::DeployDone => {
                track.unrecorded = true;
                tracing::info!(%app, "deployed");
                format!("{app} is deployed")
            }
            Report::DeployFailed { n, why } => {
                let last = n.as_ref().map(last_line).unwrap_or_default();
                tracing::error!(%app, why, last_line = last, "deploy failed, the old release serves");
                let last = if last.is_empty() { last } else { format!("; its last line on stderr: {last}") };
                format!("the deploy of {app} failed, the old release serves: {why}{last}")
            }
        };
        track.waiters.retain(|waiter| waiter.hears(report, &text));
    }
}
