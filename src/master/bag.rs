//! Descriptors that go along with this process into another binary.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::ipc::fds;

/// Copies of descriptors that go along. Dropped: as if nothing had been.
#[derive(Debug, Default)]
pub struct Bag {
    held: Vec<OwnedFd>,
}

impl Bag {
    /// Gives the number at which the next binary finds it.
    pub fn put(&mut self, fd: impl AsFd) -> io::Result<RawFd> {
        let copy = fd.as_fd().try_clone_to_owned()?;
        let number = copy.as_raw_fd();
        self.held.push(copy);
        Ok(number)
    }

    pub fn add(&mut self, other: Self) {
        self.held.extend(other.held);
    }

    /// Kept open over an exec from here on.
    pub(super) fn open(&self) -> io::Result<()> {
        for fd in &self.held {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }
}

/// Takes a descriptor that came along. Each number once.
///
/// Errors: nothing stands there.
pub fn claim(number: RawFd) -> io::Result<OwnedFd> {
    fds::inherited(number)
}
