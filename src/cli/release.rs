//! `deploy` and `rollback`: asked for, followed, and left to go on when the one who asked has seen enough.

use std::{
    io,
    path::{Path, PathBuf, absolute},
    sync::Arc,
};

use thiserror::Error;

use super::{
    args::{Cli, Deploy},
    control::{self, ControlError},
    exit::Exit,
    meant,
    progress::Display,
    refused,
    terminal::{complain, say},
    told_done,
    whereabouts::Meant,
};
use crate::ipc::control::Request;

/// Why gateway was not even asked.
#[derive(Debug, Error)]
pub enum DirError {
    #[error("deploy {}", dir.display())]
    Look {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("deploy {}: it is no directory", dir.display())]
    NotDir { dir: PathBuf },
    #[error("deploy {}: its name is no text (UTF-8)", dir.display())]
    NotText { dir: PathBuf },
    #[error("wait for an answer")]
    Wait(#[source] io::Error),
}

/// `gateway deploy APP [--dir D]`
pub fn deploy(cli: &Cli, Deploy { app, dir }: &Deploy) -> Exit {
    match dir.as_deref().map(place).transpose() {
        Ok(dir) => follow(cli, Request::Deploy { app: app.clone(), dir }),
        Err(error) => {
            complain(&error, None);
            Exit::of(&error)
        }
    }
}

/// As it is meant here: gateway stands elsewhere. Links are gateway's to follow.
fn place(dir: &Path) -> Result<PathBuf, DirError> {
    let look = |source| DirError::Look { dir: dir.into(), source };
    let whole = absolute(dir).map_err(look)?;
    if !whole.metadata().map_err(look)?.is_dir() {
        return Err(DirError::NotDir { dir: dir.into() });
    }
    if whole.to_str().is_none() {
        return Err(DirError::NotText { dir: dir.into() });
    }
    Ok(whole)
}

/// Asks, and shows how it goes until it is done or Ctrl-C.
pub fn follow(cli: &Cli, request: Request) -> Exit {
    let meant = match meant(cli) {
        Ok(meant) => meant,
        Err(exit) => return exit,
    };
    let display = Arc::new(Display::stderr());
    let outcome = wait(meant, request, display.clone());
    display.end();
    match outcome {
        Ok(Some(Ok(value))) => told_done(&value),
        Ok(Some(Err(error))) => refused(&error),
        Ok(None) => {
            say("gateway goes on with it: `gateway apps` shows how it stands");
            Exit::Interrupted
        }
        Err(source) => {
            complain(&DirError::Wait(source), None);
            Exit::Failed
        }
    }
}

type Answer = Result<serde_json::Value, ControlError>;

/// `None`: interrupted.
fn wait(meant: Meant, request: Request, display: Arc<Display>) -> io::Result<Option<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let outcome = runtime.block_on(async {
        let asked = tokio::task::spawn_blocking(move || control::ask(&meant, &request, &mut |text| display.word(text)));
        tokio::select! {
            answer = asked => answer.map(Some).map_err(io::Error::other),
            caught = tokio::signal::ctrl_c() => caught.map(|()| None),
        }
    });
    // The thread that still reads ends with this process.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_from_where_one_stands() {
        let here = std::env::current_dir().expect("here");
        assert_eq!(place(Path::new("src")).expect("a directory"), here.join("src"));
        assert!(matches!(place(Path::new("Cargo.toml")), Err(DirError::NotDir { .. })));
        assert!(matches!(place(Path::new("no-such-directory")), Err(DirError::Look { .. })));
    }
}
