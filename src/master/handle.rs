//! The room's public face: what the control socket and the run loop may ask of it.

use std::{os::fd::OwnedFd, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{
    edge_link,
    handoff::UpgradeError,
    reload::{self, ReloadError},
    status::Sources,
    supervisor::{Message, Order, Word},
    upgrade,
};
use crate::{
    ipc::message::{AppTable, Generation, Query},
    vocab::AppName,
};

/// How long the edge may think about a question.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Cloneable; every request has its own channel for answers.
#[derive(Clone)]
pub struct Handle {
    pub supervisor: mpsc::Sender<Message>,
    pub edge: edge_link::Handle,
    pub reloads: mpsc::Sender<reload::Ask>,
    pub sources: Sources,
}

impl Handle {
    /// Words arrive until `Done` or `Failed`.
    pub async fn order(&self, app: AppName, order: Order) -> mpsc::Receiver<Word> {
        // A client that reads slowly loses progress beyond this, never more.
        let (tell, words) = mpsc::channel(64);
        let _ = self.supervisor.send(Message::Command { app, order, tell }).await;
        words
    }

    /// Waits until it is in force or refused.
    pub async fn reload(&self) -> Result<Generation, ReloadError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.reloads.send(reload::Ask::Reload { reply: Some(reply) }).await;
        answer.await.unwrap_or(Err(ReloadError::Stopping))
    }

    /// Comes back only with what kept the running binary here; else the next one answers `client`.
    pub async fn upgrade(&self, client: OwnedFd) -> UpgradeError {
        let (reply, failure) = oneshot::channel();
        let ask = reload::Ask::Upgrade(upgrade::Ask { client: Some(client), reply: Some(reply) });
        let _ = self.reloads.send(ask).await;
        failure.await.unwrap_or(UpgradeError::Stopping)
    }

    #[must_use]
    pub fn apps(&self) -> AppTable {
        self.sources.table.borrow().apps.clone()
    }

    /// The edge's answer; `None`: it is down or silent.
    pub async fn ask(&self, query: Query) -> Option<Value> {
        let json = self.edge.ask(query, ASK_WITHIN).await?;
        serde_json::from_str(&json).ok()
    }

    /// The edge's status with the master's under `master`; without an edge the latter alone, and `edge` says so.
    pub async fn status(&self) -> Value {
        let master = self.sources.json();
        match self.ask(Query::Status).await {
            Some(Value::Object(mut status)) => {
                status.insert("master".to_owned(), master);
                Value::Object(status)
            }
            Some(_) | None => json!({ "status": "unhealthy", "message": "the edge does not answer", "master": master }),
        }
    }
}
