//! What others ask of the edge, and what they hear where there is none.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    ApplyError, EdgeLink, Setting,
    handle::Command,
    post::Parcel,
    running::Running,
    setting::{APPLY_WITHIN, Trial, config},
};
use crate::{
    ipc::message::{Drain, ToEdge, WarmUp},
    master::obstacle::UpgradeError,
};

impl EdgeLink {
    pub(super) async fn answer_without_edge(&mut self, command: Command) {
        match command {
            Command::Apply { reply, .. } => {
                let _ = reply.send(Err(ApplyError::Stopping));
            }
            // Dropped: who asks learns that nobody is there.
            Command::Ask { .. } | Command::KillNow => {}
            Command::Materials(materials) => self.setting.materials = materials,
            Command::Export { reply, .. } => {
                let _ = reply.send(Err(if self.stopping.is_some() { UpgradeError::Stopping } else { UpgradeError::EdgeDown }));
            }
            Command::Refused => self.setting.reloads.1 += 1,
            Command::Shutdown { done, .. } => {
                let _ = done.send(());
            }
        }
    }

    pub(super) fn put_on_trial(&mut self, setting: Setting, reply: oneshot::Sender<Result<(), ApplyError>>, fresh: bool) {
        let deadline = Instant::now() + APPLY_WITHIN;
        if let Some(earlier) = self.trial.replace(Trial { setting, reply, deadline, fresh }) {
            let _ = earlier.reply.send(Err(ApplyError::Silent));
        }
    }

    pub(super) fn send(&self, edge: &Running, message: ToEdge, descriptors: Vec<Arc<OwnedFd>>) {
        if edge.parcels.try_send(Parcel { message, descriptors }).is_err() {
            tracing::error!("edge does not take its messages, killing it");
            self.nursery.kill_group(edge.pid);
        }
    }

    /// One message for each kind, however many they are.
    pub(super) fn send_errands(&mut self, edge: &Running, (drains, warm_ups): (Vec<Drain>, Vec<WarmUp>)) {
        self.drains.extend(drains.iter().map(|drain| (drain.id.clone(), drain.incarnation)));
        self.warms.extend(warm_ups.iter().map(|warm_up| (warm_up.id.clone(), warm_up.incarnation)));
        if !warm_ups.is_empty() {
            self.send(edge, ToEdge::Warm(warm_ups), Vec::new());
        }
        if !drains.is_empty() {
            self.send(edge, ToEdge::Drain(drains), Vec::new());
        }
    }

    pub(super) async fn return_errands(&mut self, (drains, warm_ups): (Vec<Drain>, Vec<WarmUp>)) {
        for Drain { id, incarnation, .. } in drains {
            self.drained(id, incarnation).await;
        }
        for WarmUp { id, incarnation, .. } in warm_ups {
            self.not_warmed(id, incarnation).await;
        }
    }

    pub(super) fn obey(&mut self, edge: &Running, command: Command) {
        match command {
            Command::Apply { setting, reply } => {
                if edge.ready {
                    let (config, descriptors) = config(&setting, &self.setting.sockets);
                    self.send(edge, ToEdge::Apply(Box::new(config)), descriptors);
                } else {
                    // The one that is starting may be the one that cannot: the next gets the new configuration.
                    self.nursery.kill_group(edge.pid);
                }
                self.put_on_trial(*setting, reply, !edge.ready);
            }
            Command::Ask { query, reply } => {
                self.asks.retain(|_, reply| !reply.is_closed());
                self.next_ask += 1;
                self.asks.insert(self.next_ask, reply);
                self.send(edge, ToEdge::Ask { ask: self.next_ask, query }, Vec::new());
            }
            Command::Materials(materials) => {
                self.setting.materials.clone_from(&materials);
                self.send(edge, ToEdge::Materials(materials), Vec::new());
            }
            Command::Refused => {
                self.setting.reloads.1 += 1;
                self.send(edge, ToEdge::ReloadRefused, Vec::new());
            }
            Command::Shutdown { within, done } => {
                self.send(edge, ToEdge::Shutdown { within }, Vec::new());
                let at = Instant::now() + within + Duration::from_secs(1);
                self.stopping.get_or_insert_with(|| (at, Vec::new())).1.push(done);
            }
            // The loop answers it, which may wait.
            Command::Export { reply, .. } => drop(reply),
            Command::KillNow => {
                self.stopping.get_or_insert_with(|| (Instant::now() + Duration::from_secs(1), Vec::new()));
                self.nursery.kill_group(edge.pid);
            }
        }
    }
}
