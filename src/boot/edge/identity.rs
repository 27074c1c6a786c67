//! Who the edge is: as many descriptors as it may have, no privileges, and gone when its master is.

use std::io;

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Pid, Uid, User, getppid, setgid, setgroups, setuid},
};
use thiserror::Error;

/// Why the edge could not become who it should be.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("find user {0:?}")]
    Unknown(String),
    #[error("look up user {0:?}")]
    Lookup(String, #[source] io::Error),
    #[error("{0}")]
    Refused(&'static str, #[source] io::Error),
    #[error("go on: the master has gone")]
    Orphan,
}

/// Who started us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent(Pid);

impl Parent {
    /// To be called first: later it may be someone else.
    #[must_use]
    pub fn now() -> Self {
        Self(getppid())
    }
}

/// Raises the limit on descriptors, drops to `user` when root, and dies with the master from here on.
///
/// Shape: before any other thread exists. A death signal is forgotten when the user changes, so it is set afterwards, and then the parent is looked at again.
pub fn settle(user: &str, parent: &Parent) -> Result<(), IdentityError> {
    let refused = |what| move |error: nix::Error| IdentityError::Refused(what, error.into());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused("read the limit on descriptors"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused("raise the limit on descriptors"))?;
    if Uid::effective().is_root() && user != "root" {
        let (uid, gid) = look_up(user)?;
        setgroups(&[gid]).map_err(refused("leave the groups of root"))?;
        setgid(gid).map_err(refused("change group"))?;
        setuid(uid).map_err(refused("change user"))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(refused("ask to die with the master"))?;
    prctl::set_no_new_privs().map_err(refused("give up new privileges"))?;
    if Parent::now() == *parent { Ok(()) } else { Err(IdentityError::Orphan) }
}

/// By name or by number, as the master looked it up when it made our directory: a number that no user has is taken as it is, with the group of the same number.
fn look_up(user: &str) -> Result<(Uid, Gid), IdentityError> {
    let lookup = |error: nix::Error| IdentityError::Lookup(user.to_owned(), error.into());
    let of = |user: User| (user.uid, user.gid);
    if let Some(named) = User::from_name(user).map_err(lookup)? {
        return Ok(of(named));
    }
    // The highest number means "nobody at all" to the kernel.
    let number = user.parse::<u32>().ok().filter(|number| *number != u32::MAX).ok_or_else(|| IdentityError::Unknown(user.to_owned()))?;
    let known = User::from_uid(Uid::from_raw(number)).map_err(lookup)?;
    Ok(known.map_or((Uid::from_raw(number), Gid::from_raw(number)), of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_whose_user_is_written_as_a_number_starts() {
        assert_eq!(look_up("0").expect("root"), (Uid::from_raw(0), Gid::from_raw(0)));
        assert_eq!(look_up("root").expect("root").0, Uid::from_raw(0));
        assert_eq!(look_up("4100000123").expect("a number that nobody has"), (Uid::from_raw(4_100_000_123), Gid::from_raw(4_100_000_123)));
        assert!(matches!(look_up("nobody-of-that-name"), Err(IdentityError::Unknown(_))));
    }
}
