//! STATE/releases/APP.json: what of each app was deployed.
//!
//! Shape: private (0600), written whole; one that is damaged is an error to tell and nothing to stop for.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::atomic::{self, PRIVATE, WriteError};
use crate::{rules::release::History, vocab::AppName};

/// A history is a few releases, each with a path and perhaps a reason.
const LONGEST: u64 = 1024 * 1024;

/// Why what was deployed is not known.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("understand {}", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// Why what was deployed could not be written down.
#[derive(Debug, Error)]
pub enum SaveError {
    #[error("make {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("put it into words")]
    Words(#[from] serde_json::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Where the histories lie. Everything here blocks for the disk.
#[derive(Clone, Debug)]
pub struct Releases {
    dir: PathBuf,
}

impl Releases {
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { dir: state.join("releases") }
    }

    /// Empty where nothing was ever deployed.
    pub fn read(&self, app: &AppName) -> Result<History, ReadError> {
        let path = self.path(app);
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)) {
            Ok(_) => serde_json::from_slice(&text).map_err(|source| ReadError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(History::default()),
            Err(source) => Err(ReadError::Read { path, source }),
        }
    }

    pub fn write(&self, app: &AppName, history: &History) -> Result<(), SaveError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|source| SaveError::Make { path: self.dir.clone(), source })?;
        let text = format!("{}\n", serde_json::to_string_pretty(history)?);
        Ok(atomic::write(&self.path(app), text.as_bytes(), PRIVATE)?)
    }

    fn path(&self, app: &AppName) -> PathBuf {
        self.dir.join(format!("{app}.json"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use jiff::Timestamp;

    use super::*;
    use crate::rules::release::Candidate;

    #[test]
    fn a_history_is_private_and_read_as_it_was_written() {
        let state = tempfile::tempdir().expect("a directory");
        let (releases, app) = (Releases::of(state.path()), AppName::parse("web").expect("valid"));
        let mut history = releases.read(&app).expect("none yet");
        assert_eq!(history, History::default());
        let id = history.next_id(Timestamp::UNIX_EPOCH);
        let candidate = Candidate { id, dir: "/r/1".into(), at: "1970-01-01T00:00:00.000Z".into(), by: 0 };
        history.deployed(candidate, None, Some("/app".into()));
        releases.write(&app, &history).expect("written");
        assert_eq!(releases.read(&app).expect("good"), history);
        let mode = |path: &str| fs::metadata(state.path().join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("releases"), mode("releases/web.json")), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_file_is_an_error_never_a_panic() {
        let state = tempfile::tempdir().expect("a directory");
        let (releases, app) = (Releases::of(state.path()), AppName::parse("web").expect("valid"));
        releases.write(&app, &History::default()).expect("written");
        for damage in [&b""[..], b"{", b"\xff\xfe", b"[]", &[b' '; LONGEST as usize + 1]] {
            fs::write(state.path().join("releases/web.json"), damage).expect("written");
            assert!(matches!(releases.read(&app), Err(ReadError::Damaged { .. })));
        }
        fs::remove_file(state.path().join("releases/web.json")).expect("removed");
        fs::create_dir(state.path().join("releases/web.json")).expect("made");
        assert!(matches!(releases.read(&app), Err(ReadError::Read { .. })));
    }
}
