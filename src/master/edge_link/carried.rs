//! The edges, and what is only known here, on their way to the binary that takes over.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{EdgeLink, running::Running};
use crate::{
    ipc::message::Materials,
    master::{
        bag::Bag,
        elders,
        obstacle::{TakeOverError, UpgradeError},
    },
};

/// The edges, and what is only known here, on their way to the binary that takes over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// The one that serves comes last.
    edges: Vec<elders::Carried>,
    restarts: u64,
    /// [`Materials`] that the edge had nothing against. A build that has another idea of them reads the files.
    materials: Value,
}

impl Carried {
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.edges.iter().map(|edge| Pid::from_raw(edge.pid)).collect()
    }

    /// `None`: they are to be read anew.
    #[must_use]
    pub fn materials(&self) -> Option<Materials> {
        serde_json::from_value(self.materials.clone()).ok()
    }
}

impl EdgeLink {
    /// The edges of the binary before serve on until the first of ours is ready.
    ///
    /// Errors: a link did not come along.
    pub fn adopt(&mut self, carried: &Carried, mut claim: impl FnMut(RawFd) -> io::Result<OwnedFd>) -> Result<(), TakeOverError> {
        for elders::Carried { pid, line, drain, left } in &carried.edges {
            let pid = Pid::from_raw(*pid);
            let (told, exit) = oneshot::channel();
            self.nursery.take_over(pid, move |how| {
                // Whoever waited has given it up.
                let _ = told.send(how);
            });
            let line = claim(*line).map_err(TakeOverError::Descriptor)?;
            self.elders.add(pid, exit, line, *drain, *left).map_err(TakeOverError::Descriptor)?;
        }
        self.facts.send_modify(|facts| (facts.restarts, facts.draining) = (carried.restarts, self.elders.count()));
        Ok(())
    }

    pub(super) async fn show(
        &self,
        edge: &Running,
        reply: oneshot::Sender<Result<(Carried, Bag), UpgradeError>>,
        thaw: Option<oneshot::Receiver<()>>,
    ) {
        let shown = self.export(edge);
        let good = shown.is_ok();
        // Whoever asked may have given up; then there is nothing to wait for.
        let heard = reply.send(shown).is_ok();
        if let Some(thaw) = thaw.filter(|_| good && heard) {
            let _ = thaw.await;
        }
    }

    fn export(&self, edge: &Running) -> Result<(Carried, Bag), UpgradeError> {
        if self.stopping.is_some() {
            return Err(UpgradeError::Stopping);
        }
        if !edge.ready || edge.leaving {
            return Err(UpgradeError::EdgeDown);
        }
        if self.elders.count() >= elders::MOST {
            return Err(UpgradeError::Elders { count: self.elders.count() });
        }
        let mut bag = Bag::default();
        let mut edges = self.elders.export(&mut bag).map_err(UpgradeError::Descriptors)?;
        let line = bag.put(&edge.line).map_err(UpgradeError::Descriptors)?;
        edges.push(elders::Carried { pid: edge.pid.as_raw(), line, drain: self.setting.plan.timeouts.drain, left: None });
        let materials = serde_json::to_value(&self.good_materials).map_err(UpgradeError::Write)?;
        Ok((Carried { edges, restarts: self.facts.borrow().restarts, materials }, bag))
    }
}
