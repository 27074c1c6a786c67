//! The link: typed messages and descriptors over one socket pair.

use std::{
    collections::VecDeque,
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{io::Interest, net::UnixStream};

use super::{
    codec::{self, CodecError, Decoder},
    fds,
};

/// Why a message could not travel; the link is lost.
#[derive(Debug, Error)]
pub enum LinkError {
    #[error("speak over the link")]
    Codec(#[from] CodecError),
    #[error("use the link's socket")]
    Io(#[from] io::Error),
    #[error("match {announced} descriptors to a message: {received} came")]
    Descriptors { announced: u8, received: usize },
    #[error("use the link: the peer closed it in the middle of a message")]
    Cut,
    #[error("use the link: an earlier message was given up half sent")]
    Broken,
}

/// One end of the link: sends `Out`, receives `In`.
#[derive(Debug)]
pub struct Link<Out, In> {
    stream: UnixStream,
    types: PhantomData<fn(&Out) -> In>,
}

impl<Out, In> Link<Out, In> {
    /// A connected pair: ours (non-blocking, for [`Link::from_std`]), and the one the child gets as its descriptor 3. Both close-on-exec.
    pub fn pair() -> io::Result<(StdUnixStream, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((ours, theirs.into()))
    }

    /// Errors: outside of a tokio runtime it panics, as tokio does.
    pub fn from_std(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, types: PhantomData })
    }

    #[must_use]
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        let stream = Arc::new(self.stream);
        let sender = Sender { stream: stream.clone(), broken: false, types: PhantomData };
        let receiver = Receiver {
            stream,
            decoder: Decoder::new(),
            descriptors: VecDeque::new(),
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
            types: PhantomData,
        };
        (sender, receiver)
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<Out> {
    stream: Arc<UnixStream>,
    broken: bool,
    types: PhantomData<fn(&Out)>,
}

impl<Out: Serialize> Sender<Out> {
    /// Sends one message; waits while the peer does not read.
    ///
    /// Cancel-safety: giving it up half-way breaks the link: every later send says so.
    pub async fn send(&mut self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        if self.broken {
            return Err(LinkError::Broken);
        }
        let count = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
        let frame = codec::encode(message, count)?;
        self.broken = true;
        let mut sent = 0;
        while sent < frame.len() {
            let with = if sent == 0 { descriptors } else { &[] };
            let step = self.stream.async_io(Interest::WRITABLE, || fds::send(self.stream.as_fd(), &frame[sent..], with)).await;
            match step {
                Ok(0) => return Err(LinkError::Io(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.broken = false;
        Ok(())
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<In> {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    /// Arrived, and their message has not been taken yet.
    descriptors: VecDeque<OwnedFd>,
    buffer: Box<[u8]>,
    types: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> Receiver<In> {
    /// The next message and its descriptors; `None` when the peer closed the link between two messages.
    ///
    /// Cancel-safety: safe; what was read is kept for the next call.
    pub async fn receive(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, LinkError> {
        loop {
            if let Some((message, announced)) = self.decoder.pop()? {
                if self.descriptors.len() < announced as usize {
                    return Err(LinkError::Descriptors { announced, received: self.descriptors.len() });
                }
                return Ok(Some((message, self.descriptors.drain(..announced as usize).collect())));
            }
            let Self { stream, decoder, descriptors, buffer, .. } = self;
            let mut arrived = Vec::new();
            let bytes = match stream.async_io(Interest::READABLE, || fds::receive(stream.as_fd(), buffer, &mut arrived)).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error.into()),
            };
            descriptors.extend(arrived);
            // Every whole message has been taken: these belong to one that is not whole. A peer that sends more must not use up ours.
            if descriptors.len() > usize::from(codec::MAX_DESCRIPTORS) {
                return Err(LinkError::Descriptors { announced: codec::MAX_DESCRIPTORS, received: descriptors.len() });
            }
            if bytes == 0 {
                return if decoder.is_empty() { Ok(None) } else { Err(LinkError::Cut) };
            }
            decoder.push(&buffer[..bytes]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::ipc::message::{Build, Generation, ToEdge, ToMaster};

    type Master = Link<ToEdge, ToMaster>;
    type Edge = Link<ToMaster, ToEdge>;

    fn ends() -> (Master, Edge) {
        let (ours, theirs) = Master::pair().expect("pair");
        (Master::from_std(ours).expect("ours"), Edge::from_std(theirs.into()).expect("theirs"))
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive_in_order() {
        let (master, edge) = ends();
        let (_keep, mut from_edge) = master.split();
        let (mut to_master, _) = edge.split();
        let (one, two) = StdUnixStream::pair().expect("pair");
        let sending = async {
            to_master.send(&ToMaster::Hello { build: Build::this() }, &[]).await.expect("sent");
            to_master.send(&ToMaster::Ready { generation: Generation(7) }, &[one.as_fd(), two.as_fd()]).await.expect("sent");
            to_master.send(&ToMaster::Answer { ask: 1, json: "x".repeat(3 << 20) }, &[one.as_fd()]).await.expect("sent");
            drop(to_master);
        };
        let receiving = async {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (message, descriptors) = from_edge.receive().await.expect("good").expect("open");
                seen.push((message, descriptors.len()));
            }
            seen
        };
        let both = async { tokio::join!(sending, receiving).1 };
        let seen = timeout(Duration::from_secs(20), both).await.expect("in time");
        assert_eq!(seen[0], (ToMaster::Hello { build: Build::this() }, 0));
        assert_eq!(seen[1], (ToMaster::Ready { generation: Generation(7) }, 2));
        assert!(matches!(&seen[2], (ToMaster::Answer { ask: 1, json }, 1) if json.len() == 3 << 20));
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_ends_the_link() {
        let (master, edge) = ends();
        let (_keep, mut from_edge) = master.split();
        drop(edge);
        assert!(from_edge.receive().await.expect("clean end").is_none());
    }

    #[tokio::test]
    async fn a_peer_that_dies_in_the_middle_of_a_message_is_noticed() {
        let (ours, theirs) = Master::pair().expect("pair");
        let (_keep, mut from_edge) = Master::from_std(ours).expect("ours").split();
        let mut theirs = StdUnixStream::from(theirs);
        theirs.write_all(&[9, 0, 0, 0, 0, 1]).expect("written");
        drop(theirs);
        assert!(matches!(from_edge.receive().await, Err(LinkError::Cut)));
    }

    #[tokio::test]
    async fn garbage_is_an_error_not_a_panic() {
        let (ours, theirs) = Master::pair().expect("pair");
        let (_keep, mut from_edge) = Master::from_std(ours).expect("ours").split();
        let mut theirs = StdUnixStream::from(theirs);
        theirs.write_all(&[3, 0, 0, 0, 2, 255, 255, 255]).expect("written");
        assert!(matches!(from_edge.receive().await, Err(LinkError::Codec(_))));
    }

    #[tokio::test]
    async fn announced_descriptors_that_did_not_come_are_an_error() {
        let (ours, theirs) = Master::pair().expect("pair");
        let (_keep, mut from_edge) = Master::from_std(ours).expect("ours").split();
        let mut theirs = StdUnixStream::from(theirs);
        theirs.write_all(&codec::encode(&ToMaster::Ready { generation: Generation(1) }, 2).expect("small")).expect("written");
        assert!(matches!(from_edge.receive().await, Err(LinkError::Descriptors { announced: 2, received: 0 })));
    }

    #[tokio::test]
    async fn a_peer_that_sends_descriptors_nobody_asked_for_does_not_use_up_ours() {
        let (ours, theirs) = Master::pair().expect("pair");
        let (_keep, mut from_edge) = Master::from_std(ours).expect("ours").split();
        let frame = codec::encode(&ToMaster::Ready { generation: Generation(1) }, 0).expect("small");
        let extra = [theirs.as_fd(); 100];
        for _ in 0..3 {
            assert_eq!(fds::send(theirs.as_fd(), &frame, &extra).expect("sent"), frame.len());
        }
        for _ in 0..2 {
            from_edge.receive().await.expect("whole");
        }
        assert!(matches!(from_edge.receive().await, Err(LinkError::Descriptors { received: 300, .. })));
    }

    #[tokio::test]
    async fn a_receive_given_up_loses_nothing() {
        let (master, edge) = ends();
        let (_keep, mut from_edge) = master.split();
        let (mut to_master, _) = edge.split();
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(5), from_edge.receive()).await.is_err());
        }
        to_master.send(&ToMaster::Ready { generation: Generation(3) }, &[]).await.expect("sent");
        let next = timeout(Duration::from_secs(20), from_edge.receive()).await.expect("in time").expect("good").expect("open");
        assert_eq!(next.0, ToMaster::Ready { generation: Generation(3) });
    }
}
