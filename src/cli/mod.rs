//! The command line: words in, exit code out.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::{
    admin::view,
    config::complaint::Colours,
    demo,
    ipc::{control::Request, message::AppTable},
    vocab::is_denied,
};

pub mod args;
pub mod check;
pub mod control;
pub mod exit;
pub mod init;
pub mod logs;
pub mod progress;
pub mod release;
pub mod render;
pub mod start;
pub mod terminal;
pub mod whereabouts;

use args::{Certs, Cli, Command, Config, Form};
use check::Depth;
use control::ControlError;
use exit::Exit;
use render::Look;
use terminal::{Paint, Tone, complain, escape, escape_json, print, say};
use whereabouts::Meant;

const WATCH: Duration = Duration::from_secs(2);

/// Does what the words of this process ask for.
pub fn run() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    // It has options and exit codes of its own.
    if words.get(1).is_some_and(|word| word == "demo-app") {
        return demo::run(words.iter().skip(2).map(|word| word.to_string_lossy().into_owned()));
    }
    match Cli::try_parse_from(words) {
        Ok(cli) => match &cli.command {
            None | Some(Command::Run) => start::master(cli.config.as_deref()),
            Some(Command::Edge) => start::edge(),
            Some(command) => dispatch(&cli, command).into(),
        },
        Err(error) => {
            // A closed standard output is not worth a word.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done.into(),
                _ => Exit::Usage.into(),
            }
        }
    }
}

fn dispatch(cli: &Cli, command: &Command) -> Exit {
    let config = cli.config.as_deref();
    match command {
        Command::Check { live: true, .. } => not_yet("check --live", "`gateway check` without it reads the files alone"),
        Command::Check { live: false, strict } => told(&check::check(config, Depth::Machine), *strict),
        Command::Config(Config::Show) => match check::check(config, Depth::Text).effective() {
            Ok(text) => print(&line(&escape_lines(&text))),
            Err(outcome) => told(&outcome, false),
        },
        Command::Config(Config::Schema) => print(&line(&check::schema())),
        Command::Init => match init::init(config) {
            Ok(next) => print(&line(&next)),
            Err(error) => {
                complain(&error, None);
                Exit::of(&error)
            }
        },
        Command::Completions { shell } => print(&completions(*shell)),
        Command::Reload => act(cli, &Request::Reload),
        Command::Upgrade => act(cli, &Request::Upgrade),
        Command::SelfCheck => start::self_check(config),
        Command::Start(app) => act(cli, &Request::Start { app: app.app.clone() }),
        Command::Stop(app) => act(cli, &Request::Stop { app: app.app.clone() }),
        Command::Restart(app) => act(cli, &Request::Restart { app: app.app.clone() }),
        Command::Scale(scale) => act(cli, &Request::Scale { app: scale.app.clone(), procs: scale.procs }),
        Command::Deploy(deploy) => release::deploy(cli, deploy),
        Command::Rollback(app) => release::follow(cli, Request::Rollback { app: app.app.clone(), to: app.to.clone() }),
        Command::Releases { app, form } => look(cli, &Request::Releases { app: app.clone() }, *form, |value, look| {
            Some(render::release_list(&typed::<Vec<_>>(value)?, look))
        }),
        Command::Status { form, watch: false } => once(cli, *form),
        Command::Status { form, watch: true } => watch(cli, *form),
        Command::Apps { form } => match ask(cli, &Request::Apps) {
            // In one shape for programs, wherever it is asked for.
            Ok(value) => print(&text(&of_apps(&value).and_then(|apps| serde_json::to_value(apps).ok()).unwrap_or(value), *form, apps)),
            Err(exit) => exit,
        },
        Command::Upstreams { form } => {
            look(cli, &Request::Upstreams, *form, |value, look| Some(render::upstreams(&typed::<Vec<_>>(value)?, look)))
        }
        Command::Zones { form } => look(cli, &Request::Zones, *form, |value, look| Some(render::zones(&typed::<Vec<_>>(value)?, look))),
        Command::Bans { form } => look(cli, &Request::Bans, *form, |value, look| Some(render::bans(&typed(value)?, look))),
        Command::Ban { address, lasts } => act(cli, &Request::Ban { ip: *address, seconds: *lasts }),
        Command::Unban { address } => act(cli, &Request::Unban { ip: *address }),
        Command::Certs { form, command: None } => {
            look(cli, &Request::Certs, *form, |value, look| Some(render::certs(&typed::<Vec<_>>(value)?, look)))
        }
        Command::Certs { form: _, command: Some(Certs::Renew { host }) } => act(cli, &Request::RenewCert { host: host.clone() }),
        Command::Logs(args) => logs(cli, args),
        Command::Why { id, form } => {
            look(cli, &Request::Why { id: id.clone() }, *form, |value, look| Some(render::why::why(&typed(value)?, look)))
        }
        // `run` has taken these already where they come first.
        Command::Run | Command::Edge | Command::DemoApp(_) => {
            say("error: this command comes before any option");
            Exit::Usage
        }
        Command::Drain(_) => not_yet("drain", "take the server out of its [upstream], then `gateway reload`"),
        Command::Undrain(_) => not_yet("undrain", "put the server back into its [upstream], then `gateway reload`"),
        Command::Maintenance { site, to } => act(cli, &Request::Maintenance { site: site.clone(), on: *to == args::OnOff::On }),
        Command::Import(_) => not_yet("import", "`gateway init` writes a first configuration with comments"),
    }
}

/// Loudly, so that no script takes it for done.
fn not_yet(what: &str, instead: &str) -> Exit {
    let paint = Paint::stderr();
    say(&format!("{} `gateway {what}` is not supported yet", paint.with(Tone::Bad, "error:")));
    say(&format!("{} {instead}", paint.with(Tone::Bold, "help:")));
    Exit::Usage
}

/// `strict`: a warning is an error.
fn told(outcome: &check::CheckOutcome, strict: bool) -> Exit {
    let colours = match Paint::stderr() {
        Paint::Colours => Colours::On,
        Paint::Plain => Colours::Off,
    };
    let text = outcome.text(colours);
    let warnings = outcome.warnings(colours);
    if let Some(warnings) = &warnings {
        say(warnings);
    }
    match outcome {
        check::CheckOutcome::Good { .. } if strict && warnings.is_some() => {
            say("nothing else is wrong; --strict takes warnings for errors");
            Exit::Configuration
        }
        check::CheckOutcome::Good { .. } => print(&line(&text)),
        check::CheckOutcome::Bad(_) | check::CheckOutcome::Missing(_) => {
            say(&text);
            Exit::Configuration
        }
    }
}

fn line(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

fn completions(shell: clap_complete::Shell) -> String {
    // Hidden commands are left out: neither is what is not supported yet offered, nor what gateway starts itself.
    let full = Cli::command();
    let mut shown = clap::Command::new("gateway").args(full.get_arguments().cloned());
    shown = shown.subcommands(full.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown.disable_help_subcommand(true), "gateway", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Asks the gateway that is meant, showing progress as it comes.
fn ask(cli: &Cli, request: &Request) -> Result<serde_json::Value, Exit> {
    ask_of(&meant(cli)?, request)
}

fn ask_of(meant: &Meant, request: &Request) -> Result<serde_json::Value, Exit> {
    control::ask(meant, request, &mut |text| say(&escape(text))).map_err(|error| refused(&error))
}

/// Which gateway is meant.
fn meant(cli: &Cli) -> Result<Meant, Exit> {
    whereabouts::meant(cli.socket.as_deref(), cli.config.as_deref()).map_err(|error| {
        complain(&error, Some(error.advice()));
        if is_denied(&error) { Exit::Permission } else { Exit::Configuration }
    })
}

/// Tells why there is no answer, or a bad one.
fn refused(error: &ControlError) -> Exit {
    match error {
        // Its own words, which may be the report on a configuration.
        ControlError::Failed { error, .. } => {
            let text = escape_lines(error);
            let text = text.trim_end();
            let head = if text.starts_with("error") { String::new() } else { Paint::stderr().with(Tone::Bad, "error:") + " " };
            say(&format!("{head}{text}"));
        }
        _ => complain(error, error.advice()),
    }
    error.exit()
}

fn logs(cli: &Cli, args: &args::Logs) -> Exit {
    let shown = meant(cli).and_then(|meant| logs::show(&meant, args).map_err(|error| refused(&error)));
    shown.unwrap_or_else(|exit| exit)
}

fn act(cli: &Cli, request: &Request) -> Exit {
    match ask(cli, request) {
        Ok(value) => told_done(&value),
        Err(exit) => exit,
    }
}

fn told_done(value: &serde_json::Value) -> Exit {
    print(&line(&escape_lines(&outcome(value))))
}

/// What was done, in words: gateway's own where it has some.
fn outcome(value: &serde_json::Value) -> String {
    let word = |key| value.get(key).and_then(serde_json::Value::as_str);
    match (word("message"), value.get("generation")) {
        (Some(message), _) => message.to_owned(),
        (None, Some(generation)) => {
            let file = word("config").map(|file| format!(": {file}")).unwrap_or_default();
            format!("configuration {generation} is in force{file}")
        }
        (None, None) => "done".to_owned(),
    }
}

/// How an answer is shown to people; `None` if it is not what it should be.
type Shown = fn(&serde_json::Value, Look) -> Option<String>;

fn look(cli: &Cli, request: &Request, form: Form, shown: Shown) -> Exit {
    match ask(cli, request) {
        Ok(value) => print(&text(&value, form, shown)),
        Err(exit) => exit,
    }
}

fn text(value: &serde_json::Value, form: Form, shown: Shown) -> String {
    let look = Look { paint: Paint::stdout(), now: Timestamp::now() };
    // An answer of another version is shown as it is.
    (!form.json).then(|| shown(value, look)).flatten().unwrap_or_else(|| json(value))
}

fn json(value: &serde_json::Value) -> String {
    line(&escape_json(&format!("{value:#}")))
}

fn typed<T: DeserializeOwned>(value: &serde_json::Value) -> Option<T> {
    T::deserialize(value).ok()
}

fn status(value: &serde_json::Value, look: Look) -> Option<String> {
    if let Some(status) = typed(value) {
        return Some(render::status(&status, look));
    }
    // Without an edge the master knows this much.
    let word = |key| value.get(key).and_then(serde_json::Value::as_str).map(escape);
    let verdict = look.paint.with(Tone::Bad, &word("status")?);
    Some(format!("gateway is {verdict}: {}\n`gateway apps` shows the apps, `gateway status --json` all there is\n", word("message")?))
}

fn apps(value: &serde_json::Value, look: Look) -> Option<String> {
    Some(render::apps(&of_apps(value)?, look))
}

fn of_apps(value: &serde_json::Value) -> Option<Vec<view::App>> {
    typed(value).or_else(|| Some(view::apps(&typed::<AppTable>(value)?)))
}

/// Told once. Whoever asks whether all is well hears no where it is not.
fn once(cli: &Cli, form: Form) -> Exit {
    let value = match ask(cli, &Request::Status) {
        Ok(value) => value,
        Err(exit) => return exit,
    };
    let unhealthy = value.get("status").and_then(serde_json::Value::as_str) == Some(view::Verdict::Unhealthy.as_str());
    match print(&text(&value, form, status)) {
        Exit::Done if unhealthy => Exit::Failed,
        exit => exit,
    }
}

/// Until it is interrupted. A gateway that goes away and comes back is waited for.
fn watch(cli: &Cli, form: Form) -> Exit {
    let mut said = false;
    loop {
        let began = Instant::now();
        // That it runs another file is said once.
        let asked = meant(cli).map(|meant| if said { Meant { config: None, ..meant } } else { meant });
        said = true;
        match asked.and_then(|meant| ask_of(&meant, &Request::Status)) {
            Ok(value) if form.json => {
                // One document a line.
                if print(&line(&escape_json(&value.to_string()))) != Exit::Done {
                    return Exit::Failed;
                }
            }
            Ok(value) => {
                let clear = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\x1b[H\x1b[2J" } else { "" };
                if print(&format!("{clear}{}\n", text(&value, form, status))) != Exit::Done {
                    return Exit::Failed;
                }
            }
            Err(Exit::NotRunning) => {}
            Err(exit) => return exit,
        }
        std::thread::sleep(WATCH.saturating_sub(began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Exit {
        let cli = Cli::try_parse_from(["gateway"].iter().chain(words)).expect("good words");
        dispatch(&cli, cli.command.as_ref().expect("a command"))
    }

    #[test]
    fn what_is_not_built_yet_is_a_usage_error() {
        for name in ["drain", "undrain", "import"] {
            assert_eq!(words(&[name, "x", "--y"]), Exit::Usage, "{name}");
        }
        assert_eq!(words(&["check", "--live"]), Exit::Usage);
    }

    #[test]
    fn nobody_there_is_69_and_a_configuration_that_is_missing_78() {
        for name in ["status", "apps", "upstreams", "zones", "certs", "bans", "reload", "upgrade"] {
            assert_eq!(words(&[name, "--socket", "/nowhere/gateway.sock"]), Exit::NotRunning, "{name}");
        }
        for name in ["why", "logs"] {
            assert_eq!(words(&[name, "x", "--socket", "/nowhere/gateway.sock"]), Exit::NotRunning, "{name}");
        }
        for command in [
            &["ban", "192.0.2.1", "--for", "1h"][..],
            &["unban", "2001:db8::/64"],
            &["deploy", "web"],
            &["deploy", "web", "--dir", "/tmp"],
            &["rollback", "web"],
            &["rollback", "web", "--to", "2"],
            &["releases", "web"],
            &["scale", "web", "2"],
        ] {
            assert_eq!(words(&[command, &["--socket", "/nowhere/gateway.sock"]].concat()), Exit::NotRunning, "{command:?}");
        }
        assert_eq!(words(&["deploy", "web", "--dir", "/nowhere/at/all"]), Exit::Failed);
        assert_eq!(words(&["check", "-c", "/nowhere/gateway.toml"]), Exit::Configuration);
        assert_eq!(words(&["config", "show", "-c", "/nowhere/gateway.toml"]), Exit::Configuration);
    }

    #[test]
    fn completions_offer_what_works() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let script = completions(shell);
            assert!(["upstreams", "restart", "logs", "why", "rollback", "unban"].iter().all(|word| script.contains(word)), "{script}");
            assert!(!script.contains("demo-app") && !script.contains("undrain"), "{script}");
        }
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_it_is() {
        let value = serde_json::json!([{ "new": "\u{202e}x" }]);
        let shown = text(&value, Form { json: false }, apps);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("json"), value);
        assert!(!shown.contains('\u{202e}'));
    }

    #[test]
    fn a_gateway_without_an_edge_says_so() {
        let value = serde_json::json!({ "status": "unhealthy", "message": "the edge does not answer", "master": {} });
        let shown = status(&value, Look { paint: Paint::Plain, now: Timestamp::UNIX_EPOCH }).expect("text");
        assert!(shown.starts_with("gateway is unhealthy: the edge does not answer\n"), "{shown}");
    }

    #[test]
    fn what_was_done_is_said_in_words() {
        assert_eq!(outcome(&serde_json::json!({ "message": "web is started" })), "web is started");
        assert_eq!(outcome(&serde_json::json!({ "generation": 4 })), "configuration 4 is in force");
        assert_eq!(outcome(&serde_json::json!({ "generation": 4, "config": "/g.toml" })), "configuration 4 is in force: /g.toml");
        assert_eq!(outcome(&serde_json::Value::Null), "done");
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::NotRunning, Exit::Permission, Exit::Configuration, Exit::Interrupted];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 69, 77, 78, 130]);
    }
}
