//! A request's wait in the zones of its route: for what others leave of a budget, and for its turn.

use std::time::Duration;

use http::{StatusCode, header};
use pingora::{Result, proxy::Session};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        exchange::Exchange,
        gate::{self, Refused, Verdict},
        refused,
        reply::Reply,
    },
    wait,
};
use crate::plan::ban::Offence;

/// As long as that a request waits for the answers of others, which decide what is left for it.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks where no bell has rung: another zone of the route may have been what it waits for.
const LOOK: Duration = Duration::from_millis(200);

/// Why a request that waited gets no turn.
enum NoTurn {
    Refused(Refused),
    /// The connection drains, and will be closed before an answer could come.
    TooLate,
}

/// A route whose zones make nobody wait costs a look.
///
/// Errors: the client has left; its turn is given back.
pub async fn take(session: &mut Session, exchange: &mut Exchange) -> Result<Verdict> {
    if exchange.passage.wait().is_zero() && exchange.passage.unsettled().is_none() {
        return Ok(Verdict::Pass);
    }
    // In a box: it is rare, and every request's future would else have room for it.
    Box::pin(stand(session, exchange)).await
}

async fn stand(session: &mut Session, exchange: &mut Exchange) -> Result<Verdict> {
    let drain = super::client(session).map(|client| client.draining.clone()).unwrap_or_default();
    // Half of the drain is left for the answer.
    let patience = exchange.live.allowance.drain / 2;
    let until = Instant::now() + SETTLED_WITHIN;
    let waited = wait::unless_left(session, async {
        tokio::select! {
            biased;
            settled = settle(exchange, until) => settled.map_err(NoTurn::Refused)?,
            () = is_too_late(&drain, until, patience) => return Err(NoTurn::TooLate),
        }
        let due = Instant::now() + exchange.passage.wait();
        tokio::select! {
            () = sleep_until(due) => Ok(()),
            () = is_too_late(&drain, due, patience) => Err(NoTurn::TooLate),
        }
    });
    let why = match waited.await {
        Ok(Ok(())) => {
            exchange.passage.begin();
            return Ok(Verdict::Pass);
        }
        Ok(Err(why)) => why,
        Err(left) => {
            exchange.passage.end();
            return Err(left);
        }
    };
    let page = |status| Reply::page(status, session.req_header().headers.get(header::ACCEPT), exchange.id());
    Ok(Verdict::Answer(match why {
        NoTurn::Refused(Refused { status, wait, zone }) => {
            page(status).by(refused::zone(&zone)).with_retry_after(wait).blame(Offence::Zone)
        }
        NoTurn::TooLate => {
            // Its client is told so now: no fault of his, and he has spent nothing if nobody has come after him.
            let page = page(StatusCode::SERVICE_UNAVAILABLE).by(refused::CUT).with_retry_after(Duration::ZERO);
            exchange.passage.end();
            page
        }
    }))
}

/// Until what others have reserved is spent or given back.
async fn settle(exchange: &mut Exchange, until: Instant) -> Result<(), Refused> {
    let live = exchange.live.clone();
    while let (Some(queue), Some(route)) = (exchange.passage.unsettled(), exchange.route_of(&live)) {
        let mut heard = std::pin::pin!(queue.heard());
        // What is settled from here on is heard.
        heard.as_mut().enable();
        if gate::again(&route.gate, live.now(), &mut exchange.passage)? {
            break;
        }
        if Instant::now() >= until
            && let Some(refused) = exchange.passage.give_up()
        {
            return Err(refused);
        }
        // Rung or late: it looks again.
        let _ = timeout_at(until.min(Instant::now() + LOOK), heard).await;
    }
    Ok(())
}

/// Returns when the connection drains and the turn would come too late for that.
async fn is_too_late(drain: &CancellationToken, due: Instant, patience: Duration) {
    drain.cancelled().await;
    if due.saturating_duration_since(Instant::now()) <= patience {
        std::future::pending().await
    }
}
