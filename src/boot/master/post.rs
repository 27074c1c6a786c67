//! The run loop: signals, upgrades, what is announced, and the end.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use super::signals::{self, Held, Signals};
use crate::{
    ipc::{
        control::{Answer, Failure},
        message::Role,
    },
    master::{
        control,
        handle::Handle,
        herald::Herald,
        obstacle::UpgradeError,
        output::Output,
        reload,
        score::Score,
        upgrade::{self, Go, Upgrader},
    },
};

/// What the run loop acts on.
pub(super) struct Post<'a> {
    pub(super) handle: &'a Handle,
    pub(super) output: &'a Output,
    pub(super) herald: &'a Herald,
    pub(super) upgrader: &'a Arc<Upgrader>,
}

impl Post<'_> {
    /// Until somebody wants us to stop; true: a part of us broke. `client` asked the binary before for this one.
    pub(super) async fn watch_over(
        &self,
        tasks: &mut JoinSet<()>,
        signals: &mut Signals,
        gone: &mut mpsc::Receiver<Go>,
        mut client: Option<OwnedFd>,
    ) -> bool {
        let mut facts = self.handle.edge.facts();
        let mut losses = facts.clone();
        let before = facts.borrow().restarts;
        let mut announced = false;
        let mut errands = JoinSet::new();
        let mut watchdog = self.herald.watchdog.map(tokio::time::interval);
        loop {
            tokio::select! {
                ended = tasks.join_next() => {
                    let why = ended.and_then(Result::err).map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    tracing::error!(why, "a part of the master ended, stopping everything");
                    return true;
                }
                () = signals.stop.wait() => return false,
                _ = signals.hup.recv() => {
                    // Full: as many reloads wait already.
                    let _ = self.handle.reloads.try_send(reload::Ask::Reload { reply: None });
                }
                _ = signals.usr1.recv() => {
                    tracing::info!("opening log files again");
                    self.output.reopen();
                }
                _ = signals.usr2.recv() => {
                    let _ = self.handle.reloads.try_send(reload::Ask::Upgrade(upgrade::Ask { client: None, reply: None }));
                }
                Some(go) = gone.recv() => {
                    if self.go(go, signals).await == Then::Stop {
                        return false;
                    }
                }
                _ = facts.wait_for(|facts| facts.ready), if !announced => {
                    announced = true;
                    let text = announcement(&self.handle.sources.score.borrow());
                    eprintln!("{text}");
                    self.herald.ready(&text);
                    if let Some(client) = client.take() {
                        let message = format!("upgraded to {}: pid {}, the edge before drains", env!("CARGO_PKG_VERSION"), std::process::id());
                        errands.spawn(reply(client, Answer::Done { result: serde_json::json!({ "message": message }) }));
                    }
                }
                _ = losses.wait_for(|facts| facts.restarts > before), if client.is_some() => {
                    let error = "gateway was upgraded, but its new edge did not come up: the one before serves on while it is tried again";
                    if let Some(client) = client.take() {
                        errands.spawn(reply(client, Answer::Failed { error: error.to_owned(), kind: Failure::Refused }));
                    }
                }
                Some(_) = errands.join_next() => {}
                () = beat(&mut watchdog) => self.herald.alive(),
            }
        }
    }

    /// Does not come back where the upgrade is done.
    async fn go(&self, go: Go, signals: &mut Signals) -> Then {
        let Go { client, file_in_force, reloads, failed } = go;
        let mut held = Held { stop: false };
        let hold = async || {
            held = signals.hold(reloads).await;
            if held.stop { Err(UpgradeError::Stopping) } else { Ok(()) }
        };
        tracing::info!(program = %self.upgrader.program.display(), "upgrade: the self-check is good, becoming it");
        let error = self.upgrader.go(client.as_ref(), file_in_force, hold, signals::release).await;
        // The conductor may be gone at the end of all.
        let _ = failed.send(error);
        if held.stop { Then::Stop } else { Then::GoOn }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    GoOn,
    Stop,
}

/// A client that has gone is no error.
async fn reply(client: OwnedFd, answer: Answer) {
    let _ = control::answer(client, &answer).await;
}

/// Never, where nobody wants to hear.
async fn beat(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// Which addresses are served, in one line.
fn announcement(score: &Score) -> String {
    let named = |role: Role, scheme: &str| {
        let of = score.sockets.open.iter().filter(move |open| open.role == role);
        of.map(|open| format!("{scheme}://{}", open.bound)).collect::<Vec<_>>()
    };
    let served = [named(Role::Http, "http"), named(Role::Https, "https")].concat().join(", ");
    let served = if served.is_empty() { "no address".to_owned() } else { served };
    let admin = named(Role::Admin, "http").first().map(|admin| format!(", status on {admin}")).unwrap_or_default();
    let file = score.plan.files.first().map(|file| format!(", as {} says", file.display())).unwrap_or_default();
    format!("gateway {} serves {served}{admin}{file}", env!("CARGO_PKG_VERSION"))
}
