//! The body deadline of HTTP/2: between two pieces of a request's body, until its answer begins.
//!
//! pingora waits for them without one (0.9.1, v2/server.rs). The hooks say when a piece is due; the task that serves the stream ends it when none came.
//! Shape: an answer that has begun ends the watch: a stream that goes both ways may be silent.

use std::{cell::Cell, pin::pin, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{alarm::Alarm, cut};
use crate::edge::refused;

tokio::task_local! {
    static DUE: Cell<Option<Instant>>;
}

/// A piece, or the end, is to come within so long. Without [`watch`] around it, nothing.
pub fn expect(within: Duration) {
    set(Some(Instant::now() + within));
}

/// Nothing is waited for.
pub fn done() {
    set(None);
}

fn set(due: Option<Instant>) {
    // Outside of a watch, which is HTTP/1, the session keeps the deadline.
    let _ = DUE.try_with(|cell| cell.set(due));
}

/// Serves one stream; `None`: given up at the deadline.
///
/// Cancel-safety: as that of `serve`.
pub async fn watch<T>(serve: impl Future<Output = T>) -> Option<T> {
    let watched = async {
        let mut serve = pin!(serve);
        let mut alarm = Alarm::default();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(served) = serve.as_mut().poll(cx) {
                return Poll::Ready(Some(served));
            }
            match DUE.with(Cell::get) {
                Some(due) => alarm.poll(due, cx).map(|()| {
                    cut::begins(refused::BODY_DEADLINE);
                    None
                }),
                None => Poll::Pending,
            }
        })
        .await
    };
    let served = DUE.scope(Cell::new(None), watched).await;
    if served.is_none() {
        cut::ends();
    }
    served
}
