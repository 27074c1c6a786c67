//! The words of the command line.
//!
//! Shape: commands of the contract that are not built yet are known here, hidden from the help, and refused by name.

use std::{
    ffi::OsString,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    ipc::{control::MOST_LINES, why::RequestId},
    rules::jail::{Who, WhoError},
    vocab::{AppName, Host, parse_duration},
};

const LONGEST_BAN: Duration = Duration::from_secs(10 * 365 * 86_400);

const EXAMPLES: &str = "\
Examples:
  gateway init                        write a first gateway.toml
  gateway check                       look for faults before anything is live
  gateway -c /etc/gateway/site.toml   run until TERM or INT
  gateway reload                      take up a changed configuration without dropping a request
  gateway status --watch              see how it goes
  gateway upgrade                     take up a new binary without dropping a request
  gateway restart web                 one instance of the app after the other
  gateway logs web -f                 what the app says
  gateway why ID                      why the request of this id was refused, or failed
  gateway deploy web --dir /srv/web/2 a new release beside the old one, which is back if it fails
  gateway releases web                what was deployed, and how it went
  gateway certs                       which certificates there are, when they are renewed, and what went wrong

Signals: HUP reload · USR1 reopen logs · USR2 upgrade · TERM, INT drain and stop · a second one: stop now
Exit codes: 0 done · 1 refused or failed · 64 usage · 69 not running · 77 no permission · 78 bad configuration";

const DEPLOY_EXAMPLES: &str = "\
Examples:
  gateway deploy web --dir /srv/web/releases/42
  ln -sfn releases/42 /srv/web/current && gateway deploy web    where `dir` is /srv/web/current

Ctrl-C ends this command alone: what has begun goes on, `gateway apps` shows how it stands.
What was deployed is used after a restart of gateway too, until `dir` in the configuration is another.";

/// One binary and one TOML file that serve, guard and supervise the apps of a small server.
///
/// Without a command it runs in the foreground until TERM or INT.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, max_term_width = 110, after_help = EXAMPLES)]
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
    /// Run in the foreground until TERM or INT, as without a command
    Run,
    /// Read the configuration and say everything that is wrong with it
    ///
    /// What is good and yet would not work on this machine (users, directories, programs, ports) is a warning: exit code 0, and 78 with --strict.
    #[command(after_help = "Examples:\n  gateway check\n  gateway -c conf/gateway.toml check --strict")]
    Check {
        /// Take warnings for errors: exit code 78
        #[arg(long)]
        strict: bool,
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
    /// How everything goes; exit code 1 where a site is not served
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
    /// Who is banned: for what, since when, until when, how often so far
    #[command(after_help = "Examples:\n  gateway bans\n  gateway bans --json | jq -r '.bans[] | select(.reason == \"manual\") | .address'")]
    Bans {
        #[command(flatten)]
        form: Form,
    },
    /// Ban an address: its requests are answered with 403, its new TLS connections are closed at once
    ///
    /// With [ban] in the configuration and without. The admin listener and this command are not concerned.
    #[command(after_help = "Examples:\n  gateway ban 203.0.113.7\n  gateway ban 2001:db8::1 --for 2d    all of 2001:db8::/64")]
    Ban {
        /// An IP address; of IPv6 its whole /64 is banned
        #[arg(value_parser = address)]
        address: IpAddr,
        /// As in 30m, 12h, 7d [default: ban_time of [ban], else 1h]
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        lasts: Option<NonZeroU32>,
    },
    /// End a ban, and forget what the address did
    #[command(after_help = "Example:\n  gateway unban 203.0.113.7")]
    Unban {
        /// As `gateway bans` shows it
        #[arg(value_parser = address)]
        address: IpAddr,
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
    /// What an app said last, and with -f what it says from now on
    #[command(
        after_help = "Examples:\n  gateway logs web -f\n  gateway logs web -n 1000 | less\n  gateway logs web -f --json | jq -r 'select(.stream == \"stderr\") | .msg'\n\nA line is shown as `TIME web.0 | text`, one of stderr as `TIME web.0 ! text`. -f goes on over an upgrade of gateway."
    )]
    Logs(Logs),
    /// Why a request was refused, or failed: by what, or whose process
    #[command(
        after_help = "Examples:\n  gateway why 4bf92f3577b34da6a3ce929d0e0e4736\n  gateway why 4bf92f3577b34da6a3ce929d0e0e4736 --json\n\nThe id stands on the error page and in X-Request-Id."
    )]
    Why {
        /// The id of the request
        #[arg(value_parser = RequestId::parse)]
        id: RequestId,
        #[command(flatten)]
        form: Form,
    },
    /// Put a new release of an app in the place of the old one; if it fails, the old one serves on
    ///
    /// Commands of `before` run once in the new directory. Then a process of the new release is started beside each old one; when all are ready and warm they take
    /// the requests, and for the time of `deploy.guard` the old ones stand by: if too many answers are 5xx they take over again. Exit code 1 says why.
    #[command(after_help = DEPLOY_EXAMPLES)]
    Deploy(Deploy),
    /// Put the release before in the place of the one that serves; a second time takes that back
    ///
    /// As a deploy of its directory, without the commands of `before`.
    #[command(
        after_help = "Examples:\n  gateway rollback web\n  gateway rollback web --to 3                       as `gateway releases web` counts them\n  gateway rollback web --to /srv/web/releases/41"
    )]
    Rollback(Rollback),
    /// The releases of an app that are remembered, newest first: when, from where, how each stands
    #[command(
        after_help = "Examples:\n  gateway releases web\n  gateway releases web --json | jq -r '.[] | select(.state == \"failed\") | .reason'"
    )]
    Releases {
        /// The NAME of [app.NAME]
        #[arg(value_parser = AppName::parse)]
        app: AppName,
        #[command(flatten)]
        form: Form,
    },
    /// Run so many processes of an app, until the next restart of gateway or another number in the configuration
    #[command(after_help = "Example:\n  gateway scale web 4")]
    Scale(Scale),
    /// Show a page in the place of a site, or the site again
    ///
    /// Clients get 503 and the page of `maintenance.page`; whoever has the cookie of `maintenance.secret` sees the site. It holds over reloads, upgrades and restarts, until
    /// `maintenance.on` in the configuration is another.
    #[command(after_help = "Examples:\n  gateway maintenance example.com on\n  gateway maintenance example.com off")]
    Maintenance {
        /// The first host of the [[site]], or any other of its hosts
        site: String,
        #[arg(value_enum)]
        to: OnOff,
    },
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

    /// Not supported yet: take a server out of rotation
    #[command(hide = true)]
    Drain(Rest),
    /// Not supported yet: put a server back into rotation
    #[command(hide = true)]
    Undrain(Rest),
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
pub struct Rollback {
    /// The NAME of [app.NAME]
    #[arg(value_parser = AppName::parse)]
    pub app: AppName,

    /// The release to return to: its number, id or directory [default: the one before]
    #[arg(long, value_name = "N|DIR")]
    pub to: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// The NAME of [app.NAME]
    #[arg(value_parser = AppName::parse)]
    pub app: AppName,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines of the past
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST_LINES)))]
    pub lines: u32,
    #[command(flatten)]
    pub form: Form,
}

#[derive(Clone, Debug, Args)]
pub struct Deploy {
    /// The NAME of [app.NAME]
    #[arg(value_parser = AppName::parse)]
    pub app: AppName,

    /// Where the new release lies [default: `dir` of the app, where its links lead now]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct Scale {
    /// The NAME of [app.NAME]
    #[arg(value_parser = AppName::parse)]
    pub app: AppName,

    /// From 1 to 1000
    #[arg(value_name = "N", value_parser = procs)]
    pub procs: NonZeroU16,
}

fn address(text: &str) -> Result<IpAddr, WhoError> {
    Who::parse_address(text).map(|(_, ip)| ip)
}

fn seconds(text: &str) -> Result<NonZeroU32, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    let whole = u32::try_from(time.as_secs()).ok().filter(|_| time.subsec_nanos() == 0 && time <= LONGEST_BAN).and_then(NonZeroU32::new);
    whole.ok_or_else(|| "a time from 1s to 10y, in whole seconds".to_owned())
}

fn procs(text: &str) -> Result<NonZeroU16, &'static str> {
    match text.parse::<u16>().map(NonZeroU16::new) {
        Ok(Some(procs)) if procs.get() <= 1000 => Ok(procs),
        Ok(None) => Err("an app without a process is a stopped one: `gateway stop APP`"),
        Ok(Some(_)) | Err(_) => Err("a whole number from 1 to 1000"),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum OnOff {
    On,
    Off,
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
        insta::assert_snapshot!("help_logs", help(&["logs"]));
        insta::assert_snapshot!("help_why", help(&["why"]));
        insta::assert_snapshot!("help_deploy", help(&["deploy"]));
        insta::assert_snapshot!("help_maintenance", help(&["maintenance"]));
        insta::assert_snapshot!("help_rollback", help(&["rollback"]));
        insta::assert_snapshot!("help_scale", help(&["scale"]));
        insta::assert_snapshot!("help_ban", help(&["ban"]));
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
        assert_eq!(kind(&["gateway", "deploy"]), ErrorKind::MissingRequiredArgument);
        for number in ["0", "1001", "70000", "two", "-1"] {
            let error = Cli::try_parse_from(["gateway", "scale", "web", number]).expect_err("wrong");
            assert!(matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::UnknownArgument), "{number}");
            assert_eq!(error.to_string().contains("gateway stop"), number == "0", "{error}");
        }
        assert_eq!(kind(&["gateway", "maintenance", "a.test"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["gateway", "maintenance", "a.test", "of"]), ErrorKind::InvalidValue);
        assert_eq!(kind(&["gateway", "certs", "renew"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["gateway", "certs", "renew", "https://a.example"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["gateway", "why", "two words"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["gateway", "why", &"x".repeat(129)]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["gateway", "logs", "web", "-n", "10001"]), ErrorKind::ValueValidation);
        for address in ["10.0.0.0/8", "x", "0.0.0.0", "2001:db8::/48", "1.2.3.4:80"] {
            assert_eq!(kind(&["gateway", "ban", address]), ErrorKind::ValueValidation, "{address}");
        }
        for time in ["1", "0s", "11y", "500ms", "x"] {
            assert_eq!(kind(&["gateway", "ban", "1.2.3.4", "--for", time]), ErrorKind::ValueValidation, "{time}");
        }
        assert_eq!(kind(&["gateway", "--version"]), ErrorKind::DisplayVersion);
    }

    #[test]
    fn what_is_not_built_yet_takes_any_words_so_that_it_can_be_refused_by_name() {
        for words in
            [&["gateway", "drain", "web"][..], &["gateway", "maintenance", "a.example", "on"], &["gateway", "import", "nginx", "--x"]]
        {
            assert!(Cli::try_parse_from(words).is_ok(), "{words:?}");
        }
    }
}
