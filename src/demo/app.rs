//! The demo app's process: its listener, its connections, its vices.
//!
//! Shape: TERM and INT: accepts no more, closes WebSockets, finishes what is under way, ends with 0 within 10 s.

use std::{
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::unistd::{dup2_stderr, dup2_stdout};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{
    Listen, Spec,
    route::{App, Outcome},
    say::say,
};

use crate::vocab::lock;

const CONNECTIONS: usize = 8_192;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Why the app ended.
#[derive(Debug, Error)]
pub enum AppError {
    #[error("start a runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("listen on port {port}: {source}")]
    Port { port: u16, source: io::Error },
    #[error("listen on {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("start a process: {0}")]
    Grandchild(#[source] io::Error),
}

/// Errors: [`AppError`], when it cannot start; once it serves nothing stops it but a signal or a vice.
pub fn run(spec: Spec) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(live(spec))
}

async fn live(spec: Spec) -> Result<(), AppError> {
    let app = Arc::new(App { spec, started: Instant::now() });
    let spec = &app.spec;
    let mut term = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
    let mut int = signal(SignalKind::interrupt()).map_err(AppError::Runtime)?;
    if spec.grandchild {
        let child = std::process::Command::new("sleep").arg("300").spawn().map_err(AppError::Grandchild)?;
        say(&format!("left process {} behind", child.id()));
    }
    vices(spec);
    // One value, no queue: whether to stop.
    let (stop, stopping) = watch::channel(false);
    let mut work = pin!(serve(app.clone(), stopping));
    let exit = async {
        match spec.exit_after {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let mut exit = pin!(exit);
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = &mut exit => {
                say(&format!("exiting with {} as asked", spec.exit_code));
                std::process::exit(i32::from(spec.exit_code));
            }
            _ = term.recv() => {
                if spec.ignore_term {
                    say("ignoring TERM");
                } else {
                    stop.send_replace(true);
                }
            }
            _ = int.recv() => {
                stop.send_replace(true);
            }
        }
    }
}

/// Those that need no server.
fn vices(spec: &Spec) {
    if spec.close_stdout {
        // The pipes see their end; a descriptor that is merely closed would be the next connection's.
        let closed = std::fs::File::options().write(true).open("/dev/null").and_then(|null| {
            dup2_stdout(&null)?;
            dup2_stderr(&null)?;
            Ok(())
        });
        if let Err(error) = closed {
            say(&format!("could not close stdout: {error}"));
        }
    }
    if spec.flood {
        std::thread::spawn(|| {
            let line = format!("{}\n", "flood ".repeat(20));
            let lines = line.repeat(500);
            // Locked anew each time: the others have a word too.
            while io::stdout().write_all(lines.as_bytes()).is_ok() {}
        });
    }
    if spec.leak_mb_per_second > 0 {
        let megabytes = spec.leak_mb_per_second;
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; megabytes << 20]);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

async fn serve(app: Arc<App>, mut stopping: watch::Receiver<bool>) -> Result<(), AppError> {
    let spec = &app.spec;
    tokio::select! {
        () = sleep(spec.boot) => {}
        () = stopped(&mut stopping) => return Ok(()),
    }
    let who = format!("{}.{}", spec.name, spec.instance);
    match &spec.listen {
        _ if spec.never_listen => {
            say(&format!("{who} runs and does not listen"));
            stopped(&mut stopping).await;
            Ok(())
        }
        Listen::Nothing => {
            notify();
            for n in 0_u64.. {
                say(&format!("{who} worked on job {n}"));
                if timeout(Duration::from_secs(1), stopped(&mut stopping)).await.is_ok() {
                    break;
                }
            }
            Ok(())
        }
        Listen::Port(port) => {
            let listener = TcpListener::bind(("127.0.0.1", *port)).await.map_err(|source| AppError::Port { port: *port, source })?;
            notify();
            say(&format!("{who} listens on port {port}"));
            accept(app.clone(), stopping, listener).await;
            Ok(())
        }
        Listen::Socket(path) => {
            let failed = |source| AppError::Socket { path: path.clone(), source };
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(path).map_err(failed)?;
            // Who may come in is decided by the directory; the edge has a user of its own.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
            notify();
            say(&format!("{who} listens on {}", path.display()));
            accept(app.clone(), stopping, listener).await;
            Ok(())
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Errs only where the sender is gone, which means the same.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Source: sd_notify(3).
fn notify() {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    };
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let addr = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = addr.and_then(|addr| UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &addr));
    if let Err(error) = sent {
        say(&format!("could not notify {path}: {error}"));
    }
}

/// A port or a socket.
trait Listening {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listening for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listening for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

async fn accept(app: Arc<App>, stopping: watch::Receiver<bool>, listener: impl Listening) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = stopping.clone();
    let deaf = async {
        match app.spec.stop_accepting_after {
            Some(after) => sleep(after.saturating_sub(app.started.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    let mut deaf = pin!(deaf);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = &mut deaf => {
                stopped(&mut stop).await;
                break;
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (slot, accepted) = async { (slots.clone().acquire_owned().await, listener.next().await) } => match accepted {
                Ok(stream) => {
                    let (app, stopping) = (app.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection(stream, app, stopping).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    say(&format!("could not accept: {error}"));
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    drop(timeout(DRAIN_TIME, async { while connections.join_next().await.is_some() {} }).await);
}

async fn connection<S>(stream: S, app: Arc<App>, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // What the connection goes on as, after its 101.
    let upgrade = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (app, upgrade) = (app.clone(), upgrade.clone());
        async move {
            Ok::<_, io::Error>(match app.answer(request).await? {
                Outcome::Answer(answer) => answer,
                Outcome::Upgrade(answer, on) => {
                    *lock(&upgrade) = Some(on);
                    answer
                }
            })
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    // An error is the client's or a vice of ours: nothing to do about it.
    tokio::select! {
        result = &mut connection => drop(result),
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
    let upgrade = lock(&upgrade).take();
    if let Some(upgrade) = upgrade
        && let Ok(stream) = upgrade.await
    {
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        echo(socket, stopping).await;
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                // Pings are answered and a close is confirmed as we read on.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return,
            },
            () = stopped(&mut stopping) => {
                drop(timeout(Duration::from_secs(1), socket.close(None)).await);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
