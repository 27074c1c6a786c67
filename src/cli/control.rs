//! The command line's end of RUN/gateway.sock: one question, any number of progress lines, one answer.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::{exit::Exit, whereabouts::Meant};
use crate::ipc::control::{Answer, Failure, LogLine, MAX_LINE, Question, Request};

/// Between two lines of a gateway that only has to look.
const LOOK: Duration = Duration::from_secs(30);
/// Between two lines of one that has to act: an instance may take its whole stop and start time before there is news.
const ACT: Duration = Duration::from_secs(15 * 60);
/// Between two lines of a deploy: a command before it may take as long as it likes to say nothing; gateway itself ends the conversation after an hour.
const DEPLOY: Duration = Duration::from_secs(62 * 60);

/// Why there is no answer, or a bad one.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("reach gateway: it is not running (nothing listens on {})", socket.display())]
    NotRunning { socket: PathBuf },
    #[error("reach gateway: not permitted to use {}", socket.display())]
    Denied { socket: PathBuf },
    #[error("reach gateway on {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("talk to gateway")]
    Talk(#[source] io::Error),
    #[error("get an answer: gateway said nothing for {}s", .0.as_secs())]
    Silent(Duration),
    #[error("get an answer: gateway ended the conversation")]
    Closed,
    #[error("read the answer: it is longer than {MAX_LINE} bytes")]
    Long,
    #[error("read the answer: gateway and this command may be of different versions")]
    Garbled(#[source] serde_json::Error),
    /// Gateway's own words.
    #[error("do it: {error}")]
    Failed { error: String, kind: Failure },
}

impl ControlError {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotRunning { .. } => Exit::NotRunning,
            Self::Denied { .. } | Self::Failed { kind: Failure::Permission, .. } => Exit::Permission,
            Self::Failed { kind: Failure::Configuration, .. } => Exit::Configuration,
            Self::Connect { .. }
            | Self::Talk(_)
            | Self::Silent(_)
            | Self::Closed
            | Self::Long
            | Self::Garbled(_)
            | Self::Failed { kind: Failure::Refused, .. } => Exit::Failed,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => {
                Some("`gateway -c FILE` starts it; if it runs with another configuration, name that one, or its socket with --socket")
            }
            Self::Denied { .. } => Some("gateway answers the user who started it and root"),
            Self::Garbled(_) => Some("use the binary that is running, or restart gateway with this one"),
            Self::Connect { .. } | Self::Talk(_) | Self::Silent(_) | Self::Closed | Self::Long | Self::Failed { .. } => None,
        }
    }
}

/// What comes before the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    Progress(String),
    Line(LogLine),
    /// So many lines are missing here.
    Lost(u64),
}

/// Asks and waits for the answer. Each line of progress goes to `progress` as it comes.
///
/// Errors: [`ControlError`]
pub fn ask(meant: &Meant, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<serde_json::Value, ControlError> {
    let heard = listen(meant, request, &mut |news| {
        match news {
            News::Progress(text) => progress(&text),
            News::Line(_) | News::Lost(_) => {}
        }
        ControlFlow::Continue(())
    });
    heard.map(Option::unwrap_or_default)
}

/// Asks and hears everything that comes. `None`: `hear` had heard enough before the answer.
///
/// Errors: [`ControlError`]
pub fn listen(
    meant: &Meant,
    request: &Request,
    hear: &mut dyn FnMut(News) -> ControlFlow<()>,
) -> Result<Option<serde_json::Value>, ControlError> {
    let Meant { socket, config } = meant;
    let patience = match request {
        Request::Status
        | Request::Apps
        | Request::Upstreams
        | Request::Zones
        | Request::Certs
        | Request::Bans
        | Request::Ban { .. }
        | Request::Unban { .. }
        | Request::RenewCert { .. }
        | Request::Why { .. }
        | Request::Releases { .. }
        | Request::Logs { follow: false, .. } => Some(LOOK),
        Request::Reload
        | Request::Upgrade
        | Request::Start { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Scale { .. }
        | Request::Maintenance { .. } => Some(ACT),
        Request::Deploy { .. } | Request::Rollback { .. } => Some(DEPLOY),
        // An app may say nothing for days; whoever follows it ends that.
        Request::Logs { follow: true, .. } => None,
    };
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning { socket: socket.into() },
        io::ErrorKind::PermissionDenied => ControlError::Denied { socket: socket.into() },
        _ => ControlError::Connect { socket: socket.into(), source },
    })?;
    converse(stream, &Question { request: request.clone(), config: config.clone() }, patience, hear)
}

fn converse(
    mut stream: UnixStream,
    question: &Question,
    patience: Option<Duration>,
    hear: &mut dyn FnMut(News) -> ControlFlow<()>,
) -> Result<Option<serde_json::Value>, ControlError> {
    stream.set_read_timeout(patience).map_err(ControlError::Talk)?;
    stream.set_write_timeout(Some(LOOK)).map_err(ControlError::Talk)?;
    let mut line = serde_json::to_vec(question).map_err(ControlError::Garbled)?;
    line.push(b'\n');
    // One that refuses us may answer and close before it has read: its answer is what counts.
    let written = stream.write_all(&line);
    let mut lines = BufReader::new(stream);
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 1;
        match lines.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return Err(written.err().map_or(ControlError::Closed, ControlError::Talk)),
            Ok(_) if line.len() > MAX_LINE => return Err(ControlError::Long),
            Ok(_) if !line.ends_with(b"\n") => return Err(ControlError::Closed),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(ControlError::Silent(patience.unwrap_or_default()));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ControlError::Closed),
            Err(error) => return Err(ControlError::Talk(error)),
        }
        let news = match serde_json::from_slice(&line).map_err(ControlError::Garbled)? {
            Answer::Progress { text } => News::Progress(text),
            Answer::Line(line) => News::Line(line),
            Answer::Lost { lines } => News::Lost(lines),
            Answer::Done { result } => return Ok(Some(result)),
            Answer::Failed { error, kind } => return Err(ControlError::Failed { error, kind }),
        };
        if hear(news).is_break() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Talks to a gateway that says just this; gives what it was asked.
    fn talk(said: &[u8]) -> (Result<serde_json::Value, ControlError>, Vec<String>, String) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut heard = Vec::new();
        let (result, asked) = std::thread::scope(|scope| {
            let peer = scope.spawn(move || {
                let mut asked = String::new();
                BufReader::new(&theirs).read_line(&mut asked).expect("a question");
                // The other side may have heard enough.
                let _ = theirs.write_all(said);
                asked
            });
            let result = converse(ours, &Question { request: Request::Reload, config: None }, Some(Duration::from_secs(5)), &mut |news| {
                match news {
                    News::Progress(text) => heard.push(text),
                    News::Line(line) => heard.push(line.msg),
                    News::Lost(lines) => heard.push(lines.to_string()),
                }
                if heard.last().is_some_and(|last| last == "enough") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            (result.map(Option::unwrap_or_default), peer.join().expect("no panic"))
        });
        (result, heard, asked)
    }

    #[test]
    fn progress_comes_before_the_answer() {
        let said = b"{\"answer\":\"progress\",\"text\":\"one\"}\n{\"answer\":\"progress\",\"text\":\"two\"}\n{\"answer\":\"done\",\"result\":{\"generation\":2}}\n";
        let (result, heard, asked) = talk(said);
        assert_eq!(result.expect("done"), serde_json::json!({ "generation": 2 }));
        assert_eq!(heard, ["one", "two"]);
        assert_eq!(asked, "{\"command\":\"reload\"}\n");
    }

    #[test]
    fn who_has_heard_enough_does_not_wait_for_the_answer() {
        let said = b"{\"answer\":\"line\",\"app\":\"web\",\"msg\":\"one\"}\n{\"answer\":\"lost\",\"lines\":7}\n{\"answer\":\"progress\",\"text\":\"enough\"}\n";
        let (result, heard, _) = talk(said);
        assert_eq!(result.expect("no answer"), serde_json::Value::Null);
        assert_eq!(heard, ["one", "7", "enough"]);
    }

    #[test]
    fn the_kind_of_failure_chooses_the_exit_code() {
        for (kind, exit) in [("refused", Exit::Failed), ("permission", Exit::Permission), ("configuration", Exit::Configuration)] {
            let said = format!("{{\"answer\":\"failed\",\"error\":\"no\",\"kind\":\"{kind}\"}}\n");
            assert_eq!(talk(said.as_bytes()).0.expect_err("failed").exit(), exit);
        }
    }

    #[test]
    fn half_an_answer_and_rubbish_are_errors() {
        assert!(matches!(talk(b"").0, Err(ControlError::Closed)));
        assert!(matches!(talk(b"{\"answer\":\"done\"").0, Err(ControlError::Closed)));
        assert!(matches!(talk(b"HTTP/1.1 400\r\n").0, Err(ControlError::Garbled(_))));
        assert!(matches!(talk(&vec![b' '; MAX_LINE + 2]).0, Err(ControlError::Long)));
    }

    #[test]
    fn a_gateway_that_is_not_there_is_not_running() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("gateway.sock");
        let meant = Meant { socket: socket.clone(), config: None };
        let gone = ask(&meant, &Request::Status, &mut |_| {}).expect_err("no file");
        assert_eq!(gone.exit().code(), 69);
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
        let left = ask(&meant, &Request::Status, &mut |_| {}).expect_err("a file that nobody listens on");
        assert_eq!(left.exit().code(), 69);
    }
}
