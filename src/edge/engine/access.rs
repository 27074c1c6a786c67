//! A request before a route that is not for everyone.

use std::{num::NonZeroU32, sync::LazyLock, time::Duration};

use http::{HeaderValue, StatusCode, header};
use pingora::{Result, proxy::Session};

use super::{
    super::{
        access::{Asked, Basic, Forward, Guard, Look, Said},
        exchange::{Exchange, Trouble},
        gate::Verdict,
        refused,
        reply::Reply,
    },
    request, wait,
};
use crate::{ipc::why::Fault, plan::ban::Offence, telemetry::Seldom, vocab::chain};

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
        Guard::Forward(forward) => Box::pin(ask(session, exchange, forward)).await,
    }
}

/// Asks the server that knows. Without an answer nobody comes in.
async fn ask(session: &mut Session, exchange: &mut Exchange, forward: &Forward) -> Result<Verdict> {
    let header = session.req_header();
    let asked = Asked {
        method: &header.method,
        target: request::target(header),
        headers: &header.headers,
        authority: header.uri.authority().map(http::uri::Authority::as_str),
        peer: exchange.peer,
        client: exchange.client,
        trusted: exchange.trusted,
        tls: exchange.tls,
        request_id: &exchange.request_id,
    };
    // Made before the wait: it borrows the request, and the wait the session.
    let question = forward.question(&asked);
    let said = wait::unless_left(session, forward.ask(question)).await?;
    Ok(match said {
        Ok(Said::Admitted { user, vouched }) => {
            (exchange.user, exchange.vouched) = (user, vouched);
            Verdict::Pass
        }
        Ok(Said::Refused(reply)) => {
            let reply = reply.by(refused::AUTH);
            Verdict::Answer(if is_failed_login(session, reply.status) { reply.blame(Offence::Auth) } else { reply })
        }
        Err(error) => {
            let told = chain(&error);
            tell(exchange, forward, &told);
            exchange.trouble = Some(Trouble { fault: Fault::Door, deadline: None, detail: Some(told) });
            Verdict::Answer(unavailable(session, exchange))
        }
    })
}

/// At most one line a second.
fn tell(exchange: &Exchange, forward: &Forward, error: &str) {
    static TOLD: LazyLock<Seldom> = LazyLock::new(|| Seldom::a_second(NonZeroU32::MIN));
    let Some(more) = TOLD.may() else { return };
    let site = exchange.site().map(|site| &*site.name);
    tracing::warn!(site, server = %forward.server(), error, more, "auth could not be asked, nobody comes in");
}

fn welcome(exchange: &mut Exchange, user: HeaderValue) -> Verdict {
    exchange.user = Some(user);
    Verdict::Pass
}

fn challenge(session: &Session, exchange: &Exchange, basic: &Basic) -> Reply {
    let reply = page(session, exchange, StatusCode::UNAUTHORIZED).with(header::WWW_AUTHENTICATE, basic.challenge());
    if is_failed_login(session, reply.status) { reply.blame(Offence::Auth) } else { reply }
}

/// Who does not try has not failed: a browser asks without a password first, and with the cookie of a session that is over.
fn is_failed_login(session: &Session, status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && session.req_header().headers.contains_key(header::AUTHORIZATION)
}

fn busy(session: &Session, exchange: &mut Exchange) -> Reply {
    exchange.trouble = Some(Trouble::from(Fault::DoorBusy));
    unavailable(session, exchange)
}

fn unavailable(session: &Session, exchange: &Exchange) -> Reply {
    page(session, exchange, StatusCode::SERVICE_UNAVAILABLE).with_retry_after(Duration::from_secs(1))
}

fn page(session: &Session, exchange: &Exchange, status: StatusCode) -> Reply {
    Reply::page(status, session.req_header().headers.get(header::ACCEPT), exchange.id()).by(refused::AUTH)
}
