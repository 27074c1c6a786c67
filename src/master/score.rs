//! What is in force.

use std::sync::Arc;

use super::sockets::Sockets;
use crate::{ipc::message::Generation, plan::Plan};

/// What the conductor knows of the configuration in force.
#[derive(Clone, Debug)]
pub struct Score {
    pub plan: Arc<Plan>,
    pub generation: Generation,
    pub sockets: Arc<Sockets>,
    /// Done and refused.
    pub reloads: (u64, u64),
}
