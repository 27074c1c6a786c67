//! The demo app: a small web app inside the binary, so that there is something to serve and supervise at once. Hidden subcommand `demo-app`.
//!
//! It is also the tests' patient: it can be slow to boot, crash, hang, flood its output, ignore TERM, and more, as its options say.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use thiserror::Error;

use crate::vocab::{UnitError, parse_duration};

mod app;
mod body;
mod route;
mod say;

/// What the demo app is told to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spec {
    pub listen: Listen,
    pub name: String,
    /// GATEWAY_INSTANCE
    pub instance: String,
    pub boot: Duration,
    /// Exits by itself so long after its start, with `exit_code`.
    pub exit_after: Option<Duration>,
    pub exit_code: u8,
    pub ignore_term: bool,
    pub never_listen: bool,
    pub unready_after: Option<Duration>,
    pub stop_accepting_after: Option<Duration>,
    pub flood: bool,
    pub close_stdout: bool,
    pub grandchild: bool,
    pub leak_mb_per_second: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    Port(u16),
    Socket(PathBuf),
    /// A worker: a line of output every second.
    Nothing,
}

/// Why the options were refused.
#[derive(Debug, Error)]
pub enum SpecError {
    #[error("unknown option {0:?}")]
    Unknown(String),
    #[error("{0} needs a value")]
    Missing(String),
    #[error("{option}: {value:?} is not a number that fits")]
    Number { option: String, value: String },
    #[error("{option}")]
    Time {
        option: String,
        #[source]
        source: UnitError,
    },
}

const USAGE: &str = "\
usage: gateway demo-app [--port N | --socket PATH | --worker] [--name NAME]
  without --port, --socket and --worker: PORT of the environment, else 8000
  --boot TIME                 listens only after that (\"3s\", \"250ms\")
  --exit-after TIME           exits by itself, with --exit-code N (default 1)
  --never-listen              runs, and never opens its port
  --unready-after TIME        /healthz gives 503 from then on
  --stop-accepting-after TIME keeps its port open and accepts nobody any more
  --ignore-term               goes on after TERM
  --flood                     writes lines to stdout as fast as they are taken
  --close-stdout              closes stdout and stderr
  --grandchild                starts a process of its own (`sleep 300`) and leaves it behind
  --leak N                    keeps N more MB each second
";

impl Spec {
    /// `env` answers for PORT and GATEWAY_INSTANCE.
    pub fn parse(args: impl IntoIterator<Item = String>, env: impl Fn(&str) -> Option<String>) -> Result<Self, SpecError> {
        let mut spec = Self {
            listen: Listen::Port(env("PORT").and_then(|port| port.parse().ok()).unwrap_or(8000)),
            name: "demo".into(),
            instance: env("GATEWAY_INSTANCE").unwrap_or_else(|| "0".into()),
            boot: Duration::ZERO,
            exit_after: None,
            exit_code: 1,
            ignore_term: false,
            never_listen: false,
            unready_after: None,
            stop_accepting_after: None,
            flood: false,
            close_stdout: false,
            grandchild: false,
            leak_mb_per_second: 0,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (option, inline) = match arg.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || inline.clone().or_else(|| args.next()).ok_or_else(|| SpecError::Missing(option.clone()));
            match option.as_str() {
                "--port" => spec.listen = Listen::Port(number(&option, &value()?)?),
                "--socket" => spec.listen = Listen::Socket(value()?.into()),
                "--worker" => spec.listen = Listen::Nothing,
                "--name" => spec.name = value()?,
                "--boot" => spec.boot = time(&option, &value()?)?,
                "--exit-after" => spec.exit_after = Some(time(&option, &value()?)?),
                "--exit-code" => spec.exit_code = number(&option, &value()?)?,
                "--unready-after" => spec.unready_after = Some(time(&option, &value()?)?),
                "--stop-accepting-after" => spec.stop_accepting_after = Some(time(&option, &value()?)?),
                "--leak" => spec.leak_mb_per_second = number(&option, &value()?)?,
                "--ignore-term" => spec.ignore_term = true,
                "--never-listen" => spec.never_listen = true,
                "--flood" => spec.flood = true,
                "--close-stdout" => spec.close_stdout = true,
                "--grandchild" => spec.grandchild = true,
                _ => return Err(SpecError::Unknown(option)),
            }
        }
        Ok(spec)
    }
}

fn number<N: std::str::FromStr>(option: &str, value: &str) -> Result<N, SpecError> {
    value.parse().map_err(|_| SpecError::Number { option: option.into(), value: value.into() })
}

fn time(option: &str, value: &str) -> Result<Duration, SpecError> {
    parse_duration(value).map_err(|source| SpecError::Time { option: option.into(), source })
}

/// Is the demo app until it is told to stop. `args` are those after `demo-app`.
pub fn run(args: impl IntoIterator<Item = String>) -> ExitCode {
    let spec = match Spec::parse(args, |name| std::env::var(name).ok()) {
        Ok(spec) => spec,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprint!("gateway demo-app: {error}{cause}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match app::run(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway demo-app: could not {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Spec, SpecError> {
        Spec::parse(args.iter().map(|arg| (*arg).to_owned()), |name| (name == "PORT").then(|| "8100".to_owned()))
    }

    #[test]
    fn options_say_what_it_is() {
        assert_eq!(parse(&[]).expect("valid").listen, Listen::Port(8100));
        assert_eq!(parse(&["--port", "1"]).expect("valid").listen, Listen::Port(1));
        assert_eq!(parse(&["--socket=/x"]).expect("valid").listen, Listen::Socket("/x".into()));
        let spec = parse(&["--worker", "--exit-after", "250ms", "--exit-code", "3", "--ignore-term"]).expect("valid");
        assert_eq!(
            (spec.listen, spec.exit_after, spec.exit_code, spec.ignore_term),
            (Listen::Nothing, Some(Duration::from_millis(250)), 3, true)
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [vec!["--prot", "1"], vec!["--port"], vec!["--port", "99999"], vec!["--boot", "3"], vec!["x"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
