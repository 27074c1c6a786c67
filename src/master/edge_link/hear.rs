//! What the edge says.

use std::time::Duration;

use tokio::time::Instant;

use super::{ApplyError, EdgeLink, running::Running, setting::Trial};
use crate::{
    ipc::message::{Build, ToEdge, ToMaster},
    master::words::Heard,
};

/// It says that it lives once a second.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);

impl EdgeLink {
    /// False: it must not be listened to any more.
    pub(super) async fn hear(&mut self, edge: &mut Running, message: ToMaster) -> bool {
        if !edge.greeted {
            if message == (ToMaster::Hello { build: Build::this() }) {
                edge.greeted = true;
                return true;
            }
            tracing::error!("edge is of another build, killing it");
            self.nursery.kill_group(edge.pid);
            return false;
        }
        edge.patience = if edge.ready { Instant::now() + ALIVE_WITHIN } else { edge.patience };
        match message {
            ToMaster::Hello { .. } => {}
            ToMaster::Ready { generation } => {
                edge.ready = true;
                edge.patience = Instant::now() + ALIVE_WITHIN;
                let took_ms = u64::try_from(edge.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(pid = edge.pid.as_raw(), generation = generation.0, took_ms, "edge is ready");
                self.facts.send_modify(|facts| facts.ready = true);
                self.elders.retire();
                if edge.on_trial {
                    self.commit();
                }
            }
            ToMaster::Applied { generation } => {
                if self.trial.as_ref().is_some_and(|trial| trial.setting.generation == generation) {
                    self.commit();
                }
            }
            ToMaster::Refused { generation, reason } => {
                if let Some(trial) = self.trial.take_if(|trial| trial.setting.generation == generation) {
                    self.setting.reloads.1 += 1;
                    let _ = trial.reply.send(Err(ApplyError::Refused(reason)));
                } else if !edge.ready {
                    tracing::error!(reason, "edge refuses the configuration it was started with");
                }
            }
            ToMaster::Health { id, incarnation, health } => {
                let _ = self.heard.send(Heard::Health { id, incarnation, health }).await;
            }
            ToMaster::Drained { id, incarnation, in_flight } => {
                if in_flight > 0 {
                    tracing::warn!(app = %id.app, instance = id.n, in_flight, "requests were cut at the end of the drain");
                }
                self.drains.retain(|drain| *drain != (id.clone(), incarnation));
                self.drained(id, incarnation).await;
            }
            ToMaster::Warmed { id, incarnation, result } => {
                self.warms.retain(|warm| *warm != (id.clone(), incarnation));
                let _ = self.heard.send(Heard::Warmed { id, incarnation, result }).await;
            }
            ToMaster::Tallies(tallies) => {
                let _ = self.heard.send(Heard::Tallies(tallies)).await;
            }
            ToMaster::Lost { id, incarnation, suspect, answered } => {
                let _ = self.heard.send(Heard::Lost { id, incarnation, suspect, answered }).await;
            }
            ToMaster::Wanted { app } => {
                let _ = self.heard.send(Heard::Wanted { app }).await;
            }
            ToMaster::PassedOver { files } => {
                self.setting.materials.put_back(&files, &self.good_materials);
                self.good_materials.clone_from(&self.setting.materials);
            }
            ToMaster::Answer { ask, json } => {
                if let Some(reply) = self.asks.remove(&ask) {
                    let _ = reply.send(json);
                }
            }
            ToMaster::Leaving => edge.leaving = true,
            ToMaster::Alive { connections, in_flight } => {
                self.facts.send_modify(|facts| (facts.connections, facts.in_flight) = (connections, in_flight));
                let lost = self.output.access_lost();
                if lost != edge.told_lost {
                    edge.told_lost = lost;
                    self.send(edge, ToEdge::AccessLost(lost), Vec::new());
                }
            }
        }
        true
    }

    fn commit(&mut self) {
        if let Some(Trial { setting, reply, .. }) = self.trial.take() {
            self.good_materials.clone_from(&setting.materials);
            self.setting = setting;
            let _ = reply.send(Ok(()));
        }
    }
}
