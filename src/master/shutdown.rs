//! The end of everything, in good order.

use std::time::Duration;

use tokio::{sync::oneshot, time::sleep};

use super::{handle::Handle, jobs, nursery::Nursery, supervisor::Message};
use crate::plan::waves;

/// After everything has been told to stop: until what is left is killed.
pub const MARGIN: Duration = Duration::from_secs(2);

/// For what an orderly end takes beside the patience of edge and apps: an edge that is late, groups that vanish.
const SLACK: Duration = Duration::from_secs(4);
/// From the deadline to the end of the process: KILL, the last lines of logs.
const LAST: Duration = Duration::from_secs(6);

/// The edge drains, then the apps stop in waves, and jobs beside both; a second signal or the total deadline ends it at once.
pub async fn orderly(handle: &Handle, again: impl Future<Output = ()>) {
    let drain = handle.sources.score.borrow().plan.timeouts.drain;
    let deadline = within(handle);
    handle.deploys.stop();
    let apps = async {
        handle.edge.shutdown(drain).await;
        let (done, all) = oneshot::channel();
        let _ = handle.supervisor.send(Message::StopAll { done }).await;
        let _ = all.await;
    };
    let jobs = async {
        let (done, all) = oneshot::channel();
        let _ = handle.jobs.send(jobs::Message::StopAll { done }).await;
        let _ = all.await;
    };
    let orderly = async { tokio::join!(apps, jobs) };
    tokio::select! {
        ((), ()) = orderly => return,
        () = again => tracing::warn!("told twice, stopping now"),
        () = sleep(deadline) => tracing::error!("not everything stopped in time, killing what is left"),
    }
    handle.edge.kill_now().await;
    let _ = handle.supervisor.send(Message::KillAll).await;
    let _ = handle.jobs.send(jobs::Message::KillAll).await;
}

/// How long an orderly end may take: after that, what is left is killed.
fn within(handle: &Handle) -> Duration {
    let plan = handle.sources.score.borrow().plan.clone();
    waves::stop_within(&plan.apps, plan.timeouts.drain).saturating_add(SLACK)
}

/// When whoever waits for our end may lose patience.
#[must_use]
pub fn over_within(handle: &Handle) -> Duration {
    within(handle).saturating_add(LAST)
}

/// Until no child is left.
pub async fn all_gone(nursery: &Nursery) {
    while !nursery.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
}
