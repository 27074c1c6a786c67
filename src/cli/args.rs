//! The words of the command line.
//!
//! Shape: commands of the contract that are not built yet are known here, hidden from the help, and refused by name.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::vocab::{AppName, Host};

const EXAMPLES: &str = "\
Examples:
  gateway init                        write a first gateway.toml
  gateway check                       look for faults before anything is live
  gateway -c /etc/gateway/site.toml   run until TERM or INT
  gateway reload                      take up a changed configuration without dropping a request
  gateway status --watch              see how it goes
  gateway upgrade                     take up a new binary without dropping a request
  gateway restart web                 one instance of the app after the other
  gateway certs                       which certificates there are, when they are renewed, and what went wrong

Signals: HUP reload · USR1 reopen logs · USR2 upgrade · TERM, INT drain and stop · a second one: stop now
Exit codes: 0 done · 1 refused or failed · 64 usage · 69 not running · 77 no permission · 78 bad configuration";

/// One binary and one TOML file that serve, guard and supervise the apps of a small server.
///
/// Without a command it runs in the foreground until TERM or INT.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, max_term_width = 110, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// The configuration [default: ./gateway.toml, then /etc/gateway/gateway.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The control socket of the gateway that is meant [default: RUN/gateway.sock, with RUN from the configuration]
    #[arg(long, global = true, value_name = "PATH", env = "GATEWAY_SOCKET", hide_env_values = true)]
    pub socket: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read the configuration and say everything that is wrong with it
    Check {
        /// Not supported yet: also ask upstreams, name servers and certificates
        #[arg(long, hide = true)]
        live: bool,
    },
    /// Show the configuration, or describe its language
    #[command(subcommand)]
    Config(Config),
    /// Write a first configuration with comments
    #[command(after_help = "Examples:\n  gateway init\n  gateway -c conf/gateway.toml init\n\nNever overwrites a file.")]
    Init,
    /// Take up the changed configuration; if anything is wrong with it, nothing changes
    Reload,
    /// How everything goes
    #[command(after_help = "Examples:\n  gateway status --watch\n  gateway status --json | jq '.upstreams[] | select(.panic)'")]
    Status {
        #[command(flatten)]
        form: Form,
        /// Again every two seconds
        #[arg(long, short)]
        watch: bool,
    },
    /// The apps, instance by instance: state, pid, restarts, memory, last exit
    Apps {
        #[command(flatten)]
        form: Form,
    },
    /// The upstreams, server by server: who is up, and why not
    Upstreams {
        #[command(flatten)]
        form: Form,
    },
    /// The rate limits: keys in use, requests passed and rejected
    Zones {
        #[command(flatten)]
        form: Form,
    },
    /// The certificates: whose they are, until when, when and why they are renewed, what went wrong
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  gateway certs\n  gateway certs --json | jq '.[] | select(.at_risk)'\n  gateway certs renew example.com"
    )]
    Certs {
        #[command(flatten)]
        form: Form,
        #[command(subcommand)]
        command: Option<Certs>,
    },
    /// Start an app that is stopped, or that is cooling down after too many exits
    Start(App),
    /// Stop an app: requests in flight are finished first
    Stop(App),
    /// Restart an app, one instance after the other
    Restart(App),
    /// Replace the running gateway by the binary on disk: same PID, apps untouched, no request lost
    #[command(
        after_help = "Example:\n  install gateway-new /usr/local/bin/gateway && gateway upgrade\n\nA binary that fails its self-check changes nothing."
    )]
    Upgrade,
    /// Write completions for a shell to standard output
    #[command(after_help = "Example:\n  gateway completions bash > /etc/bash_completion.d/gateway")]
    Completions { shell: clap_complete::Shell },

    /// The process that touches the network; started by gateway itself
    #[command(hide = true)]
    Edge,
    /// Whether this binary can take over from the one that runs; asked by that one before an upgrade
    #[command(hide = true)]
    SelfCheck,
    /// An app to try gateway with
    #[command(hide = true, disable_help_flag = true)]
    DemoApp(Rest),

    /// Not supported yet: release a new version of an app
    #[command(hide = true)]
    Deploy(Rest),
    /// Not supported yet: go back to the release before
    #[command(hide = true)]
    Rollback(Rest),
    /// Not supported yet: show the output of an app
    #[command(hide = true)]
    Logs(Rest),
    /// Not supported yet: list banned addresses
    #[command(hide = true)]
    Bans(Rest),
    /// Not supported yet: ban an address
    #[command(hide = true)]
    Ban(Rest),
    /// Not supported yet: end a ban
    #[command(hide = true)]
    Unban(Rest),
    /// Not supported yet: take a server out of rotation
    #[command(hide = true)]
    Drain(Rest),
    /// Not supported yet: put a server back into rotation
    #[command(hide = true)]
    Undrain(Rest),
    /// Not supported yet: show a maintenance page
    #[command(hide = true)]
    Maintenance(Rest),
    /// Not supported yet: tell what became of a request
    #[command(hide = true)]
    Why(Rest),
    /// Not supported yet: change the number of processes of an app
    #[command(hide = true)]
    Scale(Rest),
    /// Not supported yet: translate the configuration of another program
    #[command(hide = true)]
    Import(Rest),
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Config {
    /// What is in force with this file: includes read, defaults filled in, secrets masked
    Show,
    /// JSON Schema of gateway.toml, for editors
    Schema,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Certs {
    /// Order a certificate now, whatever its age; the old one is served until the new one is there
    Renew {
        /// A name that the certificate is for
        #[arg(value_parser = Host::parse)]
        host: Host,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Form {
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct App {
    /// The NAME of [app.NAME]
    #[arg(value_parser = AppName::parse)]
    pub app: AppName,
}

#[derive(Clone, Debug, Args)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub args: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_what_works() {
        let help = |path: &[&str]| {
            let mut command = Cli::command().term_width(110);
            command.build();
            let found = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).expect("a command"));
            found.render_long_help().to_string()
        };
        insta::assert_snapshot!("help", help(&[]));
        insta::assert_snapshot!("help_status", help(&["status"]));
        insta::assert_snapshot!("help_config", help(&["config"]));
        insta::assert_snapshot!("help_certs", help(&["certs"]));
        insta::assert_snapshot!("help_restart", help(&["restart"]));
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for words in [["gateway", "-c", "x.toml", "reload"], ["gateway", "reload", "--config", "x.toml"]] {
            let cli = Cli::try_parse_from(words).expect("good words");
            assert_eq!(cli.config, Some("x.toml".into()));
        }
        assert!(Cli::try_parse_from(["gateway"]).expect("good words").command.is_none());
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        let kind = |words: &[&str]| Cli::try_parse_from(words).expect_err("wrong").kind();
        assert_eq!(kind(&["gateway", "relaod"]), ErrorKind::InvalidSubcommand);
        assert_eq!(kind(&["gateway", "start"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["gateway", "start", "../x"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["gateway", "certs", "renew"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["gateway", "certs", "renew", "https://a.example"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["gateway", "--version"]), ErrorKind::DisplayVersion);
    }

    #[test]
    fn what_is_not_built_yet_takes_any_words_so_that_it_can_be_refused_by_name() {
        for words in [&["gateway", "logs", "web", "-f"][..], &["gateway", "ban", "1.2.3.4", "--for", "1h"], &["gateway", "deploy"]] {
            assert!(Cli::try_parse_from(words).is_ok(), "{words:?}");
        }
    }
}
