//! Starts the two processes: the only place where the command line meets `boot`.

use std::path::Path;

use super::{check, exit::Exit, terminal::say};
use crate::config::load;

/// Runs the master until it ends.
pub fn master(config: Option<&Path>) -> Exit {
    let path = match load::find(config) {
        Ok(path) => path,
        Err(missing) => {
            say(&check::not_found(&missing));
            return Exit::Configuration;
        }
    };
    if let Err(complaints) = load::load(&path, &super::environment) {
        say(&complaints.to_string());
        return Exit::Configuration;
    }
    say("error: could not start: this build has no master yet");
    Exit::Failed
}

/// Is the edge until the master says otherwise.
pub fn edge() -> Exit {
    say("error: could not start: this build has no edge yet");
    Exit::Failed
}
