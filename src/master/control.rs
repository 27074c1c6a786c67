//! The control socket: RUN/gateway.sock, where the command line asks.
//!
//! Shape: 0600, and only root and our own user are answered. Bounded connections, lines and waits; a client can do no harm but its commands.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::Uid;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{
    deploy::Wish,
    handle::Handle,
    output::hub::News,
    reload::ReloadError,
    whose,
    words::{Order, Word},
};
use crate::{
    ipc::{
        control::{Answer, Failure, Intent, LogLine, MOST_LINES, Question, Request},
        message::{Generation, Query},
    },
    vocab::{AppName, chain},
};

const CONNECTIONS: usize = 32;
/// A request names a command and an app: it is short.
const LONGEST_REQUEST: u64 = 64 * 1024;
const IDLE: Duration = Duration::from_secs(30);
/// A follower may pause so long, as in a pager.
const FOLLOWER_WITHIN: Duration = Duration::from_secs(3600);
/// Lines are joined up to this.
const JOIN: usize = 64 * 1024;
/// An order is bounded by the app's own deadlines; this is for those who set them to a day.
const ORDER_WITHIN: Duration = Duration::from_secs(3600);

const NO_EDGE: &str = "the edge does not answer: it is down or busy, try again";

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("open the control socket {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("open the control socket {}: another gateway answers there", path.display())]
    Taken { path: PathBuf },
}

impl ControlError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Taken { .. } => Some("stop that one, or give this one its own `run`"),
            Self::Open { .. } => None,
        }
    }
}

/// Opens it. What lies there and answers is of a master with another state directory; what does not, of one that is gone.
pub fn open(path: &Path) -> Result<std::os::unix::net::UnixListener, ControlError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::Taken { path: path.into() });
    }
    let opened = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = std::os::unix::net::UnixListener::bind(path);
        nix::sys::stat::umask(before);
        let listener = listener?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    opened().map_err(|source| ControlError::Open { path: path.into(), source })
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, handle: Handle) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    tasks.spawn(async move {
                        // The client is gone: nobody is left to tell.
                        let _ = converse(stream, handle).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket could not accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn converse(stream: UnixStream, handle: Handle) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, write) = stream.into_split();
    let mut speaker = Speaker { write, write_within: IDLE };
    if uid != 0 && uid != Uid::effective().as_raw() {
        let error = format!("user {uid} may not command this gateway: it runs as user {}", Uid::effective());
        return speaker.say(&Answer::Failed { error, kind: Failure::Permission }).await;
    }
    let mut line = String::new();
    let mut lines_in = BufReader::new(read.take(LONGEST_REQUEST));
    let got = timeout(IDLE, lines_in.read_line(&mut line)).await;
    if !matches!(got, Ok(Ok(1..))) || !line.ends_with('\n') {
        return speaker.refuse("no request came: one line of JSON, in time and not too long".to_owned()).await;
    }
    let Question { request, config } = match serde_json::from_str(&line) {
        Ok(question) => question,
        Err(error) => return speaker.refuse(format!("the request is not understood: {error}")).await,
    };
    if let Err(other) = whose::meant(handle.config(), config).await {
        match request.intent() {
            Intent::Act => return speaker.refuse(format!("could not {other}\nhelp: {}", other.advice())).await,
            Intent::Look => {
                let text = format!("note: this is the gateway of {}, not of {}", other.ours.display(), other.theirs.display());
                speaker.say(&Answer::Progress { text }).await?;
            }
        }
    }
    match request {
        Request::Status => {
            let status = handle.status().await;
            speaker.done(status).await
        }
        Request::Apps => speaker.done(serde_json::to_value(handle.apps()).unwrap_or_default()).await,
        Request::Upstreams => speaker.ask(&handle, Query::Upstreams).await,
        Request::Zones => speaker.ask(&handle, Query::Zones).await,
        Request::Certs => speaker.ask(&handle, Query::Certificates).await,
        Request::Bans => speaker.ask(&handle, Query::Bans).await,
        Request::Ban { ip, seconds } => {
            let lasts = seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
            speaker.ask(&handle, Query::Ban { ip, lasts }).await
        }
        Request::Unban { ip } => speaker.ask(&handle, Query::Unban(ip)).await,
        Request::RenewCert { host } => speaker.ask(&handle, Query::Renew(host)).await,
        Request::Logs { app, lines, follow: false, since_ms: _ } => match handle.output.last(&app, bounded(lines)).await {
            Ok(past) => {
                speaker.lines(past.into_iter()).await?;
                speaker.done(Value::Null).await
            }
            Err(error) => speaker.refuse(error.to_string()).await,
        },
        Request::Logs { app, lines, follow: true, since_ms } => match handle.output.follow(&app, bounded(lines), since_ms).await {
            Ok((past, news)) => {
                speaker.write_within = FOLLOWER_WITHIN;
                speaker.lines(past.into_iter()).await?;
                speaker.follow(news, lines_in.into_inner().into_inner()).await
            }
            Err(error) => speaker.refuse(error.to_string()).await,
        },
        Request::Why { id } => match handle.why(id).await {
            Some(Ok(account)) => speaker.done(json!(account)).await,
            Some(Err(error)) => speaker.refuse(error).await,
            None => speaker.refuse(NO_EDGE.to_owned()).await,
        },
        Request::Reload => match speaker.reload(&handle).await? {
            Ok(generation) => speaker.done(json!({ "generation": generation, "config": handle.config() })).await,
            Err(error) => {
                let kind = match &error {
                    ReloadError::Configuration(_) | ReloadError::Fixed { .. } | ReloadError::Place(_) => Failure::Configuration,
                    ReloadError::Bind(_) | ReloadError::Edge(_) | ReloadError::Stopping => Failure::Refused,
                };
                speaker.say(&Answer::Failed { error: error.story(), kind }).await
            }
        },
        Request::Upgrade => {
            let client = AsRef::<UnixStream>::as_ref(&speaker.write).as_fd().try_clone_to_owned()?;
            let error = handle.upgrade(client).await;
            speaker.refuse(error.story()).await
        }
        Request::Start { app } => speaker.order(&handle, app, Order::Start).await,
        Request::Stop { app } => speaker.order(&handle, app, Order::Stop).await,
        Request::Restart { app } => speaker.order(&handle, app, Order::Restart).await,
        Request::Scale { app, procs } => match handle.may_scale(&app, procs) {
            Ok(()) => speaker.order(&handle, app, Order::Scale(procs)).await,
            Err(error) => speaker.refuse(format!("could not scale {app}: {}", error.story())).await,
        },
        Request::Deploy { app, dir } => {
            let words = handle.deploys.ask(app, Wish::Deploy { dir }, uid).await;
            speaker.pass_on(words).await
        }
        Request::Maintenance { site, on } => match handle.maintain(&site, on).await {
            Ok(message) => speaker.done(json!({ "message": message })).await,
            Err(error) => speaker.refuse(chain(&error)).await,
        },
        Request::Releases { app } => match handle.releases(&app) {
            Some(releases) => speaker.done(json!(releases)).await,
            None => speaker.refuse(format!("there is no app {:?}", app.as_str())).await,
        },
        Request::Rollback { app, to } => {
            let words = handle.deploys.ask(app, Wish::Rollback { to }, uid).await;
            speaker.pass_on(words).await
        }
    }
}

/// Answers whoever asked the binary before for this one.
pub async fn answer(client: OwnedFd, answer: &Answer) -> io::Result<()> {
    let stream = std::os::unix::net::UnixStream::from(client);
    stream.set_nonblocking(true)?;
    // The other half is kept until the end: a client that hangs up is no error of ours.
    let (_read, write) = UnixStream::from_std(stream)?.into_split();
    Speaker { write, write_within: IDLE }.say(answer).await
}

struct Speaker {
    write: OwnedWriteHalf,
    /// How long a client may leave us waiting with a line.
    write_within: Duration,
}

fn bounded(lines: u32) -> usize {
    usize::try_from(lines.min(MOST_LINES)).unwrap_or(0)
}

impl Speaker {
    async fn say(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.write(&line).await
    }

    async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        timeout(self.write_within, self.write.write_all(text)).await?
    }

    async fn done(&mut self, result: Value) -> io::Result<()> {
        self.say(&Answer::Done { result }).await
    }

    async fn refuse(&mut self, error: String) -> io::Result<()> {
        self.say(&Answer::Failed { error, kind: Failure::Refused }).await
    }

    /// Many lines in few writes.
    async fn lines(&mut self, lines: impl Iterator<Item = LogLine>) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &Answer::Line(line))?;
            text.push(b'\n');
            if text.len() >= JOIN {
                self.write(&text).await?;
                text.clear();
            }
        }
        self.write(&text).await
    }

    /// Until the client leaves, or the app is removed.
    async fn follow(&mut self, mut news: mpsc::Receiver<News>, mut read: OwnedReadHalf) -> io::Result<()> {
        let mut byte = [0; 64];
        loop {
            let one = tokio::select! {
                one = news.recv() => one,
                // It has nothing to say any more: this is its end, or noise.
                read = read.read(&mut byte) => match read {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => return Ok(()),
                },
            };
            match one {
                Some(News::Lines(batch)) => self.lines(batch.lines().map(|line| batch.line(line))).await?,
                Some(News::Lost(lines)) => self.say(&Answer::Lost { lines }).await?,
                None => return self.done(json!({ "message": "the app was removed by the configuration" })).await,
            }
        }
    }

    async fn ask(&mut self, handle: &Handle, query: Query) -> io::Result<()> {
        match handle.ask(query).await {
            Some(result) => match result.get("error").and_then(Value::as_str) {
                Some(error) => self.refuse(error.to_owned()).await,
                None => self.done(result).await,
            },
            None => self.refuse(NO_EDGE.to_owned()).await,
        }
    }

    async fn order(&mut self, handle: &Handle, app: AppName, order: Order) -> io::Result<()> {
        let words = handle.order(app, order).await;
        self.pass_on(words).await
    }

    /// A reload that has to wait says for what.
    async fn reload(&mut self, handle: &Handle) -> io::Result<Result<Generation, ReloadError>> {
        let deploys = handle.deploys.switching();
        if !deploys.is_empty() {
            let apps = deploys.iter().map(AppName::as_str).collect::<Vec<_>>().join(", ");
            self.say(&Answer::Progress { text: format!("{apps}: a deploy is under way; a change of its block waits for that") }).await?;
        }
        Ok(handle.reload().await)
    }

    async fn pass_on(&mut self, mut words: mpsc::Receiver<Word>) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + ORDER_WITHIN;
        loop {
            match tokio::time::timeout_at(deadline, words.recv()).await {
                Ok(Some(Word::Progress(text))) => self.say(&Answer::Progress { text }).await?,
                Ok(Some(Word::Done(text))) => return self.done(json!({ "message": text })).await,
                Ok(Some(Word::Failed(error))) => return self.refuse(error).await,
                Ok(None) => return self.refuse("gateway is stopping".to_owned()).await,
                Err(_) => return self.refuse("it is still under way after an hour; see `gateway apps`".to_owned()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_master_with_the_same_run_does_not_steal_the_socket_of_the_first() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("gateway.sock");
        let first = open(&path).expect("free");
        assert!(matches!(open(&path), Err(error @ ControlError::Taken { .. }) if error.advice().is_some()));
        drop(first);
        open(&path).expect("what a dead master left is replaced");
    }
}
