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
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
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
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    task::JoinSet,
};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    ipc::message::InstanceId,
    plan::{Log, LogFormat, Plan, Rotation},
    vocab::AppName,
};
use file::LogFile;
use lines::Cutter;
use queue::{Item, Queue, Target};

pub mod carried;
mod file;
mod lines;
mod queue;

#[cfg(test)]
mod tests;

/// Kept of an instance's stderr.
const TAIL_LINES: usize = 20;
const TAIL_LINE: usize = 400;
const ACCESS_PIPE: i32 = 1024 * 1024;

/// The door to the room; cloneable.
#[derive(Clone)]
pub struct Output {
    queue: Arc<Queue<Order>>,
    /// Unbounded: one message for each process that is started.
    streams: UnboundedSender<Incoming>,
    shape: Arc<AtomicU8>,
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
    App { err: bool, id: InstanceId, tail: Arc<Tail>, awaited: Await },
    EdgeLog,
    Access,
}

/// The last lines that an incarnation wrote to stderr.
#[derive(Debug, Default)]
pub struct Tail {
    lines: Mutex<VecDeque<String>>,
    /// 0 until it is known.
    pub pid: AtomicU32,
}

impl Tail {
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(TAIL_LINE)]);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    }
}

impl Output {
    /// Starts both threads.
    pub fn start(files: &Files) -> io::Result<Self> {
        let queue: Arc<Queue<Order>> = Arc::default();
        let shape = Arc::new(AtomicU8::new(Shape::of(files) as u8));
        let (streams, incoming) = unbounded_channel();
        let mut writer = Writer { files: files.clone(), open: BTreeMap::new(), gzip: file::start_gzip()? };
        std::thread::Builder::new().name("log-writer".into()).stack_size(512 * 1024).spawn({
            let queue = queue.clone();
            move || writer.run(&queue)
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new().name("log-reader".into()).stack_size(512 * 1024).spawn({
            let (queue, shape) = (queue.clone(), shape.clone());
            move || runtime.block_on(read_all(incoming, queue, shape))
        })?;
        Ok(Self { queue, streams, shape })
    }

    /// Where `tracing` writes.
    #[must_use]
    pub fn own_log(&self) -> OwnLog {
        OwnLog { queue: self.queue.clone() }
    }

    /// After a reload.
    pub fn configure(&self, files: Files) {
        self.shape.store(Shape::of(&files) as u8, Relaxed);
        self.queue.order(Order::Files(Box::new(files)));
    }

    /// Opens every file again.
    pub fn reopen(&self) {
        self.queue.order(Order::Reopen);
    }

    /// The write ends of stdout and stderr for a process of an app.
    pub fn app_pipes(&self, id: &InstanceId, awaited: Option<Awaited>) -> io::Result<(OwnedFd, OwnedFd, Arc<Tail>)> {
        let (out, to_out) = io::pipe()?;
        let (err, to_err) = io::pipe()?;
        let tail: Arc<Tail> = Arc::default();
        let awaited = Arc::new(Mutex::new(awaited));
        for (from, err) in [(out, false), (err, true)] {
            let kind = Kind::App { err, id: id.clone(), tail: tail.clone(), awaited: awaited.clone() };
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
        self.flush(within);
        self.queue.close();
    }

    /// Waits until everything queued so far is written; false: it was not within that time. Blocks.
    pub fn flush(&self, within: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.queue.order(Order::Flush(done));
        wait.recv_timeout(within).is_ok()
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

/// The reader thread.
async fn read_all(mut incoming: UnboundedReceiver<Incoming>, queue: Arc<Queue<Order>>, shape: Arc<AtomicU8>) {
    let mut streams = JoinSet::new();
    let (pausing, paused) = watch::channel(false);
    loop {
        tokio::select! {
            told = incoming.recv() => match told {
                Some(Incoming::Stream(stream)) => drop(streams.spawn(read_one(stream, queue.clone(), shape.clone(), paused.clone()))),
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
                        streams.spawn(read_one(stream, queue.clone(), shape.clone(), paused.clone()));
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
async fn read_one(stream: Stream, queue: Arc<Queue<Order>>, shape: Arc<AtomicU8>, mut paused: watch::Receiver<bool>) -> Option<Stream> {
    let Stream { from, kind, mut cutter, mut level } = stream;
    let mut pipe = pipe::Receiver::from_owned_fd(from).ok()?;
    let size = match &kind {
        Kind::App { .. } | Kind::EdgeLog => 16 * 1024,
        Kind::Access => 128 * 1024,
    };
    let mut buffer = vec![0; size];
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
            Kind::App { err, id, tail, awaited, .. } => {
                let shape = Shape::load(&shape);
                let mut line = |line: &[u8]| {
                    app_line(&mut batch, shape, id, *err, tail, line);
                    if *err {
                        tail.add(line);
                    }
                    look_for(awaited, line);
                };
                cutter.push(&buffer[..bytes], &mut line);
                if last {
                    cutter.finish(&mut line);
                }
                queue.push(&Target::App(id.app.clone()), &batch);
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
    let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Awaited { seen, .. }) = awaited.take_if(|awaited| awaited.pattern.is_match(line)) {
        seen();
    }
}

fn app_line(batch: &mut Vec<u8>, shape: Shape, id: &InstanceId, err: bool, tail: &Tail, line: &[u8]) {
    match shape {
        Shape::Raw => batch.extend_from_slice(line),
        Shape::Prefix => {
            batch.extend_from_slice(format!("{id} | ").as_bytes());
            batch.extend_from_slice(line);
        }
        Shape::Json => {
            let stream = if err { "stderr" } else { "stdout" };
            let pid = tail.pid.load(Relaxed);
            let text = String::from_utf8_lossy(line);
            let text = serde_json::Value::from(text.strip_suffix('\r').unwrap_or(&text));
            let t = format!("{:.3}", Timestamp::now());
            let mut json = String::new();
            // Writing to a String cannot fail.
            let _ = write!(json, r#"{{"t":"{t}","app":"{}","n":{},"pid":{pid},"stream":"{stream}","msg":{text}}}"#, id.app, id.n);
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
}

impl Writer {
    fn run(&mut self, queue: &Queue<Order>) {
        loop {
            match queue.take() {
                Item::Lines { target, batches, dropped } => {
                    if dropped > 0 {
                        let note = format!("gateway: {dropped} lines were dropped here: they came faster than they could be written\n");
                        self.write(&target, note.as_bytes());
                    }
                    for batch in batches {
                        self.write(&target, &batch);
                    }
                }
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
        for (target, batches) in queue.take_lines() {
            for batch in batches {
                self.write(&target, &batch);
            }
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
        if let Some(file) = self.open.get_mut(target) {
            return file.write(lines);
        }
        if let Some((path, rotation)) = self.place(target) {
            let mut file = LogFile::new(path, rotation, self.gzip.clone());
            file.write(lines);
            self.open.insert(target.clone(), file);
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
