//! Bodies that the demo app sends: a text, so many bytes, pieces with pauses between them.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;

pub type Body = BoxBody<Bytes, io::Error>;

/// One piece of a long body.
static PIECE: [u8; 64 * 1024] = [b'.'; 64 * 1024];

pub fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// `size` dots, made as they are taken.
pub fn dots(size: u64) -> Body {
    let pieces = stream::unfold(size, |left| async move {
        let next = left.min(PIECE.len() as u64);
        // Not more than a piece, so it fits.
        let piece = usize::try_from(next).ok().filter(|next| *next > 0)?;
        Some((Ok(Frame::data(Bytes::from_static(&PIECE[..piece]))), left - next))
    });
    BoxBody::new(StreamBody::new(pieces))
}

/// `n` pieces, the first at once, the others each after a pause.
pub fn pieces(n: u64, pause: Duration, make: impl Fn(u64) -> String + Send + Sync + 'static) -> Body {
    let pieces = stream::unfold((0, make), move |(at, make)| async move {
        if at == n {
            return None;
        }
        if at > 0 {
            tokio::time::sleep(pause).await;
        }
        Some((Ok(Frame::data(make(at).into())), (at + 1, make)))
    });
    BoxBody::new(StreamBody::new(pieces))
}

/// A beginning, then an error: the connection breaks off in the middle.
pub fn broken(start: &'static str) -> Body {
    let pieces = stream::unfold(Some(start), |left| async move {
        match left {
            Some(start) => Some((Ok(Frame::data(Bytes::from_static(start.as_bytes()))), None)),
            None => {
                // What is still in hyper's buffer is not sent once there is an error.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Err(io::Error::other("broken off on purpose")), None))
            }
        }
    });
    BoxBody::new(StreamBody::new(pieces))
}
