//! `gateway logs APP`: what an app said last, and what it says from now on.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use super::{
    args,
    control::{self, ControlError, News},
    exit::Exit,
    terminal::{Paint, Tone, complain, escape, escape_json},
    whereabouts::Meant,
};
use crate::ipc::control::{LogLine, Request};

/// Prints until there is no more, or nobody reads, or INT comes.
///
/// Errors: as [`control::listen`]; that standard output cannot be written is told here.
pub fn show(meant: &Meant, logs: &args::Logs) -> Result<Exit, ControlError> {
    let args::Logs { app, follow, lines, form } = logs.clone();
    let request = Request::Logs { app, lines, follow };
    if !follow {
        return print_all(meant, &request, form);
    }
    // INT ends it in an orderly way: the main thread waits for the signal, another one for lines. It ends with the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Talk)?;
    let meant = meant.clone();
    let result = runtime.block_on(async {
        let printing = tokio::task::spawn_blocking(move || print_all(&meant, &request, form));
        tokio::select! {
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
            ended = printing => ended.unwrap_or(Err(ControlError::Closed)),
        }
    });
    runtime.shutdown_background();
    result
}

fn print_all(meant: &Meant, request: &Request, form: args::Form) -> Result<Exit, ControlError> {
    let paint = Paint::stdout();
    let mut exit = Exit::Done;
    let ended = control::listen(meant, request, &mut |news| {
        let text = match &news {
            News::Line(line) if form.json => json(line),
            News::Line(line) => plain(line, paint),
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

/// `web.0 | text`, and `web.0 ! text` for stderr.
fn plain(line: &LogLine, paint: Paint) -> String {
    let LogLine { app, n, stream, msg, .. } = line;
    let name = n.map_or_else(|| app.to_string(), |n| format!("{app}.{n}"));
    let prefix = match stream.as_deref() {
        Some("stderr") => paint.with(Tone::Bad, &format!("{name} !")),
        Some(_) | None => paint.with(Tone::Bold, &format!("{name} |")),
    };
    // Tabs are as harmless as spaces, and stack traces are made of them.
    format!("{prefix} {}\n", escape(&msg.replace('\t', "    ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::AppName;

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
        assert_eq!(plain(&line("stdout", "hello"), Paint::Plain), "web.1 | hello\n");
        assert_eq!(plain(&line("stderr", "\tat x"), Paint::Plain), "web.1 !     at x\n");
        let unknown = LogLine { n: None, stream: None, ..line("", "old") };
        assert_eq!(plain(&unknown, Paint::Plain), "web | old\n");
    }

    #[test]
    fn what_an_app_writes_is_not_obeyed() {
        let text = plain(&line("stdout", "\u{1b}]0;x\u{7}\u{202e}"), Paint::Plain);
        assert!(!text.trim_end().chars().any(char::is_control) && !text.contains('\u{202e}'), "{text:?}");
        let json = json(&line("stdout", "\u{1b}\u{202e}"));
        assert!(!json.contains('\u{202e}') && json.lines().count() == 1);
        assert_eq!(serde_json::from_str::<LogLine>(&json).expect("json").msg, "\u{1b}\u{202e}");
    }
}
