//! A request's time in the waiting room of its app, and while its client takes nothing.

use std::{sync::Arc, time::Duration};

use pingora::{Error, ErrorSource, ErrorType, Result, proxy::Session};
use tokio::time::Instant;

use super::super::{
    exchange::{Exchange, Hopeless, Trouble},
    refused,
    upstream::Room,
};
use crate::{ipc::why::Fault, plan::Hold};

/// Between two looks whether the client is still there.
const LOOK: Duration = Duration::from_millis(200);
/// A server that has failed the request and is still there gets it again after so long, and after twice as long each time.
const AFRESH: Duration = Duration::from_millis(100);

/// Until a server is picked.
///
/// Errors: 503 where the room is full, the time is over, or nothing will come; the client's own where it has left.
pub async fn for_an_instance(session: &mut Session, exchange: &mut Exchange, room: &Arc<Room>, bounds: &Hold) -> Result<()> {
    let read = exchange.ahead.as_ref().map_or(0, |early| early.bytes).max(session.body_bytes_read() as u64);
    // What it has waited before counts.
    let bounds = Hold { time: bounds.time.saturating_sub(exchange.queued), ..bounds.clone() };
    let Some(place) = room.enter(&bounds, read) else { return refuse(exchange, Fault::HoldFull) };
    let mut pause = AFRESH * 2_u32.pow(exchange.tries().min(5));
    let mut afresh = Instant::now() + pause;
    let verdict = loop {
        if has_left(session) {
            break Err(None);
        }
        let again = Instant::now() >= afresh;
        if again {
            pause *= 2;
            afresh = Instant::now() + pause;
        }
        let found = {
            let wait = place.wait(LOOK.min(afresh.saturating_duration_since(Instant::now())), || match exchange.look_again(room, again) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(Hopeless) => Some(Err(Some(Fault::NoServer))),
            });
            match session.as_downstream_mut().watch_h2_stream_close() {
                Some(gone) => tokio::select! {
                    found = wait => found,
                    _ = gone => Some(Err(None)),
                },
                None => wait.await,
            }
        };
        match found {
            Some(verdict) => break verdict,
            None if place.is_over() => {
                exchange.give_up();
                break Err(Some(Fault::HoldTimedOut));
            }
            None => {}
        }
    };
    exchange.queued += place.held();
    match verdict {
        Ok(()) => Ok(()),
        Err(Some(fault)) => refuse(exchange, fault),
        Err(None) => Err(left()),
    }
}

/// Until enough of what the connection asked for has been taken.
///
/// Errors: 503 where nothing was for as long as a write may wait; the client's own where it has left.
pub async fn for_an_appetite(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    if exchange.portion.is_some() {
        return Ok(());
    }
    let Some(appetite) = super::client(session).and_then(|client| client.appetite.clone()) else { return Ok(()) };
    let by = Instant::now() + exchange.live.allowance.send;
    exchange.portion = unless_left(session, appetite.next(by)).await?;
    match exchange.portion {
        Some(_) => Ok(()),
        None => {
            exchange.refused = Some(refused::APPETITE);
            Err(Error::new_down(ErrorType::HTTPStatus(503)))
        }
    }
}

/// Waits, but for as long as the client does.
///
/// Errors: it has left.
pub async fn unless_left<T>(session: &mut Session, wait: impl Future<Output = T>) -> Result<T> {
    let mut wait = std::pin::pin!(wait);
    loop {
        match session.as_downstream_mut().watch_h2_stream_close() {
            Some(gone) => tokio::select! {
                found = &mut wait => return Ok(found),
                _ = gone => return Err(left()),
            },
            None => tokio::select! {
                found = &mut wait => return Ok(found),
                () = tokio::time::sleep(LOOK) => {}
            },
        }
        if has_left(session) {
            return Err(left());
        }
    }
}

fn left() -> Box<Error> {
    let mut left = Error::explain(ErrorType::ConnectionClosed, "the client left while it waited");
    left.esource = ErrorSource::Downstream;
    left
}

fn refuse(exchange: &mut Exchange, fault: Fault) -> Result<()> {
    exchange.trouble = Some(Trouble::from(fault));
    Err(Error::new_down(ErrorType::HTTPStatus(503)))
}

/// Whether an HTTP/1 client has closed its side.
fn has_left(session: &Session) -> bool {
    let Some(h1) = session.as_http1() else { return false };
    h1.stream().as_any().downcast_ref::<super::super::conn::Conn>().is_some_and(|conn| conn.has_left())
}
