//! What a client still sends of a body that nobody wants: read and dropped, so that the answer of its HTTP/2 stream is heard before a reset.
//!
//! Shape: an answer that makes a client stop goes out at once, and the rest is dropped after it ([`after`]). A success does not: curl 7.88 goes on sending, hears nothing more
//!        once the answer is complete, and so would wait for room for ever. There the rest is dropped first ([`before`]).

use std::{sync::Arc, time::Duration};

use http::{StatusCode, header};
use pingora::{Error, proxy::Session};
use tokio::time::{Instant, timeout_at};

use super::super::{
    conn::{
        body as deadline,
        leftover::{Leftovers, PAUSE, QUIET, TIME},
    },
    exchange::{Author, CLIENT_GONE, Exchange},
};

/// Before an answer of ours.
pub async fn before(session: &mut Session, exchange: &Exchange, status: StatusCode, all: &Arc<Leftovers>) {
    // One that asks whether it may send does not send.
    if has_rest(session) && status.is_success() && !session.req_header().headers.contains_key(header::EXPECT) {
        Box::pin(read(session, exchange, all, PAUSE)).await;
    }
}

/// After the last byte of an answer. `error`: what the request ended with.
pub async fn after(session: &mut Session, error: Option<&Error>, exchange: &mut Exchange, all: &Arc<Leftovers>) {
    if has_rest(session) && is_whole(error, exchange) {
        exchange.leave();
        // In a box: it is rare, and every request's future would else have room for it.
        Box::pin(read(session, exchange, all, QUIET)).await;
    }
}

fn has_rest(session: &mut Session) -> bool {
    session.is_http2() && !session.is_body_done()
}

/// Whether the client was sent a whole answer: what breaks off within one ends with the reset that says so.
fn is_whole(error: Option<&Error>, exchange: &Exchange) -> bool {
    error.is_none() || exchange.author == Author::Us && exchange.status.is_some_and(|status| status != CLIENT_GONE)
}

async fn read(session: &mut Session, exchange: &Exchange, all: &Arc<Leftovers>, quiet: Duration) {
    let Some(client) = super::client(session) else { return };
    let drain = client.draining.clone();
    let now = Instant::now();
    let Some(mut rest) = all.begin(&client.leftover, exchange.client, now) else { return };
    deadline::done();
    let (mut end, mut drains) = (now + TIME, false);
    loop {
        let by = end.min(Instant::now() + quiet);
        let piece = tokio::select! {
            piece = timeout_at(by, session.read_request_body()) => piece,
            () = drain.cancelled(), if !drains => {
                (drains, end) = (true, end.min(Instant::now() + QUIET));
                continue;
            }
        };
        match piece {
            Ok(Ok(Some(piece))) if rest.take(piece.len(), Instant::now()) => {}
            // All has come, the client has stopped sending, or it is too much or too slow.
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
    }
}
