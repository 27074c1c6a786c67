//! The door of the edge's actor.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{ApplyError, Carried, Setting, errands::Errands};
use crate::{
    ipc::message::{Incarnation, InstanceId, Materials, Query},
    master::{bag::Bag, obstacle::UpgradeError},
};

/// How the edge stands, for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    pub pid: Option<u32>,
    pub ready: bool,
    pub restarts: u64,
    /// Edges before it that finish what is in flight.
    pub draining: usize,
    pub connections: u64,
    pub in_flight: u64,
}

pub(super) enum Command {
    Apply { setting: Box<Setting>, reply: oneshot::Sender<Result<(), ApplyError>> },
    Ask { query: Query, reply: oneshot::Sender<String> },
    Materials(Materials),
    Refused,
    Shutdown { within: Duration, done: oneshot::Sender<()> },
    Export { reply: oneshot::Sender<Result<(Carried, Bag), UpgradeError>>, thaw: Option<oneshot::Receiver<()>> },
    KillNow,
}

/// The actor's door.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) errands: Arc<Errands>,
    pub(super) facts: watch::Receiver<Facts>,
}

impl Handle {
    /// Waits until the configuration is in force, or is not.
    pub async fn apply(&self, setting: Setting) -> Result<(), ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Apply { setting: Box::new(setting), reply }).await;
        answer.await.unwrap_or(Err(ApplyError::Stopping))
    }

    /// A JSON document; `None`: the edge is down or silent.
    pub async fn ask(&self, query: Query, within: Duration) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.tell(Command::Ask { query, reply }).await;
            answer.await.ok()
        };
        tokio::time::timeout(within, asked).await.ok().flatten()
    }

    pub async fn materials(&self, materials: Materials) {
        self.tell(Command::Materials(materials)).await;
    }

    /// Takes a process out of rotation. The supervisor is told when it is: at once where there is no edge.
    pub fn drain(&self, id: InstanceId, incarnation: Incarnation, within: Duration) {
        self.errands.drain(id, incarnation, within);
    }

    /// Has a process asked for these paths before it serves. The supervisor is told what came of it.
    pub fn warm(&self, id: InstanceId, incarnation: Incarnation, paths: Vec<String>, within: Duration) {
        self.errands.warm(id, incarnation, paths, within);
    }

    /// A reload was refused before the edge saw it.
    pub async fn refused(&self) {
        self.tell(Command::Refused).await;
    }

    /// Waits until it has finished what is in flight and is gone.
    pub async fn shutdown(&self, within: Duration) {
        let (done, gone) = oneshot::channel();
        self.tell(Command::Shutdown { within, done }).await;
        let _ = gone.await;
    }

    /// The edge and those before it, as they stand. With `thaw` nothing is done or heard any more until its sender is dropped.
    pub async fn export(&self, thaw: Option<oneshot::Receiver<()>>) -> Result<(Carried, Bag), UpgradeError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Export { reply, thaw }).await;
        answer.await.unwrap_or(Err(UpgradeError::Stopping))
    }

    pub async fn kill_now(&self) {
        self.tell(Command::KillNow).await;
    }

    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.clone()
    }

    async fn tell(&self, command: Command) {
        // The actor lives as long as the master; at its end nobody needs an answer.
        let _ = self.commands.send(command).await;
    }
}
