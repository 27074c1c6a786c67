//! Looking at files as another user would: the kernel is asked, so that access lists, groups and read-only mounts count.
//!
//! Shape: the identity is that of one thread, which ends with the look; the process stays what it is. Where it cannot be changed nothing is known, and nobody is accused.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::child::Identity;

/// What is wanted of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// Of a directory: to go through it. Of a file: to run it.
    Enter,
    Read,
    /// Of a directory: to make files in it.
    Write,
}

/// What keeps somebody from a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// The path itself, or a directory on the way to it.
    pub at: PathBuf,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// Its mode, or its access list.
    Closed,
    /// Its file system, or how it is mounted.
    ReadOnly,
}

/// Does `look` as `who`; `None`: that cannot be, for the process may not change users.
pub fn look_as<T: Send>(who: &Identity, look: impl FnOnce() -> T + Send) -> Option<T> {
    if !who.changes() {
        return Some(look());
    }
    std::thread::scope(|scope| scope.spawn(|| become_one(who).then(look)).join().ok().flatten())
}

/// Of this thread alone; false: the kernel did not let us.
fn become_one(who: &Identity) -> bool {
    let groups: Vec<rustix::process::Gid> = who.groups().iter().map(|gid| rustix::process::Gid::from_raw(gid.as_raw())).collect();
    let (gid, uid) = (rustix::process::Gid::from_raw(who.gid.as_raw()), rustix::process::Uid::from_raw(who.uid.as_raw()));
    set_thread_groups(&groups).and_then(|()| set_thread_res_gid(gid, gid, gid)).and_then(|()| set_thread_res_uid(uid, uid, uid)).is_ok()
}

/// What keeps whoever asks from a path; `None`: nothing, or it is not there.
#[must_use]
pub fn obstacle(path: &Path, want: Want) -> Option<Obstacle> {
    let flags = match want {
        Want::Enter => AccessFlags::X_OK,
        Want::Read => AccessFlags::R_OK,
        Want::Write => AccessFlags::W_OK | AccessFlags::X_OK,
    };
    let why = refusal(path, flags)?;
    // The first that is closed: what lies behind it cannot be seen.
    let mut way: Vec<&Path> = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
    way.reverse();
    let closed = way.into_iter().find(|dir| refusal(dir, AccessFlags::X_OK) == Some(Why::Closed));
    match closed {
        Some(dir) => Some(Obstacle { at: dir.into(), why: Why::Closed }),
        None => Some(Obstacle { at: path.into(), why }),
    }
}

fn refusal(path: &Path, flags: AccessFlags) -> Option<Why> {
    match faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS) {
        Err(Errno::EACCES | Errno::EPERM) => Some(Why::Closed),
        Err(Errno::EROFS) => Some(Why::ReadOnly),
        Ok(()) | Err(_) => None,
    }
}

/// The nearest directory that is there: where what is missing would be made.
///
/// Errors: something that is no directory stands in the way.
pub fn ground(path: &Path) -> Result<PathBuf, PathBuf> {
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        match std::fs::metadata(dir) {
            Ok(data) if data.is_dir() => return Ok(dir.into()),
            Ok(_) => return Err(dir.into()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // It is there, and closed to us: [`obstacle`] says so.
            Err(_) => return Ok(dir.into()),
        }
    }
    Ok("/".into())
}
