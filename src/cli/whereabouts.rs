//! Where the running gateway listens for commands.
//!
//! Shape: `--socket`, else RUN/gateway.sock of the configuration. One that does not load any more must not keep anybody from asking the gateway that still runs:
//!        then only `run` and `state` are looked for in its text, and that is said.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::terminal::say;
use crate::config::load;

const SOCKET: &str = "gateway.sock";
const RUN_ROOT: &str = "/run/gateway";

/// Why the socket is not known.
#[derive(Debug, Error)]
pub enum WhereaboutsError {
    #[error(transparent)]
    NotFound(#[from] load::NotFound),
    #[error("read {}", file.display())]
    Denied {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("tell where gateway listens: {} has errors, and the value of `{key}` in it is not plain text", file.display())]
    NotPlain { file: PathBuf, key: &'static str },
}

impl WhereaboutsError {
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotFound(error) => error.advice(),
            Self::Denied { .. } => "ask as the user who runs gateway, or name its socket with --socket",
            Self::NotPlain { .. } => "name the socket with --socket, or see `gateway check`",
        }
    }
}

/// Which gateway is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Meant {
    pub socket: PathBuf,
    /// The file, absolute, that it must run; `None`: whichever runs there.
    pub config: Option<PathBuf>,
}

/// The gateway of the configuration that was named or found; a socket that was named alone stands for whoever answers there.
///
/// Errors: [`WhereaboutsError`]; whether anybody listens there is another question.
pub fn meant(explicit: Option<&Path>, config: Option<&Path>) -> Result<Meant, WhereaboutsError> {
    if let Some(path) = explicit {
        return Ok(Meant { socket: path.into(), config: config.and_then(whole) });
    }
    let root = nix::unistd::geteuid().is_root();
    let file = match load::find(config) {
        Ok(file) => file,
        // Started elsewhere, or its configuration is gone: it may stand where it stands by default.
        Err(error) => {
            let found = defaults(root).into_iter().find(|path| path.exists());
            return found.map(|socket| Meant { socket, config: None }).ok_or(error.into());
        }
    };
    Ok(Meant { socket: socket(&file, root)?, config: whole(&file) })
}

/// From anywhere; a name that is no text cannot be told to gateway.
fn whole(file: &Path) -> Option<PathBuf> {
    std::path::absolute(file).ok().filter(|path| path.to_str().is_some())
}

/// RUN/gateway.sock of a configuration.
fn socket(file: &Path, root: bool) -> Result<PathBuf, WhereaboutsError> {
    if let Err(source) = fs::File::open(file)
        && source.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(WhereaboutsError::Denied { file: file.into(), source });
    }
    let run = match load::load_running(file, &|name| std::env::var(name).ok()) {
        Ok(plan) => plan.run,
        Err(complaints) => {
            let text = fs::read_to_string(file).unwrap_or_default();
            let run = scan(&text, root, file.parent().unwrap_or(Path::new("")))
                .map_err(|key| WhereaboutsError::NotPlain { file: file.into(), key })?;
            let errors = if complaints.len() == 1 { "an error".to_owned() } else { format!("{} errors", complaints.len()) };
            say(&format!("note: {} has {errors} (`gateway check` shows them); asking at {}", file.display(), run.join(SOCKET).display()));
            run
        }
    };
    let path = run.join(SOCKET);
    // Defaults differ for root: a user who asks about the machine's gateway is told that he may not, rather than that there is none.
    let machine = Path::new(RUN_ROOT).join(SOCKET);
    Ok(if !root && !path.exists() && machine.exists() { machine } else { path })
}

fn defaults(root: bool) -> Vec<PathBuf> {
    let machine = Path::new(RUN_ROOT).join(SOCKET);
    if root { vec![machine] } else { vec![Path::new("gateway-state/run").join(SOCKET), machine] }
}

/// RUN from a text that need not be a good configuration: a line `run = "…"` or `state = "…"` before the first table. What it names starts at `dir`.
///
/// Errors: the key whose value cannot be told from the text alone.
fn scan(text: &str, root: bool, dir: &Path) -> Result<PathBuf, &'static str> {
    let value = |key: &'static str| {
        let line = text.lines().map(str::trim).take_while(|line| !line.starts_with('[')).find_map(|line| {
            let rest = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
            Some(rest.trim_start())
        });
        let Some(line) = line else { return Ok(None) };
        let quote = line.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(key)?;
        let (value, _) = line[1..].split_once(quote).ok_or(key)?;
        if value.is_empty() || value.contains(['{', '\\']) { Err(key) } else { Ok(Some(PathBuf::from(value))) }
    };
    if let Some(run) = value("run")? {
        return Ok(dir.join(run));
    }
    let state = value("state")?;
    Ok(if root { RUN_ROOT.into() } else { state.map_or_else(|| "gateway-state".into(), |state| dir.join(state)).join("run") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_still_tells_where_its_gateway_listens() {
        let scan = |text: &str, root: bool| scan(text, root, Path::new("/conf"));
        assert_eq!(scan("run = '/run/x' # here\n[[[", false), Ok("/run/x".into()));
        assert_eq!(scan("run = \"r\"\n[[[", true), Ok("/conf/r".into()), "relative to the file, as a good one is read");
        assert_eq!(scan("state=\"/s\"\n[app.web]\nrun = \"/not/this\"", false), Ok("/s/run".into()));
        assert_eq!(scan("state = \"s\"", false), Ok("/conf/s/run".into()));
        assert_eq!(scan("state = \"/s\"", true), Ok("/run/gateway".into()));
        assert_eq!(scan("", false), Ok("gateway-state/run".into()));
        assert_eq!(scan("running = 1\nrun = \"{env.RUN}\"", false), Err("run"));
        assert_eq!(scan("state = 3", false), Err("state"));
    }

    #[test]
    fn the_named_socket_wins() {
        let meant = |config| meant(Some(Path::new("/x.sock")), config).expect("named");
        assert_eq!(meant(None), Meant { socket: "/x.sock".into(), config: None });
        assert_eq!(meant(Some(Path::new("/nowhere.toml"))), Meant { socket: "/x.sock".into(), config: Some("/nowhere.toml".into()) });
    }
}
