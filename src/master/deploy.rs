//! Deploys and rollbacks: from a directory to a release that serves, or to the reason why it does not.
//!
//! Shape: one of an app at a time, each in a task of its own, which goes on when whoever asked has gone. `before` commands run first, beside everything else;
//!        then the supervisor puts the new release in the place of the old. No deploy begins to do so, or is written down, while a reload comes into force. A reload that leaves
//!        the app's block as it is waits for no deploy; one that changes it waits for that one's end: the two would work on one app at once.
//! Errors: whatever fails, the old release serves; what was tried is remembered with the reason.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;
use tokio::{
    sync::{RwLock, RwLockReadGuard, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    clock::{Clock, rfc3339},
    errand::{BeforeError, Bench, Errand, told},
    nursery::Nursery,
    output::Output,
    releases::{Ledger, origin},
    score::Score,
    supervisor,
    table::Table,
    words::Word,
};
use crate::{
    ipc::message::InstanceState,
    plan::{App, AppPort},
    rules::release::{Candidate, Release, ReleaseId, Standing},
    store::releases::SaveError,
    vocab::{AppName, chain::chain, units::duration_text},
};

/// A directory is looked at in this time, or on a disk that does not answer.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// What is to serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    /// `None`: the configuration's `dir`, where its links lead now.
    Deploy { dir: Option<PathBuf> },
    /// The release before, or the one of this number, id or directory.
    Rollback { to: Option<String> },
}

/// From the control socket. `tell` hears how it goes, and last `Done` or `Failed`.
#[derive(Debug)]
pub struct Ask {
    pub app: AppName,
    pub wish: Wish,
    /// The user who asks.
    pub by: u32,
    pub tell: mpsc::Sender<Word>,
}

/// Why the old release serves on.
#[derive(Debug, Error)]
pub enum DeployError {
    #[error("there is no app of this name")]
    NoApp,
    #[error("it is a job, and its next run takes what it finds in its `dir`")]
    Job,
    #[error("it is stopped")]
    Stopped,
    #[error("it listens on a fixed port, where two releases have no room beside each other")]
    FixedPort,
    #[error("the configuration has no `dir` for it")]
    NoDir,
    #[error("{0}")]
    UnderWay(UnderWay),
    #[error("there is no release before this one")]
    NothingBefore,
    #[error("no release is called {0:?}")]
    NoRelease(String),
    #[error("release {0} serves already")]
    Serves(String),
    #[error("release {to} has never served: {why}")]
    NeverServed { to: String, why: String },
    #[error("directory {} cannot be used", dir.display())]
    Dir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no directory", dir.display())]
    NotDir { dir: PathBuf },
    #[error("the path {} is not absolute", dir.display())]
    Relative { dir: PathBuf },
    #[error("the path {} is no text (UTF-8)", dir.display())]
    NotText { dir: PathBuf },
    #[error("directory {} could not be looked at within {}", dir.display(), duration_text(LOOK_WITHIN))]
    Slow { dir: PathBuf },
    #[error("before {nth}/{all} ({command}) failed, nothing else was changed: {error}")]
    Before { nth: usize, all: usize, command: String, error: BeforeError },
    #[error("{why}")]
    Unproven { why: String },
    #[error("gateway is stopping")]
    Stopping,
}

impl DeployError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Stopped => Some("`gateway start APP` first, or change its `dir`"),
            Self::FixedPort => {
                Some("write {port} or {socket} into its command and take `port` out, or put the files in place and `gateway restart APP`")
            }
            Self::NoDir => Some("name one with --dir"),
            Self::NothingBefore | Self::NeverServed { .. } => Some("`gateway deploy APP --dir DIR` takes any directory"),
            Self::NoRelease(_) => Some("`gateway releases APP` lists them: by number, id or directory"),
            Self::Serves(_) => Some("`gateway restart APP` replaces its processes"),
            Self::Dir { source, .. } if source.kind() == io::ErrorKind::NotFound => Some("create it, or correct --dir"),
            Self::Before { error, .. } => error.advice(),
            Self::NoApp
            | Self::Job
            | Self::UnderWay(_)
            | Self::Dir { .. }
            | Self::NotDir { .. }
            | Self::Relative { .. }
            | Self::NotText { .. }
            | Self::Slow { .. }
            | Self::Unproven { .. }
            | Self::Stopping => None,
        }
    }

    /// The whole story: a line, and under it what a command said last.
    fn story(&self) -> String {
        let mut text = chain(self);
        if let Some(advice) = self.advice() {
            text.push_str(&format!(" ({advice})"));
        }
        if let Self::Before { error, .. } = self
            && !error.last().is_empty()
        {
            text.push_str("\nits last lines:");
            for line in error.last() {
                text.push_str(&format!("\n  {line}"));
            }
        }
        text
    }
}

/// A deploy or rollback that has begun.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnderWay {
    wish: Wish,
    by: u32,
    /// As RFC 3339.
    since: String,
    /// Its new processes are being put in place: reloads wait.
    switching: bool,
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wish, by, since, switching: _ } = self;
        match wish {
            Wish::Deploy { dir: Some(dir) } => write!(f, "a deploy of {} is under way", dir.display())?,
            Wish::Deploy { dir: None } => write!(f, "a deploy of its `dir` is under way")?,
            Wish::Rollback { .. } => write!(f, "a rollback is under way")?,
        }
        write!(f, " since {since}, asked for by user {by}")
    }
}

type Board = BTreeMap<AppName, UnderWay>;

/// What others may ask of it.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    board: watch::Receiver<Board>,
    stop: watch::Sender<bool>,
}

impl Handle {
    /// Words arrive until `Done` or `Failed`; a reader that goes away stops nothing.
    pub async fn ask(&self, app: AppName, wish: Wish, by: u32) -> mpsc::Receiver<Word> {
        // A client that reads slowly loses progress beyond this, never the end.
        let (tell, words) = mpsc::channel(64);
        let _ = self.asks.send(Ask { app, wish, by, tell }).await;
        words
    }

    /// Apps whose new release is being put in place.
    #[must_use]
    pub fn switching(&self) -> Vec<AppName> {
        self.board.borrow().iter().filter(|(_, under_way)| under_way.switching).map(|(app, _)| app.clone()).collect()
    }

    /// Until no new release of the app is being put in place.
    pub async fn settled(&self, app: &AppName) {
        // The deployer goes only with everything else.
        let _ = self.board.clone().wait_for(|board| board.get(app).is_none_or(|under_way| !under_way.switching)).await;
    }

    /// Whether anything is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.board.borrow().is_empty()
    }

    /// No new ones; commands that run are ended.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// What the room needs from others.
pub struct Wiring {
    pub clock: Clock,
    pub nursery: Nursery,
    pub output: Output,
    pub ledger: Ledger,
    pub supervisor: mpsc::Sender<supervisor::Message>,
    pub score: watch::Receiver<Score>,
    pub table: watch::Receiver<Table>,
    /// Held for reading while a deploy begins to put its release in place and while it is written down, for writing while a reload comes into force.
    pub gate: Arc<RwLock<()>>,
}

/// The actor.
pub struct Deployer {
    shared: Arc<Shared>,
    asks: mpsc::Receiver<Ask>,
    stop: watch::Receiver<bool>,
}

/// What every deploy has.
struct Shared {
    clock: Clock,
    bench: Bench,
    ledger: Ledger,
    supervisor: mpsc::Sender<supervisor::Message>,
    score: watch::Receiver<Score>,
    table: watch::Receiver<Table>,
    gate: Arc<RwLock<()>>,
    board: watch::Sender<Board>,
}

impl Deployer {
    #[must_use]
    pub fn new(wiring: Wiring) -> (Self, Handle) {
        let Wiring { clock, nursery, output, ledger, supervisor, score, table, gate } = wiring;
        // As many ask at once as there are control connections; more wait at the door.
        let (to, asks) = mpsc::channel(32);
        let (board, seen) = watch::channel(Board::new());
        let (stopper, stop) = watch::channel(false);
        let bench = Bench {
            nursery,
            output,
            nofile: getrlimit(Resource::RLIMIT_NOFILE).ok(),
            exe: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
        };
        let shared = Arc::new(Shared { clock, bench, ledger, supervisor, score, table, gate, board });
        (Self { shared, asks, stop }, Handle { asks: to, board: seen, stop: stopper })
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.begin(ask, &mut tasks),
                    None => return,
                },
                Some(ended) = tasks.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a deploy broke off");
                },
            }
        }
    }

    fn begin(&self, Ask { app, wish, by, tell }: Ask, tasks: &mut JoinSet<()>) {
        let word = wish.word();
        let refusal = match self.shared.board.borrow().get(&app) {
            Some(other) => Some(DeployError::UnderWay(other.clone())),
            None if *self.stop.borrow() => Some(DeployError::Stopping),
            None => None,
        };
        if let Some(error) = refusal {
            // The channel is new and empty.
            let _ = tell.try_send(Word::Failed(format!("could not {word} {app}: {}", error.story())));
            return;
        }
        let under_way = UnderWay { wish: wish.clone(), by, since: self.shared.time(), switching: false };
        self.shared.board.send_modify(|board| drop(board.insert(app.clone(), under_way)));
        let mark = Mark { shared: self.shared.clone(), app: app.clone() };
        let job = Job { shared: self.shared.clone(), app, by, tell, stop: self.stop.clone() };
        tasks.spawn(async move {
            job.run(wish).await;
            drop(mark);
        });
    }
}

impl Wish {
    fn word(&self) -> &'static str {
        match self {
            Self::Deploy { .. } => "deploy",
            Self::Rollback { .. } => "roll back",
        }
    }
}

/// Takes the entry from the board, however the task ends.
struct Mark {
    shared: Arc<Shared>,
    app: AppName,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.shared.board.send_modify(|board| drop(board.remove(&self.app)));
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        i64::try_from(self.clock.wall(self.clock.now())).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
    }

    fn time(&self) -> String {
        rfc3339(self.clock.wall(self.clock.now()))
    }
}

/// One deploy or rollback.
struct Job {
    shared: Arc<Shared>,
    app: AppName,
    by: u32,
    tell: mpsc::Sender<Word>,
    stop: watch::Receiver<bool>,
}

impl Job {
    async fn run(mut self, wish: Wish) {
        let app = self.app.clone();
        let (word, result) = (
            wish.word(),
            match wish {
                Wish::Deploy { dir } => self.deploy(dir).await,
                Wish::Rollback { to } => self.roll_back(to).await,
            },
        );
        match result {
            Ok(text) => {
                tracing::info!(%app, by = self.by, "{text}");
                // There is room: progress leaves the last place free. Whoever asked may have gone.
                let _ = self.tell.try_send(Word::Done(text));
            }
            Err(error) => {
                // The supervisor's own words name the app.
                let head = if matches!(error, DeployError::Unproven { .. }) { String::new() } else { format!("could not {word} {app}: ") };
                let text = format!("{head}{}", error.story());
                tracing::error!(%app, by = self.by, error = chain(&error), "could not {word}, the release before serves on");
                let _ = self.tell.try_send(Word::Failed(text));
            }
        }
    }

    fn say(&self, text: String) {
        if self.tell.capacity() > 1 {
            let _ = self.tell.try_send(Word::Progress(text));
        }
    }

    async fn deploy(&mut self, dir: Option<PathBuf>) -> Result<String, DeployError> {
        let spec = self.spec()?;
        let wanted = match dir {
            Some(dir) => dir,
            None => self.shared.ledger.configured(&self.app).flatten().ok_or(DeployError::NoDir)?,
        };
        let dir = resolve(wanted).await?;
        let candidate =
            Candidate { id: self.shared.ledger.history(&self.app).next_id(self.shared.now()), dir, at: self.shared.time(), by: self.by };
        let Candidate { id, dir, .. } = &candidate;
        tracing::info!(app = %self.app, release = %id, dir = %dir.display(), by = self.by, "deploy begins");
        let done = format!("{} is deployed: release {id} from {}", self.app, dir.display());
        let result = match self.before(&spec, dir).await {
            Ok(()) => self.put_in_place(*id, dir.clone(), Record::Deployed(candidate.clone())).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            let (ledger, app, why) = (self.shared.ledger.clone(), self.app.clone(), chain(error));
            self.note(move || ledger.failed(&app, candidate, why)).await;
        }
        result.map(|()| done)
    }

    async fn roll_back(&mut self, to: Option<String>) -> Result<String, DeployError> {
        self.spec()?;
        let history = self.shared.ledger.history(&self.app);
        let release = match to {
            None => history.previous().ok_or(DeployError::NothingBefore)?,
            Some(to) => match history.named(&to) {
                None => return Err(DeployError::NoRelease(to)),
                Some(Release { standing: Standing::Current, .. }) => return Err(DeployError::Serves(to)),
                Some(Release { standing: Standing::Failed { why }, .. }) => return Err(DeployError::NeverServed { to, why: why.clone() }),
                Some(release) => release,
            },
        };
        let release = release.clone();
        let dir = resolve(release.dir).await?;
        tracing::info!(app = %self.app, release = %release.id, dir = %dir.display(), by = self.by, "rollback begins");
        let done = format!("{} is rolled back to release {} from {}", self.app, release.id, dir.display());
        self.put_in_place(release.id, dir, Record::RolledBack(release.id)).await?;
        Ok(done)
    }

    /// The app as the configuration in force has it, if it can be deployed.
    fn spec(&self) -> Result<App, DeployError> {
        let plan = self.shared.score.borrow().plan.clone();
        let spec = plan.apps.get(&self.app).ok_or(DeployError::NoApp)?;
        if spec.schedule.is_some() {
            return Err(DeployError::Job);
        }
        if matches!(spec.port, AppPort::Fixed { .. }) {
            return Err(DeployError::FixedPort);
        }
        let table = self.shared.table.borrow();
        let mut of_app = table.apps.instances.iter().filter(|instance| instance.id.app == self.app);
        if of_app.all(|instance| matches!(instance.state, InstanceState::Stopped | InstanceState::Stopping)) {
            return Err(DeployError::Stopped);
        }
        Ok(spec.clone())
    }

    async fn before(&mut self, spec: &App, dir: &Path) -> Result<(), DeployError> {
        let spec = App { dir: Some(dir.to_owned()), ..spec.clone() };
        let all = spec.before.len();
        for (words, nth) in spec.before.iter().zip(1..) {
            let command = words.join(" ");
            self.say(format!("before {nth}/{all}: {command}"));
            let errand = Errand { app: &self.app, spec: &spec, n: None, words, within: spec.deploy.before_timeout };
            match self.shared.bench.run(errand, &mut self.stop).await {
                Ok(took) => {
                    tracing::info!(app = %self.app, command, took = duration_text(took), "a command before the deploy has ended well");
                    self.say(format!("before {nth}/{all} is done after {}", duration_text(took)));
                }
                Err(BeforeError::Stopping) => return Err(DeployError::Stopping),
                Err(error) => return Err(DeployError::Before { nth, all, command, error }),
            }
        }
        Ok(())
    }

    /// The new processes beside the old, until they have taken over or have failed. What is recorded is so before a reload can come.
    async fn put_in_place(&mut self, id: ReleaseId, dir: PathBuf, record: Record) -> Result<(), DeployError> {
        let shared = self.shared.clone();
        let gate = self.pass_gate(&shared.gate).await?;
        self.shared.board.send_modify(|board| {
            if let Some(under_way) = board.get_mut(&self.app) {
                under_way.switching = true;
            }
        });
        // A reload may have changed the app meanwhile.
        let spec = App { dir: Some(dir.clone()), release: Some(id.to_string()), ..self.spec()? };
        let ran = self.ran(dir.clone()).await;
        self.say(format!("starting release {id} from {} beside the one before", dir.display()));
        let words = self.hand_over(Arc::new(spec)).await?;
        // From here on a reload may come: what it must not do is between this and the record.
        drop(gate);
        self.supervise(words).await?;
        let _gate = tokio::select! {
            open = shared.gate.read() => Some(open),
            () = told(&mut self.stop) => None,
        };
        let (ledger, app, at, now) = (self.shared.ledger.clone(), self.app.clone(), self.shared.time(), self.shared.now());
        self.note(move || match record {
            Record::Deployed(candidate) => ledger.deployed(&app, candidate, ran),
            Record::RolledBack(to) => ledger.rolled_back(&app, to, ran, &at, now),
        })
        .await;
        let _ = self.shared.supervisor.send(supervisor::Message::Recorded { app: self.app.clone() }).await;
        Ok(())
    }

    async fn pass_gate<'a>(&mut self, gate: &'a RwLock<()>) -> Result<RwLockReadGuard<'a, ()>, DeployError> {
        if let Ok(open) = gate.try_read() {
            return Ok(open);
        }
        self.say("waiting for a reload to end".to_owned());
        tokio::select! {
            open = gate.read() => Ok(open),
            () = told(&mut self.stop) => Err(DeployError::Stopping),
        }
    }

    async fn hand_over(&mut self, spec: Arc<App>) -> Result<mpsc::Receiver<Word>, DeployError> {
        // Read at once; the supervisor loses progress beyond this, never the end.
        let (tell, words) = mpsc::channel(64);
        let message = supervisor::Message::Deploy { app: self.app.clone(), spec, tell };
        self.shared.supervisor.send(message).await.map_err(|_| DeployError::Stopping)?;
        Ok(words)
    }

    /// Until the supervisor has the last word.
    async fn supervise(&mut self, mut words: mpsc::Receiver<Word>) -> Result<(), DeployError> {
        loop {
            match words.recv().await {
                Some(Word::Progress(text)) => self.say(text),
                Some(Word::Done(_)) => return Ok(()),
                Some(Word::Failed(why)) => return Err(DeployError::Unproven { why }),
                None => return Err(DeployError::Stopping),
            }
        }
    }

    /// From where the app runs that has no release; where a link leads to the new directory already, what its processes say counts.
    async fn ran(&self, new: PathBuf) -> Option<PathBuf> {
        let configured = self.shared.ledger.configured(&self.app).flatten();
        let pids: Vec<u32> = {
            let table = self.shared.table.borrow();
            table.apps.instances.iter().filter(|instance| instance.id.app == self.app).filter_map(|instance| instance.pid).collect()
        };
        let look = move || {
            let origin = origin(configured.as_deref())?;
            let stands = || pids.iter().find_map(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok().filter(|dir| dir.is_dir()));
            Some(if origin == new { stands().unwrap_or(origin) } else { origin })
        };
        timeout(LOOK_WITHIN, tokio::task::spawn_blocking(look)).await.ok()?.ok().flatten()
    }

    /// Writes to the ledger. What cannot be written is said and stops nothing.
    async fn note(&self, write: impl FnOnce() -> Result<(), SaveError> + Send + 'static) {
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(app = %self.app, error = chain(&error), "the release could not be written down: after a restart of gateway the one before counts");
            }
            Err(error) => tracing::error!(app = %self.app, %error, "the release could not be written down"),
        }
    }
}

/// How a success is remembered.
enum Record {
    Deployed(Candidate),
    RolledBack(ReleaseId),
}

/// Without links, and surely a directory.
async fn resolve(dir: PathBuf) -> Result<PathBuf, DeployError> {
    if !dir.is_absolute() {
        return Err(DeployError::Relative { dir });
    }
    let asked = dir.clone();
    let look = tokio::task::spawn_blocking(move || {
        let found = dir.canonicalize().and_then(|path| Ok((fs::metadata(&path)?.is_dir(), path)));
        match found {
            Ok((true, path)) if path.to_str().is_some() => Ok(path),
            Ok((true, dir)) => Err(DeployError::NotText { dir }),
            Ok((false, dir)) => Err(DeployError::NotDir { dir }),
            Err(source) => Err(DeployError::Dir { dir, source }),
        }
    });
    match timeout(LOOK_WITHIN, look).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(DeployError::Slow { dir: asked }),
    }
}
