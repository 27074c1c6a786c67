//! Looks at a body before there is an upstream: what is refused has reached nobody.

use http::header;
use pingora::{Error, ErrorType, Result, proxy::Session};

use super::super::{conn::body as deadline, exchange::Exchange, gate::Inspection};

/// What the engine keeps of a body to send it again (pingora 0.9.1, `BODY_BUF_LIMIT`): a body that it has read whole and not kept would be lost.
const KEPT: usize = 64 << 10;
/// The most that one read gives, on HTTP/1 (`BODY_BUFFER_SIZE`) and on HTTP/2 (a frame, whose size we leave at its default).
const H1_READ: usize = 64 << 10;
const H2_READ: usize = 16 << 10;

/// Reads as much as is looked at, as long as that cannot be all of a body that is not kept; the rest is looked at on its way ([`super::request::body`]).
///
/// Errors: 403 where it is refused, 413 where it is too long, the client's own.
pub async fn body(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    let Some(route) = exchange.route().filter(|_| !exchange.upgrade && exchange.pool().is_some()) else { return Ok(()) };
    let headers = &session.req_header().headers;
    exchange.inspection = Inspection::new(&route.gate, headers);
    let Some(mut inspection) = exchange.inspection.take() else { return Ok(()) };
    let result = read(session, exchange, &mut inspection).await;
    exchange.inspection = Some(inspection);
    deadline::done();
    result
}

async fn read(session: &mut Session, exchange: &Exchange, inspection: &mut Inspection) -> Result<()> {
    let Some(route) = exchange.route() else { return Ok(()) };
    let length = session.get_header(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let (mut more, mut ended) = (true, false);
    session.enable_retry_buffering();
    while more && !session.is_body_done() && !session.retry_buffer_truncated() && is_safe(session, length) {
        deadline::expect(exchange.live.allowance.body);
        // Trailers end a body without its stream being over.
        let Some(piece) = session.read_request_body().await.map_err(Error::into_down)? else {
            ended = true;
            break;
        };
        if session.body_bytes_read() as u64 > route.body_limit {
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        more = inspection.expect(&piece).map_err(refusal)?;
    }
    inspection.begin(ended || session.is_body_done(), !session.retry_buffer_truncated(), &route.gate).map_err(refusal)
}

fn refusal(status: http::StatusCode) -> Box<Error> {
    Error::new_down(ErrorType::HTTPStatus(status.as_u16()))
}

/// Whether another read leaves the body whole: in the engine's hands, or with a piece to come.
fn is_safe(session: &Session, length: Option<usize>) -> bool {
    let read = session.body_bytes_read();
    let most = if session.is_http2() { H2_READ } else { H1_READ };
    match length {
        Some(length) => length <= KEPT || read + most < length,
        // The end of a chunked body is a piece of its own.
        None => !session.is_http2() || read + most <= KEPT,
    }
}
