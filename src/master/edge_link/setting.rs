//! A configuration on its way into force.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ipc::message::{Config, Generation, Materials},
    master::sockets::Sockets,
    plan::Plan,
};

pub(super) const APPLY_WITHIN: Duration = Duration::from_secs(10);

/// A configuration as an edge gets it, with the sockets that belong to it.
#[derive(Clone, Debug)]
pub struct Setting {
    pub generation: Generation,
    pub plan: Arc<Plan>,
    pub sockets: Arc<Sockets>,
    pub materials: Materials,
    /// Done and refused so far.
    pub reloads: (u64, u64),
}

/// Why a configuration is not in force.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ApplyError {
    #[error("apply the configuration: the edge refuses it: {0}")]
    Refused(String),
    #[error("apply the configuration: the edge did not answer within {} s", APPLY_WITHIN.as_secs())]
    Silent,
    #[error("apply the configuration: the edge died of it")]
    Died,
    #[error("apply the configuration: gateway is stopping")]
    Stopping,
}

/// A configuration on trial.
pub(super) struct Trial {
    pub(super) setting: Setting,
    pub(super) reply: oneshot::Sender<Result<(), ApplyError>>,
    pub(super) deadline: Instant,
    /// The edge did not serve when it came: should that one die, the next starts with this.
    pub(super) fresh: bool,
}

/// The message and the descriptors that an edge with the listeners of `has` needs.
pub(super) fn config(setting: &Setting, has: &Sockets) -> (Config, Vec<Arc<OwnedFd>>) {
    let (listeners, descriptors) = setting.sockets.parcel(has);
    let plan = Plan::clone(&setting.plan);
    (Config { generation: setting.generation, plan, listeners, materials: setting.materials.clone() }, descriptors)
}
