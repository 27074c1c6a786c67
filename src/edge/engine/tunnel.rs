//! Connections for requests that ask for an upgrade: the work-around for pingora #946.
//!
//! pingora tears a tunnel down when the upstream's 101 is read before the request's own empty body was taken from its queue, and which comes first is a matter
//! of luck. A connection that is not ready at its very first read lets the queue go first.
//!
//! And their end: at half the drain of the instance that has it, a WebSocket's client is told to go (1001) where a frame ends, so that it connects anew, to another
//! instance; what the app still says goes nowhere. The client answers with its own Close, by which the app learns of it. The tunnels of a client that is banned end at once and without a word.
//! Source: pingora#946 (WebSockets), RFC 6455 §5.5.1.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, OrErr, Result,
    connectors::L4Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

mod farewell;
mod head;

use farewell::Boundary;
use head::Answer;

/// Whether the first read waits its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    Shut,
    /// pingora as it is: for the test that shows the bug.
    Open,
}

/// Connects one request's upgrade.
#[derive(Debug)]
pub struct GateConnect {
    pub connect: Duration,
    /// Until the head of the answer is whole; then between two reads of one that is no upgrade.
    pub read: Duration,
    pub gate: Gate,
    /// Cancelled when tunnels on the server should come to an end.
    pub leave: CancellationToken,
    /// Cancelled when the client is to hear nothing more.
    pub cut: CancellationToken,
}

#[async_trait]
impl L4Connect for GateConnect {
    async fn connect(&self, addr: &SocketAddr) -> Result<Stream> {
        let wire = timeout(self.connect, Wire::connect(addr)).await;
        let wire = wire
            .or_err(ErrorType::ConnectTimedout, "an upgrade's connection")?
            .or_err(ErrorType::ConnectError, "an upgrade's connection")?;
        let patience = Some(Box::pin(sleep_until(Instant::now() + self.read)));
        let socket = GateSocket {
            wire,
            shut: self.gate == Gate::Shut,
            read: self.read,
            answer: Answer::default(),
            patience,
            farewell: Farewell::new(self.leave.clone()),
            cut: Box::pin(self.cut.clone().cancelled_owned()),
        };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    async fn connect(addr: &SocketAddr) -> io::Result<Self> {
        match addr {
            SocketAddr::Inet(addr) => {
                let tcp = TcpStream::connect(addr).await?;
                tcp.set_nodelay(true)?;
                Ok(Self::Tcp(tcp))
            }
            SocketAddr::Unix(addr) => {
                let path = addr.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
                UnixStream::connect(path).await.map(Self::Unix)
            }
        }
    }
}

#[derive(Debug)]
struct GateSocket {
    wire: Wire,
    shut: bool,
    read: Duration,
    answer: Answer,
    /// Armed while the upstream is waited for.
    patience: Option<Pin<Box<Sleep>>>,
    farewell: Farewell,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The end of a WebSocket, told to its client.
#[derive(Debug)]
struct Farewell {
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
    boundary: Boundary,
    stage: Leaving,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leaving {
    Not,
    /// At the next boundary.
    Due,
    Said,
}

impl Farewell {
    fn new(leave: CancellationToken) -> Self {
        Self { leave: Box::pin(leave.cancelled_owned()), boundary: Boundary::default(), stage: Leaving::Not }
    }

    /// Whether the Close has just been said. Wakes the reader when it is time.
    fn say(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> bool {
        if self.stage == Leaving::Not && self.leave.as_mut().poll(cx).is_ready() {
            self.stage = Leaving::Due;
        }
        let now = self.stage == Leaving::Due && self.boundary.is_between() && buf.remaining() >= farewell::CLOSE.len();
        if now {
            buf.put_slice(&farewell::CLOSE);
            self.stage = Leaving::Said;
        }
        now
    }
}

macro_rules! each {
    ($self:expr, $wire:ident => $do:expr) => {
        match &mut $self.wire {
            Wire::Tcp(tcp) => {
                let $wire = Pin::new(tcp);
                $do
            }
            Wire::Unix(unix) => {
                let $wire = Pin::new(unix);
                $do
            }
        }
    };
}

impl AsyncRead for GateSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.shut) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let socket = &mut *self;
        if socket.cut.as_mut().poll(cx).is_ready() {
            // As if the upstream had ended it: no fault of the server's.
            return Poll::Ready(Ok(()));
        }
        if let (Answer::Awaited(_), Some(patience)) = (socket.answer, &mut socket.patience)
            && patience.as_mut().poll(cx).is_ready()
        {
            // Before the next piece of a head that may never end.
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if socket.farewell.say(cx, buf) {
            return Poll::Ready(Ok(()));
        }
        if socket.farewell.stage == Leaving::Said {
            return socket.hear_out(cx);
        }
        let room = if socket.farewell.stage == Leaving::Due { socket.farewell.boundary.room() } else { usize::MAX };
        let before = buf.filled().len();
        let polled = if room < buf.remaining() {
            // Not beyond the boundary that is waited for.
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            let polled = each!(socket, wire => wire.poll_read(cx, &mut part));
            let read = part.filled().len();
            buf.advance(read);
            polled
        } else {
            each!(socket, wire => wire.poll_read(cx, buf))
        };
        match polled {
            Poll::Ready(done) => {
                self.answer = self.answer.read(&buf.filled()[before..]);
                self.farewell.boundary = self.farewell.boundary.after(&buf.filled()[before..]);
                if !matches!(self.answer, Answer::Awaited(_)) {
                    self.patience = None;
                }
                Poll::Ready(done)
            }
            Poll::Pending if self.answer == Answer::Tunnel => Poll::Pending,
            Poll::Pending => {
                let due = Instant::now() + self.read;
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(due)));
                patience.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl GateSocket {
    /// After the Close: whatever the app still says is not for the client any more.
    fn hear_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 2048];
        // So much at a time; then others have their turn.
        for _ in 0..16 {
            let mut rest = ReadBuf::new(&mut scratch);
            match each!(self, wire => wire.poll_read(cx, &mut rest)) {
                Poll::Ready(Ok(())) if rest.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for GateSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, wire => wire.poll_write(cx, bytes))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, wire => wire.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, wire => wire.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, wire => wire.poll_shutdown(cx))
    }
}

impl VirtualSocket for GateSocket {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // Set when it was connected.
        Ok(())
    }
}

/// A deadline of a [`GateConnect`] that has passed, told from other read errors.
#[must_use]
pub fn timed_out(error: &Error) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
