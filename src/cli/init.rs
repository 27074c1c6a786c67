//! `gateway init`: a first configuration, with comments, that runs as it is.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Where it is written when nobody names a file.
pub const FILE: &str = "gateway.toml";
const FIRST: &str = include_str!("first.toml");

/// Why no first configuration was written.
#[derive(Debug, Error)]
pub enum InitError {
    #[error("write {}: it exists, and is never overwritten", .path.display())]
    Exists { path: PathBuf },
    #[error("write {}", .path.display())]
    Os {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Writes it; gives what to do next.
///
/// Errors: [`InitError`]; a file that exists stays as it is.
pub fn init(path: Option<&Path>) -> Result<String, InitError> {
    let path = path.unwrap_or_else(|| Path::new(FILE));
    let os = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists { path: path.into() },
        _ => InitError::Os { path: path.into(), source },
    };
    // One call decides that it does not exist and makes it: nothing can come between.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(os)?;
    file.write_all(FIRST.as_bytes()).and_then(|()| file.sync_all()).map_err(os)?;
    let shown = path.display();
    Ok(format!("wrote {shown}\nnext: `gateway check -c {shown}`, then `gateway -c {shown}`, then http://127.0.0.1:8080/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::{CheckOutcome, Depth, check};

    #[test]
    fn the_first_configuration_is_good_and_never_overwrites() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gateway.toml");
        init(Some(&path)).expect("written");
        match check(Some(&path), Depth::Text) {
            CheckOutcome::Good { plan, .. } => assert_eq!(plan.sites.len(), 1),
            other => panic!("{}", other.text(crate::config::complaint::Colours::Off)),
        }
        fs::write(&path, "mine").expect("written");
        assert!(matches!(init(Some(&path)), Err(InitError::Exists { .. })));
        assert_eq!(fs::read_to_string(&path).expect("read"), "mine");
    }
}
