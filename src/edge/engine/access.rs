//! A request before a route that is not for everyone.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use pingora::{Result, proxy::Session};

use super::{
    super::{
        access::{Basic, Guard, Look},
        exchange::Exchange,
        gate::Verdict,
        reply::Reply,
    },
    wait,
};

/// A verification takes as long as its cost says, and others may be before it.
const WITHIN: Duration = Duration::from_secs(10);

/// Whether the client may come in. A route without `auth` costs a look; what is remembered is decided without a wait.
///
/// Errors: the client has left.
pub async fn admit(session: &mut Session, exchange: &mut Exchange) -> Result<Verdict> {
    let Some(guard) = exchange.route().and_then(|route| route.guard.clone()) else { return Ok(Verdict::Pass) };
    match &*guard {
        Guard::Basic(basic) => match basic.look(&session.req_header().headers, exchange.client, &exchange.live.verifier) {
            Look::Admitted(user) => Ok(welcome(exchange, user)),
            Look::Refused => Ok(Verdict::Answer(challenge(session, exchange, basic))),
            Look::Busy => Ok(Verdict::Answer(busy(session, exchange))),
            Look::Waits(waiting) => {
                // In a box: it is rare, and every request's future would else have room for it.
                let waited = Box::pin(wait::unless_left(session, tokio::time::timeout(WITHIN, waiting.done()))).await?;
                Ok(match waited {
                    Ok(Some(user)) => welcome(exchange, user),
                    Ok(None) => Verdict::Answer(challenge(session, exchange, basic)),
                    Err(_) => Verdict::Answer(busy(session, exchange)),
                })
            }
        },
    }
}

fn welcome(exchange: &mut Exchange, user: HeaderValue) -> Verdict {
    exchange.user = Some(user);
    Verdict::Pass
}

fn challenge(session: &Session, exchange: &Exchange, basic: &Basic) -> Reply {
    page(session, exchange, StatusCode::UNAUTHORIZED).with(header::WWW_AUTHENTICATE, basic.challenge())
}

fn busy(session: &Session, exchange: &Exchange) -> Reply {
    page(session, exchange, StatusCode::SERVICE_UNAVAILABLE).with_retry_after(Duration::from_secs(1))
}

fn page(session: &Session, exchange: &Exchange, status: StatusCode) -> Reply {
    Reply::page(status, session.req_header().headers.get(header::ACCEPT), exchange.id())
}
