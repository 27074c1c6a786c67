//! Bytes and descriptors over a non-blocking unix stream: one sendmsg, one recvmsg.
//!
//! Shape: descriptors travel with the first byte of their frame, so they have arrived when the frame is whole; received ones are close-on-exec.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Sends some of `bytes`, and all `descriptors` with the first of them.
///
/// Errors: `WouldBlock` when nothing could be sent; then the descriptors were not sent either.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT, None)?;
    Ok(sent)
}

/// Receives some bytes into `buffer`, and appends the descriptors that came with them.
///
/// Errors: `WouldBlock` when nothing is there; 0 bytes: the peer closed. When the kernel had to cut the descriptors (none left in this process) the link is lost.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else knows their numbers, so each is owned here alone.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
}

/// A copy of `fd` that is close-on-exec.
pub fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// Takes over a descriptor that this process was started with (the edge's link is 3, its access log 4), and makes it close-on-exec.
///
/// Errors: when nothing stands at that number. Call it once for each number, before any thread is started.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only asks about the number; an unused one is reported as EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; changes a flag of an open descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, our parent put it there for us, and the caller takes each number once: this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_works() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let (mut left, right) = UnixStream::pair().expect("pair");
        assert_eq!(send(ours.as_fd(), b"take", &[right.as_fd(), right.as_fd()]).expect("sent"), 4);
        drop(right);
        let mut buffer = [0; 16];
        let mut got = Vec::new();
        assert_eq!(receive(theirs.as_fd(), &mut buffer, &mut got).expect("received"), 4);
        assert_eq!((&buffer[..4], got.len()), (&b"take"[..], 2));
        let mut right = UnixStream::from(got.remove(0));
        left.write_all(b"hi").expect("written");
        let mut text = [0; 2];
        right.read_exact(&mut text).expect("read");
        assert_eq!(&text, b"hi");
        let flags = nix::fcntl::fcntl(got[0].as_fd(), nix::fcntl::FcntlArg::F_GETFD).expect("open");
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn an_empty_socket_would_block_and_a_closed_one_ends() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let mut buffer = [0; 16];
        let error = receive(theirs.as_fd(), &mut buffer, &mut Vec::new()).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut buffer, &mut Vec::new()).expect("end"), 0);
    }

    #[test]
    fn a_number_nobody_opened_is_an_error() {
        assert!(inherited(987).is_err());
    }
}
