//! `gateway logs APP`: what an app said last, and what it says from now on.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    args,
    control::{self, ControlError, News},
    exit::Exit,
    terminal::{Paint, Tone, complain, escape, escape_json},
    whereabouts::Meant,
};
use crate::{
    ipc::control::{LogLine, MOST_LINES, Request},
    vocab::AppName,
};

/// Prints until there is no more, or nobody reads, or INT comes.
///
/// Errors: as [`control::listen`]; that standard output cannot be written is told here.
pub fn show(meant: &Meant, logs: &args::Logs) -> Result<Exit, ControlError> {
    let args::Logs { app, follow, lines, form } = logs.clone();
    let request = Request::Logs { app: app.clone(), lines, follow, since_ms: None };
    if !follow {
        return print_all(meant, &request, form, &mut None);
    }
    // INT ends it in an orderly way: the main thread waits for the signal, another one for lines. It ends with the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Talk)?;
    let meant = meant.clone();
    let result = runtime.block_on(async {
        let printing = tokio::task::spawn_blocking(move || follow_on(&meant, app, request, form));
        tokio::select! {
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
            ended = printing => ended.unwrap_or(Err(ControlError::Closed)),
        }
    });
    runtime.shutdown_background();
    result
}

/// A gateway that is upgraded, or restarted, is waited for: what came meanwhile is in its memory.
fn follow_on(meant: &Meant, app: AppName, mut request: Request, form: args::Form) -> Result<Exit, ControlError> {
    let mut last = None;
    let mut gone: Option<Instant> = None;
    loop {
        let heard = last;
        let ended = print_all(meant, &request, form, &mut last);
        if last != heard {
            gone = None;
        }
        let away = match ended {
            Err(error @ (ControlError::Closed | ControlError::NotRunning { .. })) if last.is_some() || gone.is_some() => error,
            Err(error @ ControlError::Closed) => error,
            ended => return ended,
        };
        let since = *gone.get_or_insert_with(|| {
            super::say("-- gateway has closed the connection; waiting for it");
            Instant::now()
        });
        if since.elapsed() >= AWAY {
            return Err(away);
        }
        std::thread::sleep(LOOK_AGAIN);
        // Without a line yet: from the moment that it went.
        let since_ms = Some(last.unwrap_or_else(|| Timestamp::now().as_millisecond()));
        request = Request::Logs { app: app.clone(), lines: MOST_LINES, follow: true, since_ms };
    }
}

/// How long a gateway may be away.
const AWAY: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `last` gets the moment of the last line, in Unix milliseconds.
fn print_all(meant: &Meant, request: &Request, form: args::Form, last: &mut Option<i64>) -> Result<Exit, ControlError> {
    let zone = TimeZone::system();
    let paint = Paint::stdout();
    let mut exit = Exit::Done;
    let ended = control::listen(meant, request, &mut |news| {
        if let News::Line(LogLine { t: Some(t), .. }) = &news {
            *last = t.parse::<Timestamp>().ok().map(Timestamp::as_millisecond).or(*last);
        }
        let text = match &news {
            News::Line(line) if form.json => json(line),
            News::Line(line) => plain(line, paint, &zone),
            News::Lost(lines) if form.json => format!("{{\"lost\":{lines}}}\n"),
            News::Lost(lines) => {
                paint.with(Tone::Wait, &format!("-- {lines} lines are missing here: they came faster than they were read")) + "\n"
            }
            News::Progress(text) => {
                super::say(&escape(text));
                return ControlFlow::Continue(());
            }
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            // As of `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ControlFlow::Break(()),
            Err(error) => {
                complain(&WriteError(error), None);
                exit = Exit::Failed;
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(word) = ended.as_ref().and_then(|result| result.get("message")).and_then(serde_json::Value::as_str) {
        super::say(&format!("-- {}", escape(word)));
    }
    Ok(exit)
}

#[derive(Debug, thiserror::Error)]
#[error("write to standard output")]
struct WriteError(#[source] io::Error);

/// The envelope, one document a line.
fn json(line: &LogLine) -> String {
    // A shape of texts and numbers always has a JSON form.
    escape_json(&serde_json::to_string(line).unwrap_or_default()) + "\n"
}

/// `TIME web.0 | text`, and `TIME web.0 ! text` for stderr; without the time where a file does not have it.
fn plain(line: &LogLine, paint: Paint, zone: &TimeZone) -> String {
    let LogLine { t, app, n, stream, msg, .. } = line;
    let at = t.as_ref().and_then(|t| t.parse::<Timestamp>().ok());
    let at = at.map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S ").to_string()).unwrap_or_default();
    let name = n.map_or_else(|| app.to_string(), |n| format!("{app}.{n}"));
    let prefix = match stream.as_deref() {
        Some("stderr") => paint.with(Tone::Bad, &format!("{name} !")),
        Some(_) | None => paint.with(Tone::Bold, &format!("{name} |")),
    };
    // Tabs are as harmless as spaces, and stack traces are made of them.
    format!("{at}{prefix} {}\n", escape(&msg.replace('\t', "    ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, msg: &str) -> LogLine {
        LogLine {
            t: Some("2026-01-15T10:30:00.000Z".into()),
            app: AppName::parse("web").expect("valid"),
            n: Some(1),
            pid: Some(7),
            stream: Some(stream.into()),
            msg: msg.into(),
        }
    }

    #[test]
    fn the_two_streams_are_told_apart_without_colours_too() {
        let plain = |line| plain(&line, Paint::Plain, &TimeZone::UTC);
        assert_eq!(plain(line("stdout", "hello")), "2026-01-15 10:30:00 web.1 | hello\n");
        assert_eq!(plain(line("stderr", "\tat x")), "2026-01-15 10:30:00 web.1 !     at x\n");
        let unknown = LogLine { t: None, n: None, stream: None, ..line("", "old") };
        assert_eq!(plain(unknown), "web | old\n");
    }

    #[test]
    fn what_an_app_writes_is_not_obeyed() {
        let text = plain(&line("stdout", "\u{1b}]0;x\u{7}\u{202e}"), Paint::Plain, &TimeZone::UTC);
        assert!(!text.trim_end().chars().any(char::is_control) && !text.contains('\u{202e}'), "{text:?}");
        let json = json(&line("stdout", "\u{1b}\u{202e}"));
        assert!(!json.contains('\u{202e}') && json.lines().count() == 1);
        assert_eq!(serde_json::from_str::<LogLine>(&json).expect("json").msg, "\u{1b}\u{202e}");
    }
}
