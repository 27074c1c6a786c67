//! Starts the two processes: the only place where the command line meets `boot`.

use std::{path::Path, process::ExitCode};

use super::{
    check,
    exit::Exit,
    terminal::{print, say},
};
use crate::{boot, config::load};

/// Runs the master until it ends. To be called before any thread is started.
pub fn master(config: Option<&Path>) -> ExitCode {
    let path = match load::find(config) {
        Ok(path) => path,
        Err(missing) => {
            say(&check::not_found(&missing));
            return Exit::Configuration.into();
        }
    };
    match boot::master::run(&path) {
        Ok(()) => Exit::Done.into(),
        Err(fatal) => {
            say(&fatal.story());
            fatal.exit_code().into()
        }
    }
}

/// Whether this binary can go on with the state that it was given: said in words that the asking one knows.
pub fn self_check(config: Option<&Path>) -> Exit {
    let path = match load::find(config) {
        Ok(path) => path,
        Err(missing) => {
            say(&check::not_found(&missing));
            return Exit::Configuration;
        }
    };
    match boot::master::self_check(&path) {
        Ok(word) => print(&format!("{word}\n")),
        Err(refusal) => {
            say(&refusal.story());
            // What it says is the answer; the exit code says no.
            let _ = print(&format!("{}\n", boot::master::REFUSED));
            Exit::Failed
        }
    }
}

/// Is the edge until the master says otherwise.
pub fn edge() -> ExitCode {
    boot::edge::run()
}
