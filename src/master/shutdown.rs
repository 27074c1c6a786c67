//! The end of everything, in good order.

use std::time::Duration;

use tokio::{sync::oneshot, time::sleep};

use super::{handle::Handle, jobs, nursery::Nursery, supervisor::Message};

/// After everything has been told to stop: until what is left is killed.
pub const MARGIN: Duration = Duration::from_secs(2);

/// The edge drains, then the apps stop in reverse order, and jobs beside both; a second signal or the total deadline ends it at once.
pub async fn orderly(handle: &Handle, again: impl Future<Output = ()>) {
    let plan = handle.sources.score.borrow().plan.clone();
    let drain = plan.timeouts.drain;
    let slowest = plan.apps.values().map(|app| app.stop.timeout).max().unwrap_or_default();
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
        () = sleep(drain + slowest + MARGIN) => tracing::error!("not everything stopped in time, killing what is left"),
    }
    handle.edge.kill_now().await;
    let _ = handle.supervisor.send(Message::KillAll).await;
    let _ = handle.jobs.send(jobs::Message::KillAll).await;
}

/// Until no child is left.
pub async fn all_gone(nursery: &Nursery) {
    while !nursery.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
}
