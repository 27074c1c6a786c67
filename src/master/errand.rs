//! A command that is run for an app beside its processes (`before`, `before_start`): as they are, waited for, ended when it is late.
//!
//! Shape: TERM at its deadline, KILL when the app's own patience is over; what it leaves running ends with it. Its output is in the app's log, its last lines in the error.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    master::{
        child::{Identity, SpawnError},
        nursery::Nursery,
        outfit,
        output::{CommandPipes, Output, Tail},
    },
    plan::App,
    rules::restart::Exit,
    vocab::{AppName, units::duration_text},
};

#[cfg(test)]
mod tests;

/// From KILL until nothing more is expected of it.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// From its end until its last words are read; what it left behind may hold its pipes open for ever.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// How a command did not do what it was to do.
#[derive(Debug, Error)]
pub enum BeforeError {
    #[error("could not {0}")]
    Spawn(#[from] SpawnError),
    #[error("it ended with {exit} after {}", duration_text(*took))]
    Failed { exit: Exit, took: Duration, last: Vec<String> },
    #[error("it took longer than {} and was ended", duration_text(*within))]
    Late { within: Duration, last: Vec<String> },
    #[error("gateway is stopping")]
    Stopping,
}

impl BeforeError {
    /// The last lines of its output.
    #[must_use]
    pub fn last(&self) -> &[String] {
        match self {
            Self::Failed { last, .. } | Self::Late { last, .. } => last,
            Self::Spawn(_) | Self::Stopping => &[],
        }
    }

    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Spawn(error) => error.advice(),
            Self::Late { .. } => Some("give it longer (deploy.before_timeout, before_start.timeout), if that is what it needs"),
            Self::Failed { .. } | Self::Stopping => None,
        }
    }
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    pub app: &'a AppName,
    /// With the directory that it is to run in.
    pub spec: &'a App,
    /// The instance that it is run for; `None`: the whole app.
    pub n: Option<u16>,
    pub words: &'a [String],
    pub within: Duration,
}

/// Where commands are run.
pub struct Bench {
    pub nursery: Nursery,
    pub output: Output,
    /// Soft and hard limit of open files that we were started with.
    pub nofile: Option<(u64, u64)>,
    /// `{exe}`
    pub exe: PathBuf,
}

impl Bench {
    /// Gives how long it took.
    pub async fn run(&self, errand: Errand<'_>, stop: &mut watch::Receiver<bool>) -> Result<Duration, BeforeError> {
        let begun = Instant::now();
        let Errand { app: _, spec, n: _, words: _, within } = errand;
        let Command { pid, mut ended, mut left, mut pipes } = self.spawn(errand)?;
        let (until, mut over) = (begun + within, false);
        let late = loop {
            tokio::select! {
                exit = &mut ended => return close(exit.unwrap_or(Exit::Signal(libc::SIGKILL)), begun, &mut pipes).await,
                // Over is over: what it left running ends with it.
                Ok(()) = &mut left, if !over => {
                    over = true;
                    self.nursery.kill_group(pid);
                }
                () = sleep_until(until) => break true,
                () = told(stop) => break false,
            }
        };
        self.nursery.stop(pid, Signal::SIGTERM, spec.stop.timeout);
        if timeout(spec.stop.timeout, &mut ended).await.is_err() {
            self.nursery.kill_group(pid);
            // One that even KILL cannot end is the nursery's from here on.
            let _ = timeout(GONE_WITHIN, &mut ended).await;
        }
        if !late {
            return Err(BeforeError::Stopping);
        }
        let _ = timeout(READ_WITHIN, pipes.read.recv()).await;
        Err(BeforeError::Late { within, last: pipes.tail.lines() })
    }

    fn spawn(&self, errand: Errand<'_>) -> Result<Command, BeforeError> {
        let Errand { app: name, spec: app, n, words, within: _ } = errand;
        let identity = Identity::of(app.user.as_deref(), app.group.as_deref())?;
        let fill = |text: &str| {
            let text = text.replace("{exe}", &self.exe.to_string_lossy());
            OsString::from(n.map_or(text.clone(), |n| text.replace("{n}", &n.to_string())))
        };
        let argv = words.iter().map(|word| fill(word)).collect();
        let mut env = outfit::environment(&identity);
        for (variable, value) in &app.env_file {
            env.insert(variable.into(), value.reveal().into());
        }
        // It has no address: what speaks of one is not for it.
        let speaks = |text: &str| text.contains("{port}") || text.contains("{socket}");
        for (variable, value) in app.env.iter().filter(|(_, value)| !speaks(value.reveal())) {
            env.insert(variable.into(), fill(value.reveal()));
        }
        if let Some(n) = n {
            env.insert("GATEWAY_INSTANCE".into(), n.to_string().into());
        }
        let pipes = self.output.command_pipes(name);
        let CommandPipes { stdout, stderr, tail, read } =
            pipes.map_err(|source| SpawnError::Prepare { what: "pipes for its output".to_owned(), source })?;
        let launch = outfit::of(app, argv, env, identity, self.nofile, (stdout, stderr));
        let (tell, ended) = oneshot::channel();
        let (tell_left, left) = oneshot::channel();
        let tell_left = move |_, _| {
            // Nobody asks once it was told to stop.
            let _ = tell_left.send(());
        };
        let pid = self.nursery.spawn_family(launch, tell_left, move |exit| {
            // Nobody waits for one that has outlived KILL.
            let _ = tell.send(exit);
        })?;
        tail.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
        Ok(Command { pid, ended, left, pipes: Pipes { tail, read } })
    }
}

/// One that runs.
struct Command {
    pid: Pid,
    ended: oneshot::Receiver<Exit>,
    /// It has ended, and others that came of it go on.
    left: oneshot::Receiver<()>,
    pipes: Pipes,
}

/// What is left of the pipes when the command has its ends.
struct Pipes {
    tail: Arc<Tail>,
    read: mpsc::Receiver<()>,
}

async fn close(exit: Exit, begun: Instant, pipes: &mut Pipes) -> Result<Duration, BeforeError> {
    let took = whole(begun.elapsed());
    if exit == Exit::Code(0) {
        return Ok(took);
    }
    let _ = timeout(READ_WITHIN, pipes.read.recv()).await;
    Err(BeforeError::Failed { exit, took, last: pipes.tail.lines() })
}

/// Until gateway stops.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left who could say it.
        std::future::pending::<()>().await;
    }
}

/// To the millisecond below a second, else to the second: as one tells it.
fn whole(time: Duration) -> Duration {
    if time < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(time.as_secs())
    }
}
