//! A request's wait for its turn in the zones of its route.

use std::time::Duration;

use http::{StatusCode, header};
use pingora::{Result, proxy::Session};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    super::{exchange::Exchange, gate::Verdict, reply::Reply},
    wait,
};

/// A route whose zones make nobody wait costs a look.
///
/// Errors: the client has left; its turn is given back.
pub async fn take(session: &mut Session, exchange: &mut Exchange) -> Result<Verdict> {
    let wait = exchange.passage.wait();
    if wait.is_zero() {
        return Ok(Verdict::Pass);
    }
    // In a box: it is rare, and every request's future would else have room for it.
    Box::pin(stand(session, exchange, wait)).await
}

async fn stand(session: &mut Session, exchange: &mut Exchange, wait: Duration) -> Result<Verdict> {
    let due = Instant::now() + wait;
    let drain = super::client(session).map(|client| client.draining.clone()).unwrap_or_default();
    // Half of the drain is left for the answer.
    let patience = exchange.live.allowance.drain / 2;
    let waited = wait::unless_left(session, async {
        tokio::select! {
            () = sleep_until(due) => Ended::Due,
            () = is_too_late(&drain, due, patience) => Ended::TooLate,
        }
    });
    match waited.await {
        Ok(Ended::Due) => {
            exchange.passage.begin();
            Ok(Verdict::Pass)
        }
        Ok(Ended::TooLate) => {
            exchange.passage.end();
            let page = Reply::page(StatusCode::SERVICE_UNAVAILABLE, session.req_header().headers.get(header::ACCEPT), exchange.id());
            Ok(Verdict::Answer(page.with_retry_after(Duration::from_secs(1))))
        }
        Err(left) => {
            exchange.passage.end();
            Err(left)
        }
    }
}

/// How a wait ends.
enum Ended {
    Due,
    /// Its connection will be closed before it could be answered.
    TooLate,
}

/// Returns when the connection drains and the turn would come too late for that.
async fn is_too_late(drain: &CancellationToken, due: Instant, patience: Duration) {
    drain.cancelled().await;
    if due.saturating_duration_since(Instant::now()) <= patience {
        std::future::pending().await
    }
}
