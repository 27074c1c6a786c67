//! The room's public face: what the control socket and the run loop may ask of it.

use std::{num::NonZeroU16, os::fd::OwnedFd, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{
    deploy, edge_link, jobs,
    obituary::Register,
    obstacle::UpgradeError,
    output::Output,
    releases::Ledger,
    reload::{self, ReloadError},
    status::Sources,
    supervisor::Message,
    switches::{SwitchError, Switchboard},
    upgrade,
    words::{Order, Word},
};
use crate::{
    ipc::{
        control::ReleaseRow,
        message::{AppTable, Generation, Query},
        why::{Account, RequestId},
    },
    plan::AppPort,
    rules::release::{Release, Standing},
    vocab::AppName,
};

/// How long the edge may think about a question.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// As many as the configuration may ask for.
const MOST_PROCS: u16 = 1000;

/// Why an app cannot have so many processes.
#[derive(Debug, Error)]
pub enum ScaleError {
    #[error("there is no app of this name")]
    NoApp,
    #[error("it is a job, and never overlaps itself")]
    Job,
    #[error("{0} processes are more than {MOST_PROCS}")]
    Many(NonZeroU16),
    #[error("its ports are {first} to {}, one for each of the {procs} processes of the configuration", first.saturating_add(procs.get() - 1))]
    Ports { first: NonZeroU16, procs: NonZeroU16 },
}

impl ScaleError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Ports { .. } => Some("raise `procs` in the configuration and reload, so that the range is checked"),
            Self::NoApp | Self::Job | Self::Many(_) => None,
        }
    }

    #[must_use]
    pub fn story(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self} ({advice})"),
            None => self.to_string(),
        }
    }
}

/// Cloneable; every request has its own channel for answers.
#[derive(Clone)]
pub struct Handle {
    pub supervisor: mpsc::Sender<Message>,
    pub jobs: mpsc::Sender<jobs::Message>,
    pub edge: edge_link::Handle,
    pub reloads: mpsc::Sender<reload::Ask>,
    pub deploys: deploy::Handle,
    pub sources: Sources,
    pub register: Register,
    pub output: Output,
    pub switchboard: Switchboard,
    pub ledger: Ledger,
}

impl Handle {
    /// Words arrive until `Done` or `Failed`.
    pub async fn order(&self, app: AppName, order: Order) -> mpsc::Receiver<Word> {
        // A client that reads slowly loses progress beyond this, never more.
        let (tell, words) = mpsc::channel(64);
        if self.sources.score.borrow().plan.apps.get(&app).is_some_and(|app| app.schedule.is_some()) {
            let _ = self.jobs.send(jobs::Message::Command { app, order, tell }).await;
        } else {
            let _ = self.supervisor.send(Message::Command { app, order, tell }).await;
        }
        words
    }

    /// The releases of an app, newest first; `None`: there is no such app.
    #[must_use]
    pub fn releases(&self, app: &AppName) -> Option<Vec<ReleaseRow>> {
        self.ledger.configured(app)?;
        let history = self.ledger.history(app);
        let row = |(n, release): (usize, &Release)| {
            let Release { id, dir, at, by, standing } = release.clone();
            let (state, reason) = match standing {
                Standing::Current => ("current", None),
                Standing::Previous => ("previous", None),
                Standing::Past => ("past", None),
                Standing::Failed { why } => ("failed", Some(why)),
            };
            ReleaseRow { n, id: id.to_string(), dir, at, by, state: state.to_owned(), reason }
        };
        Some((1..).zip(history.newest_first()).map(row).collect())
    }

    /// Whether an app may have so many processes.
    pub fn may_scale(&self, app: &AppName, procs: NonZeroU16) -> Result<(), ScaleError> {
        let plan = self.sources.score.borrow().plan.clone();
        let spec = plan.apps.get(app).ok_or(ScaleError::NoApp)?;
        if spec.schedule.is_some() {
            return Err(ScaleError::Job);
        }
        if procs.get() > MOST_PROCS {
            return Err(ScaleError::Many(procs));
        }
        match spec.port {
            AppPort::Fixed { first } if procs > spec.procs => Err(ScaleError::Ports { first, procs: spec.procs }),
            AppPort::Fixed { .. } | AppPort::None | AppPort::Allotted | AppPort::Socket => Ok(()),
        }
    }

    /// The file in force.
    #[must_use]
    pub fn config(&self) -> Option<PathBuf> {
        self.sources.score.borrow().plan.files.first().cloned()
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

    /// Puts a page in the place of a site, or takes it away. In words, when that is so.
    ///
    /// Errors: [`SwitchError`]; nothing has changed then.
    pub async fn maintain(&self, site: &str, on: bool) -> Result<String, SwitchError> {
        let plan = self.sources.score.borrow().plan.clone();
        let (site, switches) = self.switchboard.turn(&plan, site, on)?;
        let told = if on { "is in maintenance: its clients get 503" } else { "serves again" };
        tracing::info!(site, on, "maintenance");
        // An edge that starts is told with its first message.
        let known = self.ask(Query::Maintain(switches)).await.is_some();
        Ok(format!("{site} {told}{}", if known { "" } else { ", as soon as there is an edge" }))
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

    /// What became of a request. `None`: the edge is down or silent.
    ///
    /// Errors: its words, if it remembers no such request.
    pub async fn why(&self, id: RequestId) -> Option<Result<Account, String>> {
        let answer = self.ask(Query::Why(id)).await?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Some(Err(error.to_owned()));
        }
        let request = serde_json::from_value(answer).ok()?;
        Some(Ok(self.register.account(request, &self.sources.table.borrow().apps)))
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
