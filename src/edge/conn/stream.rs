//! The stream at the bottom of a connection: TCP, or TLS over it.

use std::{
    io,
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// An end of a pipe in memory.
    #[cfg(test)]
    Fake(tokio::io::DuplexStream),
}

impl Io {
    /// Whether the client chose HTTP/2 by ALPN.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
            Self::Plain(_) => false,
            #[cfg(test)]
            Self::Fake(_) => false,
        }
    }

    #[must_use]
    pub fn fd(&self) -> i32 {
        match self {
            Self::Plain(tcp) => tcp.as_raw_fd(),
            Self::Tls(tls) => tls.get_ref().0.as_raw_fd(),
            #[cfg(test)]
            Self::Fake(_) => -1,
        }
    }

    /// Whether the other side has sent its end, unread bytes before it or not.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            #[cfg(test)]
            Self::Fake(_) => return false,
        };
        tcp.ready(Interest::READABLE).now_or_never().is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    /// The TCP stream itself, for what follows after the last byte of the answer.
    #[must_use]
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.into_inner().0),
            #[cfg(test)]
            Self::Fake(_) => None,
        }
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $do:expr) => {
        match $self.get_mut() {
            Self::Plain(tcp) => {
                let $io = Pin::new(tcp);
                $do
            }
            Self::Tls(tls) => {
                let $io = Pin::new(tls);
                $do
            }
            #[cfg(test)]
            Self::Fake(fake) => {
                let $io = Pin::new(fake);
                $do
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}
