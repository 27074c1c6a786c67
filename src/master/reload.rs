//! The configuration in force, and how another takes its place: prepared whole, then applied everywhere, or refused with nothing changed.

use std::{error::Error as StdError, os::fd::OwnedFd, sync::Arc};

use thiserror::Error;
use tokio::sync::{RwLock, mpsc, oneshot, watch};

use super::{
    deploy,
    edge_link::{self, ApplyError, Setting},
    herald::Herald,
    jobs,
    materials::{self, Print},
    obstacle::UpgradeError,
    output::{Files, Output},
    places::{self, PlaceError},
    releases::{Ledger, Moment, Overlay},
    score::Score,
    sockets::{BindError, Sockets},
    supervisor,
    upgrade::{self, Go, Upgrader},
};
use crate::{
    ipc::message::{Generation, Materials},
    plan::{
        App, Plan,
        diff::{NeedsRestart, reloadable},
    },
    vocab::{AppName, story},
};

/// Reads the configuration again; brought by the composition root.
pub type Load = Arc<dyn Fn() -> Result<Plan, Box<dyn StdError + Send + Sync>> + Send + Sync>;
/// Called with each plan that came into force.
pub type InForce = Box<dyn Fn(&Plan) + Send + Sync>;

/// Why a reload changed nothing.
#[derive(Debug, Error)]
pub enum ReloadError {
    #[error("load the configuration\n{0}")]
    Configuration(Box<dyn StdError + Send + Sync>),
    #[error(transparent)]
    Fixed(#[from] NeedsRestart),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Edge(#[from] ApplyError),
    #[error("reload: gateway is stopping")]
    Stopping,
}

/// What changes everything, one after the other.
pub enum Ask {
    /// The answer is the new generation.
    Reload {
        reply: Option<oneshot::Sender<Result<Generation, ReloadError>>>,
    },
    Upgrade(upgrade::Ask),
}

/// The actor: one reload or upgrade at a time.
pub struct Conductor {
    pub load: Load,
    pub in_force: InForce,
    pub edge: edge_link::Handle,
    pub supervisor: mpsc::Sender<supervisor::Message>,
    pub jobs: mpsc::Sender<jobs::Message>,
    pub output: Output,
    pub ledger: Ledger,
    pub deploys: deploy::Handle,
    /// Held for writing while another configuration comes into force: no release is put in place meanwhile.
    pub gate: Arc<RwLock<()>>,
    pub asks: mpsc::Receiver<Ask>,
    pub score: watch::Sender<Score>,
    pub materials: watch::Sender<(Arc<Plan>, Print)>,
    pub upgrader: Arc<Upgrader>,
    /// Proven upgrades, for the run loop.
    pub going: mpsc::Sender<Go>,
    pub herald: Herald,
}

impl Conductor {
    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some(ask) = self.asks.recv().await {
            match ask {
                Ask::Reload { reply } => {
                    self.herald.reloading("reloading");
                    let result = self.reload().await;
                    match &result {
                        Ok(generation) => {
                            tracing::info!(generation = generation.0, "configuration reloaded");
                            self.herald.ready(&format!("configuration {} is in force", generation.0));
                        }
                        Err(error) => {
                            tracing::error!(error = error.story(), "reload refused, nothing was changed");
                            self.herald.ready("reload refused, the configuration before is in force");
                        }
                    }
                    if let Some(reply) = reply {
                        // Whoever asked may have gone.
                        let _ = reply.send(result);
                    }
                }
                Ask::Upgrade(upgrade::Ask { client, reply }) => {
                    self.herald.reloading("upgrading");
                    let error = self.upgrade(client).await;
                    tracing::error!(error = error.story(), "upgrade refused, nothing was changed");
                    self.herald.ready("upgrade refused, the binary before runs on");
                    if let Some(reply) = reply {
                        let _ = reply.send(error);
                    }
                }
            }
        }
    }

    /// Comes back only with what kept us here.
    async fn upgrade(&mut self, client: Option<OwnedFd>) -> UpgradeError {
        tracing::info!(program = %self.upgrader.program.display(), "upgrade: self-check");
        let load = self.load.clone();
        let file = tokio::task::spawn_blocking(move || load().ok()).await.ok().flatten();
        let file_in_force = file.is_some_and(|plan| plan == *self.score.borrow().plan);
        if let Err(error) = self.upgrader.prove(file_in_force).await {
            return error;
        }
        let (failed, failure) = oneshot::channel();
        let go = Go { client, file_in_force, reloads: !self.asks.is_empty(), failed };
        if self.going.send(go).await.is_err() {
            return UpgradeError::Stopping;
        }
        failure.await.unwrap_or(UpgradeError::Stopping)
    }

    async fn reload(&mut self) -> Result<Generation, ReloadError> {
        let gate = self.gate.clone();
        let (_gate, now, prepared) = loop {
            // What is written down of deploys is in the ledger when it is read, and nothing more is until this is in force.
            let open = gate.write().await;
            let now = self.score.borrow().clone();
            let prepared = self.prepare(&now).await;
            let Some(app) = prepared.as_ref().ok().and_then(|prepared| self.waits_for(&now, prepared)) else { break (open, now, prepared) };
            drop((open, prepared));
            tracing::info!(%app, "the reload changes an app that is being deployed: it waits for that");
            self.deploys.settled(&app).await;
        };
        let Prepared { plan, overlay, sockets, materials, print } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.edge.refused().await;
                self.score.send_modify(|score| score.reloads.1 += 1);
                return Err(error);
            }
        };
        let generation = Generation(now.generation.0 + 1);
        let reloads = (now.reloads.0 + 1, now.reloads.1);
        let setting = Setting { generation, plan: plan.clone(), sockets: sockets.clone(), materials, reloads };
        if let Err(error) = self.edge.apply(setting).await {
            self.score.send_modify(|score| score.reloads.1 += 1);
            return Err(error.into());
        }
        // From here on nothing can fail.
        (self.in_force)(&plan);
        let ledger = self.ledger.clone();
        // Writes to the disk where the configuration has won over a release; a panic there has been told already.
        let _ = tokio::task::spawn_blocking(move || ledger.in_force(overlay)).await;
        self.output.configure(Files::of(&plan));
        self.score.send_replace(Score { plan: plan.clone(), generation, sockets, reloads });
        self.materials.send_replace((plan.clone(), print));
        let _ = self.supervisor.send(supervisor::Message::Apps(plan.apps.clone())).await;
        let _ = self.jobs.send(jobs::Message::Apps(plan.apps.clone())).await;
        Ok(generation)
    }

    /// An app whose new release is being put in place, and whose block would be another.
    fn waits_for(&self, now: &Score, prepared: &Prepared) -> Option<AppName> {
        // Where it runs from is not the block's business, but what the file says of that is.
        let block = |plan: &Plan, app: &AppName| plan.apps.get(app).map(|spec| App { dir: None, release: None, ..spec.clone() });
        let changes = |app: &AppName| {
            block(&now.plan, app) != block(&prepared.plan, app) || self.ledger.configured(app).as_ref() != prepared.overlay.configured(app)
        };
        self.deploys.switching().into_iter().find(changes)
    }

    async fn prepare(&self, now: &Score) -> Result<Prepared, ReloadError> {
        let (load, ledger) = (self.load.clone(), self.ledger.clone());
        // Files are read on another thread: a slow disk must not hold up a restart.
        let read = move || {
            load().map(|mut plan| {
                let overlay = ledger.overlay(&mut plan.apps, Moment::Reload);
                (materials::read(&plan), places::inspect(&plan), plan, overlay)
            })
        };
        let ((materials, print), reached, plan, overlay) =
            tokio::task::spawn_blocking(read).await.map_err(|_| ReloadError::Stopping)?.map_err(ReloadError::Configuration)?;
        reloadable(&now.plan, &plan)?;
        reached?;
        let sockets = Sockets::bind(&plan, &now.sockets)?;
        Ok(Prepared { plan: Arc::new(plan), overlay, sockets: Arc::new(sockets), materials, print })
    }
}

/// Everything that could fail before the edge is asked.
struct Prepared {
    plan: Arc<Plan>,
    overlay: Overlay,
    sockets: Arc<Sockets>,
    materials: Materials,
    print: Print,
}

impl ReloadError {
    /// The error with its causes, and how to mend it.
    #[must_use]
    pub fn story(&self) -> String {
        match self {
            Self::Configuration(complaints) => complaints.to_string(),
            Self::Fixed(fixed) => story(self, Some(fixed.advice())),
            Self::Place(place) => story(self, place.advice().as_deref()),
            Self::Bind(bind) => story(self, bind.advice()),
            Self::Edge(_) | Self::Stopping => story(self, None),
        }
    }
}
