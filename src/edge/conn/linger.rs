//! Closes connections whose client is still sending: the answer must arrive before the reset does.
//!
//! Source: RFC 9112 §9.6; nginx's `lingering_close`.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::Io;

/// How long a client may go on sending after its answer.
const LINGER: Duration = Duration::from_secs(3);
/// Connections that close so at a time, a thread; more are closed the hard way.
const MANY: usize = 1024;

/// The actor and where connections are handed to it.
#[derive(Debug)]
pub struct Lingerer {
    inbox: mpsc::Receiver<Io>,
}

impl Lingerer {
    #[must_use]
    pub fn new() -> (Self, mpsc::Sender<Io>) {
        // Room for a burst; when it is full the sender drops the connection, which closes it.
        let (outbox, inbox) = mpsc::channel(MANY);
        (Self { inbox }, outbox)
    }

    /// Ends when every sender is gone and the last connection is closed.
    pub async fn run(mut self) {
        let mut closing = JoinSet::new();
        loop {
            tokio::select! {
                io = self.inbox.recv() => match io {
                    Some(io) if closing.len() < MANY => {
                        closing.spawn(timeout(LINGER, close(io)));
                    }
                    Some(_) => {}
                    None => break,
                },
                Some(_) = closing.join_next() => {}
            }
        }
        while closing.join_next().await.is_some() {}
    }
}

async fn close(mut io: Io) {
    // Errors mean that the client has gone, which is what we wait for.
    if io.flush().await.is_err() || io.shutdown().await.is_err() {
        return;
    }
    let Some(tcp) = io.into_tcp() else { return };
    discard(tcp).await;
}

async fn discard(mut tcp: TcpStream) {
    let mut waste = [0; 4096];
    while matches!(tcp.read(&mut waste).await, Ok(n) if n > 0) {}
}
