//! Everything that is written down: the output of apps and of the edge, the access log, our own log.
//!
//! Shape: one thread reads every pipe and never waits for a disk, so no child ever waits for us; one thread writes; between them a bounded queue.
//!        A flood drops its own oldest lines, counted and said in the file. The access log waits instead: the edge has a bounded buffer of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use jiff::Timestamp;
use regex::bytes::Regex;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::{
        mpsc::{self, Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    task::JoinSet,
};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    ipc::{control::LogLine, message::InstanceId},
    plan::{Log, LogFormat, Plan, Rotation},
    vocab::{AppName, lock},
};
use file::LogFile;
use hub::{Batch, FollowError, Hub, News};
use lines::Cutter;
use queue::{Item, Queue, Target};

pub mod carried;
mod file;
mod history;
pub mod hub;
mod lines;
mod queue;

#[cfg(test)]
mod tests;

/// Kept of an instance's output.
const TAIL_LINES: usize = 20;
/// A longer line is cut.
const TAIL_LINE: usize = 1024;
/// What a look at the past waits for the writer.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// Until the number of a process that has just been started is known here.
const PID_WITHIN: Duration = Duration::from_millis(200);
const ACCESS_PIPE: i32 = 1024 * 1024;

/// The door to the room; cloneable.
#[derive(Clone)]
pub struct Output {
    queue: Arc<Queue<Order>>,
    /// Unbounded: one message for each process that is started.
    streams: UnboundedSender<Incoming>,
    shape: Arc<AtomicU8>,
    hub: Arc<Hub>,
    /// Where the files of apps are.
    dir: Arc<Mutex<Option<PathBuf>>>,
    /// Records of the access log that came here and could not be written.
    access_lost: Arc<AtomicU64>,
}

/// What is written, where, and how it is put aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    dir: Option<PathBuf>,
    access: bool,
    rotate: Rotation,
    apps: BTreeMap<AppName, Rotation>,
    format: LogFormat,
}

impl Files {
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let Log { level: _, format, dir, access, rotate } = &plan.log;
        Self {
            dir: dir.clone(),
            access: access.is_some(),
            rotate: rotate.clone(),
            apps: plan.apps.iter().map(|(name, app)| (name.clone(), app.log.clone())).collect(),
            format: *format,
        }
    }
}

enum Order {
    Files(Box<Files>),
    Reopen,
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// How a line of an app stands in its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    Raw,
    /// `app.n | `
    Prefix,
    Json,
}

impl Shape {
    fn of(files: &Files) -> Self {
        match (files.format, &files.dir) {
            (LogFormat::Json, _) => Self::Json,
            (LogFormat::Text, Some(_)) => Self::Raw,
            (LogFormat::Text, None) => Self::Prefix,
        }
    }

    fn load(from: &AtomicU8) -> Self {
        [Self::Raw, Self::Prefix, Self::Json].into_iter().find(|shape| *shape as u8 == from.load(Relaxed)).unwrap_or(Self::Raw)
    }
}

/// Called once, at the first line of an incarnation that matches.
pub type Seen = Box<dyn FnOnce() + Send>;

/// A line to wait for, as `ready = { log = "…" }` asks.
pub struct Awaited {
    pub pattern: Regex,
    pub seen: Seen,
}

/// What the reader thread is told.
enum Incoming {
    Stream(Stream),
    /// To read nothing more, and give back every pipe as it stands.
    Pause(oneshot::Sender<Vec<Stream>>),
}

/// A pipe, and what was read of a line whose end has not come.
struct Stream {
    from: OwnedFd,
    kind: Kind,
    cutter: Cutter,
    /// Of the last line with a priority.
    level: u8,
}

impl Stream {
    fn new(from: OwnedFd, kind: Kind) -> Self {
        Self { from, kind, cutter: Cutter::default(), level: 3 }
    }
}

/// The line that both pipes of a process are looked through for, until it has come.
type Await = Arc<Mutex<Option<Awaited>>>;

enum Kind {
    App {
        err: bool,
        id: InstanceId,
        tail: Arc<Tail>,
        awaited: Await,
        /// Dropped with the stream.
        _open: Option<mpsc::Sender<()>>,
    },
    EdgeLog,
    Access,
}

/// Which lines are kept in memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kept {
    /// Those of stderr: stdout may be an access log.
    #[default]
    Stderr,
    Both,
}

/// The pipes of a command that runs once.
pub struct CommandPipes {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// The last lines of both.
    pub tail: Arc<Tail>,
    /// Closed when both were read to their end.
    pub read: mpsc::Receiver<()>,
}

/// The last lines that an incarnation wrote to stderr.
#[derive(Debug, Default)]
pub struct Tail {
    kept: Kept,
    lines: Mutex<VecDeque<String>>,
    /// 0 until it is known.
    pub pid: AtomicU32,
}

impl Tail {
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).iter().cloned().collect()
    }

    fn add(&self, line: &[u8]) {
        let whole = String::from_utf8_lossy(&line[..line.len().min(TAIL_LINE)]);
        // What is no UTF-8 takes three bytes for one.
        let cut = &whole[..whole.floor_char_boundary(TAIL_LINE)];
        let line: String = cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let mut lines = lock(&self.lines);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

impl Output {
    /// Starts both threads.
    pub fn start(files: &Files) -> io::Result<Self> {
        let queue: Arc<Queue<Order>> = Arc::default();
        let shape = Arc::new(AtomicU8::new(Shape::of(files) as u8));
        let (streams, incoming) = unbounded_channel();
        let access_lost: Arc<AtomicU64> = Arc::default();
        let mut writer =
            Writer { files: files.clone(), open: BTreeMap::new(), gzip: file::start_gzip()?, access_lost: access_lost.clone() };
        std::thread::Builder::new().name("log-writer".into()).stack_size(512 * 1024).spawn({
            let queue = queue.clone();
            move || writer.run(&queue)
        })?;
        let hub: Arc<Hub> = Arc::default();
        hub.know(&files.apps.keys().cloned().collect());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("log-reader".into()).stack_size(512 * 1024).spawn({
            let sinks = Sinks { queue: queue.clone(), shape: shape.clone(), hub: hub.clone() };
            move || runtime.block_on(read_all(incoming, sinks))
        })?;
        Ok(Self { queue, streams, shape, hub, dir: Arc::new(Mutex::new(files.dir.clone())), access_lost })
    }

    /// Where `tracing` writes.
    #[must_use]
    pub fn own_log(&self) -> OwnLog {
        OwnLog { queue: self.queue.clone() }
    }

    /// After a reload.
    pub fn configure(&self, files: Files) {
        self.shape.store(Shape::of(&files) as u8, Relaxed);
        self.hub.know(&files.apps.keys().cloned().collect());
        lock(&self.dir).clone_from(&files.dir);
        self.queue.order(Order::Files(Box::new(files)));
    }

    /// Opens every file again.
    pub fn reopen(&self) {
        self.queue.order(Order::Reopen);
    }

    /// The last `lines` lines that the app wrote.
    ///
    /// Errors: [`FollowError::Unknown`]
    pub async fn last(&self, app: &AppName, lines: usize) -> Result<Vec<LogLine>, FollowError> {
        let held = self.hub.last(app, lines)?;
        Ok(self.past(app, &held, lines).await)
    }

    /// As [`Output::last`], and what comes after it. `since_ms`: of the past only what is in memory and newer.
    ///
    /// Errors: [`FollowError`]
    pub async fn follow(&self, app: &AppName, lines: usize, since_ms: Option<i64>) -> Result<(Vec<LogLine>, Receiver<News>), FollowError> {
        let (held, news) = self.hub.follow(app, lines)?;
        if let Some(since) = since_ms {
            // Whoever was here before has had all that stands in files.
            let after = held.iter().filter(|batch| batch.at.as_millisecond() > since);
            return Ok((after.flat_map(|batch| batch.lines().map(|line| batch.line(line))).collect(), news));
        }
        Ok((self.past(app, &held, lines).await, news))
    }

    /// What memory holds, and where that is too little what stands before it in the app's file.
    async fn past(&self, app: &AppName, held: &[Arc<Batch>], lines: usize) -> Vec<LogLine> {
        let mut told: VecDeque<LogLine> = held.iter().flat_map(|batch| batch.lines().map(|line| batch.line(line))).collect();
        let dir = lock(&self.dir).clone();
        if let Some(dir) = dir.filter(|_| told.len() < lines) {
            let shape = Shape::load(&self.shape);
            let known = known(held, shape);
            let (name, count, wanted) = (app.clone(), told.len(), lines - told.len());
            // A slow disk must not hold up a restart.
            let queue = self.queue.clone();
            let read = tokio::task::spawn_blocking(move || {
                let _ = flush(&queue, FLUSH_WITHIN);
                let lines = history::before(history::read(&dir, &name)?, &known, count);
                io::Result::Ok(lines.into_iter().rev().take(wanted).collect::<Vec<_>>())
            });
            match read.await {
                Ok(Ok(before)) => before.iter().for_each(|line| told.push_front(from_file(app, line))),
                Ok(Err(error)) => tracing::warn!(%app, %error, "log file could not be read"),
                Err(error) => tracing::error!(%app, %error, "reading of a log file ended"),
            }
        }
        let surplus = told.len().saturating_sub(lines);
        told.into_iter().skip(surplus).collect()
    }

    /// The write ends of stdout and stderr for a process of an app.
    ///
    /// `kept`: of which of the two the tail is made.
    pub fn app_pipes(&self, id: &InstanceId, kept: Kept, awaited: Option<Awaited>) -> io::Result<(OwnedFd, OwnedFd, Arc<Tail>)> {
        self.pipes(id, awaited, kept, None)
    }

    /// For a command of an app that is no instance of it: its output is in the app's log, under instance 0.
    pub fn command_pipes(&self, app: &AppName) -> io::Result<CommandPipes> {
        // Nothing is ever sent: both streams hold the sender while they are read.
        let (open, read) = mpsc::channel(1);
        let (stdout, stderr, tail) = self.pipes(&InstanceId { app: app.clone(), n: 0 }, None, Kept::Both, Some(open))?;
        Ok(CommandPipes { stdout, stderr, tail, read })
    }

    fn pipes(
        &self,
        id: &InstanceId,
        awaited: Option<Awaited>,
        kept: Kept,
        open: Option<mpsc::Sender<()>>,
    ) -> io::Result<(OwnedFd, OwnedFd, Arc<Tail>)> {
        let (out, to_out) = io::pipe()?;
        let (err, to_err) = io::pipe()?;
        let tail = Arc::new(Tail { kept, ..Tail::default() });
        let awaited = Arc::new(Mutex::new(awaited));
        for (from, err) in [(out, false), (err, true)] {
            let kind = Kind::App { err, id: id.clone(), tail: tail.clone(), awaited: awaited.clone(), _open: open.clone() };
            // Refused only when the reader thread is gone; the child then writes into a closed pipe.
            let _ = self.streams.send(Incoming::Stream(Stream::new(from.into(), kind)));
        }
        Ok((to_out.into(), to_err.into(), tail))
    }

    /// The write ends of the access log and of stderr for an edge.
    pub fn edge_pipes(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (access, to_access) = io::pipe()?;
        let (log, to_log) = io::pipe()?;
        // A larger pipe is a courtesy; the limit for users that are not root may forbid it.
        let _ = nix::fcntl::fcntl(&to_access, nix::fcntl::FcntlArg::F_SETPIPE_SZ(ACCESS_PIPE));
        for (from, kind) in [(access, Kind::Access), (log, Kind::EdgeLog)] {
            let _ = self.streams.send(Incoming::Stream(Stream::new(from.into(), kind)));
        }
        Ok((to_access.into(), to_log.into()))
    }

    /// Waits until everything queued so far is written, but not longer than `within`, and ends the writer. Blocks: for the end of the process.
    pub fn finish(&self, within: Duration) {
        let _ = flush(&self.queue, within);
        self.queue.close();
    }

    /// Records of the access log that could not be written since the start: the disk is full, or the file cannot be had.
    #[must_use]
    pub fn access_lost(&self) -> u64 {
        self.access_lost.load(Relaxed)
    }

    /// Waits until everything queued so far is written; false: it was not within that time. Blocks.
    pub fn flush(&self, within: Duration) -> bool {
        flush(&self.queue, within)
    }
}

/// `tracing`'s way into the room: each event is one call; errors go to error.log too.
#[derive(Clone)]
pub struct OwnLog {
    queue: Arc<Queue<Order>>,
}

pub struct OwnLine<'a> {
    queue: &'a Queue<Order>,
    error: bool,
}

impl<'a> MakeWriter<'a> for OwnLog {
    type Writer = OwnLine<'a>;

    fn make_writer(&'a self) -> OwnLine<'a> {
        OwnLine { queue: &self.queue, error: false }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> OwnLine<'a> {
        OwnLine { queue: &self.queue, error: *meta.level() == tracing::Level::ERROR }
    }
}

impl io::Write for OwnLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log_line(self.queue, line, self.error);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_line(queue: &Queue<Order>, line: &[u8], error: bool) {
    queue.push(&Target::Gateway, line);
    if error {
        queue.push(&Target::Error, line);
    }
}

/// Waits until everything queued so far is written, but not longer than `within`. Blocks.
fn flush(queue: &Queue<Order>, within: Duration) -> bool {
    let (done, wait) = sync_channel(1);
    queue.order(Order::Flush(done));
    wait.recv_timeout(within).is_ok()
}

/// So many lines tell a place in a file from others.
const KNOWN: usize = 3;

/// The first lines of what is in memory, as they stand in the file.
fn known(held: &[Arc<Batch>], shape: Shape) -> Vec<Vec<u8>> {
    let lines = held.iter().flat_map(|batch| batch.lines().map(move |line| (batch, line)));
    let text = lines.take(KNOWN).map(|(batch, line)| {
        let mut text = Vec::new();
        app_line(&mut text, shape, batch, line);
        text.pop();
        text
    });
    text.collect()
}

/// A line of a file: the envelope where it is one, else the bare text.
fn from_file(app: &AppName, line: &[u8]) -> LogLine {
    let envelope = serde_json::from_slice::<LogLine>(line).ok().filter(|read| read.app == *app);
    envelope.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(line);
        let msg = text.strip_suffix('\r').unwrap_or(&text).to_owned();
        LogLine { t: None, app: app.clone(), n: None, pid: None, stream: None, msg }
    })
}

/// Where lines go.
#[derive(Clone)]
struct Sinks {
    queue: Arc<Queue<Order>>,
    shape: Arc<AtomicU8>,
    hub: Arc<Hub>,
}

/// The reader thread.
async fn read_all(mut incoming: UnboundedReceiver<Incoming>, sinks: Sinks) {
    let mut streams = JoinSet::new();
    let (pausing, paused) = watch::channel(false);
    loop {
        tokio::select! {
            told = incoming.recv() => match told {
                Some(Incoming::Stream(stream)) => drop(streams.spawn(read_one(stream, sinks.clone(), paused.clone()))),
                Some(Incoming::Pause(mut given)) => {
                    pausing.send_replace(true);
                    let mut all = Vec::new();
                    // Whoever asked may lose patience with one that waits for a disk; then everything is as it was.
                    let whole = tokio::select! {
                        () = async { while let Some(stream) = streams.join_next().await { all.extend(stream.ok().flatten()); } } => true,
                        () = given.closed() => false,
                    };
                    pausing.send_replace(false);
                    let back = if whole { given.send(all).err().unwrap_or_default() } else { all };
                    for stream in back {
                        streams.spawn(read_one(stream, sinks.clone(), paused.clone()));
                    }
                }
                None => break,
            },
            Some(_) = streams.join_next() => {}
        }
    }
    // Nobody starts anything any more: read what is left.
    while streams.join_next().await.is_some() {}
}

/// Until its end, or a pause: then it is given back between two reads.
async fn read_one(stream: Stream, sinks: Sinks, mut paused: watch::Receiver<bool>) -> Option<Stream> {
    let Sinks { queue, shape, hub } = sinks;
    let Stream { from, kind, mut cutter, mut level } = stream;
    let mut pipe = pipe::Receiver::from_owned_fd(from).ok()?;
    let size = match &kind {
        Kind::App { .. } | Kind::EdgeLog => 16 * 1024,
        Kind::Access => 128 * 1024,
    };
    let mut buffer = vec![0; size];
    let begun = tokio::time::Instant::now();
    let mut last = false;
    let mut batch = Vec::new();
    while !last {
        let bytes = tokio::select! {
            biased;
            _ = paused.wait_for(|paused| *paused) => {
                let from = pipe.into_nonblocking_fd().ok()?;
                return Some(Stream { from, kind, cutter, level });
            }
            bytes = pipe.read(&mut buffer) => bytes.unwrap_or(0),
        };
        last = bytes == 0;
        batch.clear();
        match &kind {
            Kind::App { err, id, tail, awaited, _open: _ } => {
                let shape = Shape::load(&shape);
                // The first words may be faster than whoever started it.
                while tail.pid.load(Relaxed) == 0 && begun.elapsed() < PID_WITHIN {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let pid = tail.pid.load(Relaxed);
                let mut said = Batch { id: id.clone(), pid, err: *err, at: Timestamp::now(), text: Vec::with_capacity(bytes) };
                let mut line = |line: &[u8]| {
                    app_line(&mut batch, shape, &said, line);
                    said.text.extend_from_slice(line);
                    said.text.push(b'\n');
                    if *err || tail.kept == Kept::Both {
                        tail.add(line);
                    }
                    look_for(awaited, line);
                };
                cutter.push(&buffer[..bytes], &mut line);
                if last {
                    cutter.finish(&mut line);
                }
                queue.push(&Target::App(id.app.clone()), &batch);
                hub.push(said);
            }
            Kind::EdgeLog => {
                let mut line = |line: &[u8]| edge_line(&queue, &mut level, line);
                cutter.push(&buffer[..bytes], &mut line);
                if last {
                    cutter.finish(&mut line);
                }
            }
            Kind::Access => {
                let mut line = |line: &[u8]| {
                    batch.extend_from_slice(line);
                    batch.push(b'\n');
                };
                cutter.push(&buffer[..bytes], &mut line);
                if last {
                    cutter.finish(&mut line);
                }
                if !batch.is_empty() {
                    queue.push_patiently(&Target::Access, &batch).await;
                }
            }
        }
    }
    None
}

fn look_for(awaited: &Mutex<Option<Awaited>>, line: &[u8]) {
    let mut awaited = lock(awaited);
    if let Some(Awaited { seen, .. }) = awaited.take_if(|awaited| awaited.pattern.is_match(line)) {
        seen();
    }
}

fn app_line(batch: &mut Vec<u8>, shape: Shape, said: &Batch, line: &[u8]) {
    let Batch { id, pid, err, at, .. } = said;
    match shape {
        Shape::Raw => batch.extend_from_slice(line),
        Shape::Prefix => {
            batch.extend_from_slice(format!("{id} | ").as_bytes());
            batch.extend_from_slice(line);
        }
        Shape::Json => {
            let stream = if *err { "stderr" } else { "stdout" };
            let text = String::from_utf8_lossy(line);
            let text = serde_json::Value::from(text.strip_suffix('\r').unwrap_or(&text));
            let mut json = String::new();
            // Writing to a String cannot fail.
            let _ = write!(json, r#"{{"t":"{at:.3}","app":"{}","n":{},"pid":{pid},"stream":"{stream}","msg":{text}}}"#, id.app, id.n);
            batch.extend_from_slice(json.as_bytes());
        }
    }
    batch.push(b'\n');
}

/// `<3>` and below is an error; a line without a priority belongs to the one before it, and a first one is an accident, such as a panic.
fn edge_line(queue: &Queue<Order>, level: &mut u8, line: &[u8]) {
    let text = match line {
        [b'<', digit @ b'0'..=b'7', b'>', text @ ..] => {
            *level = digit - b'0';
            text
        }
        text => text,
    };
    let mut text = text.to_vec();
    text.push(b'\n');
    log_line(queue, &text, *level <= 3);
}

/// The writer thread.
struct Writer {
    files: Files,
    open: BTreeMap<Target, LogFile>,
    gzip: SyncSender<PathBuf>,
    access_lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(&mut self, queue: &Queue<Order>) {
        loop {
            match queue.take() {
                Item::Lines { target, batches, dropped } => self.write_all(&target, batches, dropped),
                Item::Order(Order::Files(files)) => {
                    self.files = *files;
                    let old = std::mem::take(&mut self.open);
                    for (target, mut file) in old {
                        if let Some((path, rotation)) = self.place(&target).filter(|(path, _)| path == file.path()) {
                            drop(path);
                            file.set_rotation(rotation);
                            self.open.insert(target, file);
                        }
                    }
                }
                Item::Order(Order::Reopen) => self.open.values_mut().for_each(LogFile::reopen),
                Item::Order(Order::Flush(done)) => {
                    // Orders come before lines: put it behind those that are there.
                    self.drain(queue);
                    let _ = done.send(());
                }
                Item::End => return,
            }
        }
    }

    fn drain(&mut self, queue: &Queue<Order>) {
        for (target, batches, dropped) in queue.take_lines() {
            self.write_all(&target, batches, dropped);
        }
    }

    /// What is left of a lane, after a word of what is not.
    fn write_all(&mut self, target: &Target, batches: VecDeque<Vec<u8>>, dropped: u64) {
        if dropped > 0 {
            let note = format!("gateway: {dropped} lines were dropped here: they came faster than they could be written\n");
            self.write(target, note.as_bytes());
        }
        for batch in batches {
            self.write(target, &batch);
        }
    }

    /// The file of a target; `None`: it goes to stdout or stderr, or nowhere.
    fn place(&self, target: &Target) -> Option<(PathBuf, Rotation)> {
        let dir = self.files.dir.as_ref()?;
        let name = match target {
            Target::Gateway => "gateway.log".to_owned(),
            Target::Error => "error.log".to_owned(),
            Target::Access => "access.log".to_owned(),
            Target::App(app) => format!("{app}.log"),
        };
        let rotation = match target {
            Target::App(app) => self.files.apps.get(app).unwrap_or(&self.files.rotate),
            Target::Gateway | Target::Error | Target::Access => &self.files.rotate,
        };
        Some((dir.join(name), rotation.clone()))
    }

    fn write(&mut self, target: &Target, lines: &[u8]) {
        if !self.open.contains_key(target)
            && let Some((path, rotation)) = self.place(target)
        {
            self.open.insert(target.clone(), LogFile::new(path, rotation, self.gzip.clone()));
        }
        if let Some(file) = self.open.get_mut(target) {
            let lost = file.write(lines);
            if *target == Target::Access {
                self.access_lost.fetch_add(lost, Relaxed);
            }
            return;
        }
        // Whoever reads them may be gone.
        let _ = match target {
            Target::Gateway | Target::App(_) => io::stderr().write_all(lines),
            Target::Access if self.files.access => io::stdout().write_all(lines).and_then(|()| io::stdout().flush()),
            Target::Access | Target::Error => Ok(()),
        };
    }
}
