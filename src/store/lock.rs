//! One master a state directory.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use thiserror::Error;

/// Why the state directory could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    #[error("start: another gateway{} runs on state directory {}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), state.display())]
    Held { pid: Option<u32>, state: PathBuf },
    #[error("make state directory {}", state.display())]
    Make {
        state: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("lock {}", path.display())]
    Os {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Held { .. } => Some("stop that one, or give this one its own `state` and `run`"),
            Self::Make { source, .. } | Self::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("another user made it? Give it to this one (chown -R), set `state` to a directory of this user's, or start as root")
            }
            Self::Make { .. } | Self::Os { .. } => None,
        }
    }
}

/// The state directory is ours for as long as this lives.
///
/// Shape: a flock on STATE/lock, so the kernel gives it back however we end; our pid is written inside. The descriptor is closed on exec: children never hold it.
/// The file stays: removing it would let two masters lock two files of one name.
#[derive(Debug)]
pub struct StateLock {
    file: Flock<File>,
}

impl StateLock {
    /// Takes `state`, made with mode 0700 if it is not there yet.
    ///
    /// Errors: [`LockError::Held`] names who has it; never waits.
    pub fn take(state: &Path) -> Result<Self, LockError> {
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|source| LockError::Make { state: state.into(), source })?;
        let path = state.join("lock");
        let os = |source| LockError::Os { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(os)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                note(&mut file).map_err(os)?;
                Ok(Self { file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // Unreadable or still empty: its holder is just starting. It holds the lock all the same.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                Err(LockError::Held { pid, state: state.into() })
            }
            Err((_, errno)) => Err(os(errno.into())),
        }
    }
}

impl StateLock {
    /// Takes over the descriptor of the binary before: the lock belongs to the open file, so it was never let go.
    ///
    /// Errors: it is not the lock of `state` after all.
    pub fn adopt(fd: OwnedFd, state: &Path) -> Result<Self, LockError> {
        match Flock::lock(File::from(fd), FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file }),
            Err((_, errno)) => Err(LockError::Os { path: state.join("lock"), source: errno.into() }),
        }
    }
}

impl AsFd for StateLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn note(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_second_master_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("a/state");
        let first = StateLock::take(&state).expect("free");
        let error = StateLock::take(&state).expect_err("taken");
        let expected = format!("start: another gateway (pid {}) runs on state directory {}", std::process::id(), state.display());
        assert_eq!(error.to_string(), expected);
        assert!(error.advice().is_some());
        drop(first);
        StateLock::take(&state).expect("free again");
    }

    #[test]
    fn a_lock_that_is_handed_over_is_never_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = StateLock::take(dir.path()).expect("free");
        let copy = first.as_fd().try_clone_to_owned().expect("a copy");
        // As an exec does: the original goes without a word, the copy stays.
        std::mem::forget(first);
        let second = StateLock::adopt(copy, dir.path()).expect("ours");
        assert!(matches!(StateLock::take(dir.path()), Err(LockError::Held { .. })));
        drop(second);
        StateLock::take(dir.path()).expect("free again");
    }

    #[test]
    fn a_stale_pid_is_overwritten_and_the_directory_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        drop(StateLock::take(&state).expect("free"));
        std::fs::write(state.join("lock"), "4194304999\nrubbish").expect("written");
        let _held = StateLock::take(&state).expect("nobody holds it, whatever it says");
        assert_eq!(std::fs::read_to_string(state.join("lock")).expect("there"), format!("{}\n", std::process::id()));
        assert_eq!(std::fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
    }
}
