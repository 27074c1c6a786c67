//! From an app's block to a running process: its address, environment, pipes and user.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram as StdDatagram},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{Pid, Uid, chown},
};
use regex::bytes::Regex;
use tokio::{
    net::UnixDatagram,
    sync::mpsc::UnboundedSender,
    task::{AbortHandle, JoinSet},
};

use super::{
    child::{Identity, MemoryCap, SpawnError, stop_signal},
    errand::Bench,
    nursery::{Carried, Nursery},
    obituary::Register,
    outfit,
    output::{Awaited, Kept, Output, Tail},
    places::Places,
    ports,
    words::Notice,
};
use crate::{
    ipc::message::InstanceId,
    plan::{App, AppPort, Ready},
    rules::restart::Exit,
    vocab::{AppName, ServerAddr},
};

/// Where `{port}` comes from: below the kernel's ephemeral ports, above the well-known ones.
const PRIVATE_PORTS: std::ops::Range<u16> = 20_000..30_000;
const PORT_TRIES: u32 = 200;

/// A process that was started.
pub struct Started {
    pub pid: Pid,
    pub addr: Option<ServerAddr>,
    pub tail: Arc<Tail>,
    /// Listens for READY=1; to be aborted when the process ends.
    pub notify: Option<Notify>,
    /// It runs as root.
    pub root: bool,
}

/// The NOTIFY_SOCKET of a process, listened to by a task of its own.
pub struct Notify {
    task: AbortHandle,
    pub socket: Arc<UnixDatagram>,
}

impl Notify {
    pub fn abort(&self) {
        self.task.abort();
    }
}

/// What is known of addresses when one is chosen.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Of the process before; kept if it can be had.
    pub before: Option<ServerAddr>,
    /// Of processes of the app that still run.
    pub taken: Vec<ServerAddr>,
}

/// Where processes are made.
pub struct Workshop {
    places: Places,
    nursery: Nursery,
    output: Output,
    register: Register,
    /// `{exe}`
    exe: PathBuf,
    /// Soft and hard limit of open files that we were started with.
    nofile: Option<(u64, u64)>,
    bench: Arc<Bench>,
    /// Allotted now or before; not given to another instance.
    ports: HashMap<u16, InstanceId>,
    notifiers: JoinSet<()>,
}

impl Workshop {
    #[must_use]
    pub fn new(places: Places, nursery: Nursery, output: Output, register: Register) -> Self {
        let exe = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let nofile = getrlimit(Resource::RLIMIT_NOFILE).ok();
        let bench = Bench { nursery: nursery.clone(), output: output.clone(), nofile, exe: exe.clone() };
        Self { places, nursery, output, register, exe, nofile, bench: Arc::new(bench), ports: HashMap::new(), notifiers: JoinSet::new() }
    }

    /// Where what goes before a start is run.
    #[must_use]
    pub fn bench(&self) -> Arc<Bench> {
        self.bench.clone()
    }

    /// After an app is gone.
    pub fn forget(&mut self, app: &AppName) {
        self.ports.retain(|_, id| id.app != *app);
        self.places.forget(app);
    }

    /// The process that had this address is gone, and no other of its instance will ask for it.
    pub fn release(&mut self, addr: &ServerAddr) {
        match addr {
            ServerAddr::Tcp(addr) => drop(self.ports.remove(&addr.port())),
            ServerAddr::Unix(_) | ServerAddr::Name { .. } => {}
        }
    }

    /// Starts one process.
    pub fn start(
        &mut self,
        id: &InstanceId,
        incarnation: u64,
        app: &App,
        addresses: &Addresses,
        notices: &UnboundedSender<Notice>,
    ) -> Result<Started, SpawnError> {
        while self.notifiers.try_join_next().is_some() {}
        let identity = Identity::of(app.user.as_deref(), app.group.as_deref())?;
        let addr = self.address(id, app, &identity, addresses)?;
        let fill = |text: &str| self.fill(text, id, addr.as_ref());
        let argv = app.command.iter().map(|word| OsString::from(fill(word))).collect();
        let mut env = outfit::environment(&identity);
        for (name, value) in &app.env_file {
            env.insert(name.into(), value.reveal().into());
        }
        for (name, value) in &app.env {
            env.insert(name.into(), fill(value.reveal()).into());
        }
        env.insert("GATEWAY_INSTANCE".into(), id.n.to_string().into());
        if let Some(ServerAddr::Tcp(addr)) = &addr {
            env.insert("PORT".into(), addr.port().to_string().into());
        }
        let mut awaited = None;
        let mut notify = None;
        if let Some(within) = app.watchdog {
            env.insert("WATCHDOG_USEC".into(), within.as_micros().to_string().into());
        }
        match &app.ready {
            Ready::Log { pattern, .. } => {
                let pattern = Regex::new(pattern)
                    .map_err(|error| SpawnError::Prepare { what: "ready.log".to_owned(), source: io::Error::other(error) })?;
                awaited = Some(Awaited { pattern, seen: Box::new(seen(id, incarnation, notices)) });
            }
            Ready::Notify { .. } | Ready::Http { .. } | Ready::Tcp { .. } | Ready::Started => {}
        }
        if hears(app) {
            let path = self.places.notify_socket(id, incarnation)?;
            let socket = listen(&path, &identity).map_err(|source| SpawnError::Prepare { what: path.display().to_string(), source })?;
            env.insert("NOTIFY_SOCKET".into(), path.clone().into());
            notify = Some(self.listen_to(socket, path, id, incarnation, app, notices));
        }
        let kept = if app.schedule.is_some() { Kept::Both } else { Kept::Stderr };
        let pipes = self
            .output
            .app_pipes(id, kept, awaited)
            .map_err(|source| SpawnError::Prepare { what: "pipes for its output".to_owned(), source });
        let started = pipes.and_then(|(stdout, stderr, tail)| {
            let root = identity.uid.is_root();
            let mut launch = outfit::of(app, argv, env, identity, self.nofile, (stdout, stderr));
            launch.memory = memory_cap(id, incarnation, app);
            let tell = self.tell(id, incarnation, notices);
            // Reaping waits for us: both are on the master's one thread.
            let pid = self.nursery.spawn_family(launch, self.left(id, incarnation, notices), tell)?;
            self.register.born(id, incarnation, pid.as_raw().cast_unsigned(), tail.clone());
            Ok((pid, tail, root))
        });
        match started {
            Ok((pid, tail, root)) => Ok(Started { pid, addr, tail, notify, root }),
            Err(error) => {
                if let Some(addr) = &addr {
                    self.release(addr);
                }
                if let Some(task) = notify {
                    task.abort();
                }
                Err(error)
            }
        }
    }

    fn listen_to(
        &mut self,
        socket: UnixDatagram,
        path: PathBuf,
        id: &InstanceId,
        incarnation: u64,
        app: &App,
        notices: &UnboundedSender<Notice>,
    ) -> Notify {
        let ready = matches!(app.ready, Ready::Notify { .. }).then(|| seen(id, incarnation, notices));
        let told = Arc::new(AtomicBool::new(false));
        let pings = app.watchdog.map(|_| {
            let (id, notices) = (id.clone(), notices.clone());
            move || {
                // One that has not been heard yet says the same.
                if !told.swap(true, Relaxed) {
                    drop(notices.send(Notice::Pinged { id: id.clone(), incarnation, told: told.clone() }));
                }
            }
        });
        let (socket, path) = (Arc::new(socket), Unlink(path));
        let ear = socket.clone();
        let task = self.notifiers.spawn(async move {
            let _path = path;
            hear(ear, ready, pings).await;
        });
        Notify { task, socket }
    }

    /// A process of the binary before: its end and its words are ours to hear now.
    ///
    /// Errors: its notify socket is of no use.
    pub fn take_over(
        &mut self,
        id: &InstanceId,
        incarnation: u64,
        app: &App,
        (pid, tail, family): (Pid, Option<Arc<Tail>>, Carried),
        notify: Option<OwnedFd>,
        notices: &UnboundedSender<Notice>,
    ) -> io::Result<Option<Notify>> {
        let tell = self.tell(id, incarnation, notices);
        self.nursery.take_over_family(pid, memory_cap(id, incarnation, app), family, self.left(id, incarnation, notices), tell);
        if let Some(tail) = tail {
            self.register.born(id, incarnation, pid.as_raw().cast_unsigned(), tail);
        }
        let Some(fd) = notify else { return Ok(None) };
        let socket = UnixDatagram::from_std(StdDatagram::from(fd))?;
        let path = self.places.notify_path(id, incarnation);
        Ok(Some(self.listen_to(socket, path, id, incarnation, app, notices)))
    }

    /// What is told when a process has ended.
    fn tell(&self, id: &InstanceId, incarnation: u64, notices: &UnboundedSender<Notice>) -> impl FnOnce(Exit) + Send + 'static {
        let (id, notices, register) = (id.clone(), notices.clone(), self.register.clone());
        move |exit| {
            register.died(&id, incarnation, exit);
            drop(notices.send(Notice::Exited { id, incarnation, exit }));
        }
    }

    /// What is told when a leader has ended before others that came of it.
    fn left(
        &self,
        id: &InstanceId,
        incarnation: u64,
        notices: &UnboundedSender<Notice>,
    ) -> impl FnOnce(Exit, Vec<String>) + Send + 'static {
        let (id, notices, register) = (id.clone(), notices.clone(), self.register.clone());
        move |exit, names| {
            register.left(&id, incarnation);
            drop(notices.send(Notice::Left { id, incarnation, exit, names }));
        }
    }

    /// Allotted ports, by instance.
    #[must_use]
    pub fn ports(&self) -> Vec<(u16, InstanceId)> {
        self.ports.iter().map(|(port, id)| (*port, id.clone())).collect()
    }

    pub fn take_ports(&mut self, ports: Vec<(u16, InstanceId)>) {
        self.ports.extend(ports);
    }

    fn address(
        &mut self,
        id: &InstanceId,
        app: &App,
        identity: &Identity,
        addresses: &Addresses,
    ) -> Result<Option<ServerAddr>, SpawnError> {
        let Addresses { before, taken } = addresses;
        let local = |port| Some(ServerAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        match app.port {
            AppPort::None => Ok(None),
            AppPort::Fixed { first } => match first.get().checked_add(id.n) {
                Some(port) => match ports::taken(port) {
                    Some(by) => Err(SpawnError::Taken { why: format!("port {port} is taken by {by}") }),
                    None => Ok(local(port)),
                },
                None => Err(SpawnError::NoPort),
            },
            AppPort::Socket => {
                // Beside a process that still has the one, the other.
                let is_taken = |path: &Path| taken.iter().any(|addr| matches!(addr, ServerAddr::Unix(other) if other == path));
                Ok(Some(ServerAddr::Unix(self.places.socket(id, identity, is_taken)?)))
            }
            AppPort::Allotted => {
                if let Some(ServerAddr::Tcp(addr)) = before {
                    if self.ports.contains_key(&addr.port()) && ports::is_free(addr.port()) {
                        return Ok(local(addr.port()));
                    }
                    self.ports.remove(&addr.port());
                }
                let tries = (0..PORT_TRIES).map(|_| fastrand::u16(PRIVATE_PORTS));
                let port =
                    tries.into_iter().find(|port| !self.ports.contains_key(port) && ports::is_free(*port)).ok_or(SpawnError::NoPort)?;
                self.ports.insert(port, id.clone());
                Ok(local(port))
            }
        }
    }

    fn fill(&self, text: &str, id: &InstanceId, addr: Option<&ServerAddr>) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        let mut text = text.replace("{n}", &id.n.to_string()).replace("{exe}", &self.exe.to_string_lossy());
        match addr {
            Some(ServerAddr::Tcp(addr)) => text = text.replace("{port}", &addr.port().to_string()),
            Some(ServerAddr::Unix(path)) => text = text.replace("{socket}", &path.to_string_lossy()),
            Some(ServerAddr::Name { .. }) | None => {}
        }
        text
    }
}

/// What tells that a process wrote the awaited line, or notified.
pub fn seen(id: &InstanceId, incarnation: u64, notices: &UnboundedSender<Notice>) -> impl FnOnce() + Send + 'static {
    let (id, notices) = (id.clone(), notices.clone());
    move || drop(notices.send(Notice::Seen { id, incarnation }))
}

fn listen(path: &Path, identity: &Identity) -> io::Result<UnixDatagram> {
    let socket = StdDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    if Uid::effective().is_root() {
        chown(path, Some(identity.uid), Some(identity.gid))?;
    }
    UnixDatagram::from_std(socket)
}

/// Whether its processes have a NOTIFY_SOCKET.
fn hears(app: &App) -> bool {
    matches!(app.ready, Ready::Notify { .. }) || app.watchdog.is_some()
}

fn memory_cap(id: &InstanceId, incarnation: u64, app: &App) -> Option<MemoryCap> {
    let App { memory_max, stop, .. } = app;
    memory_max.map(|max| MemoryCap { max, name: format!("{id}-{incarnation}"), signal: stop_signal(stop.signal), patience: stop.timeout })
}

/// A socket's file, which goes with whoever listens.
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        // Gone already: as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// READY=1 once, and each WATCHDOG=1. The socket is the instance's own, so whoever may write to it is the instance.
async fn hear(socket: Arc<UnixDatagram>, mut ready: Option<impl FnOnce()>, pings: Option<impl Fn()>) {
    let mut buffer = [0; 4096];
    // An error of the socket itself ends the wait; the timeouts then say the rest. What else comes (STOPPING=1, STATUS=…) finds an open socket, not an error.
    while let Ok(bytes) = socket.recv(&mut buffer).await {
        for line in buffer[..bytes].split(|byte| *byte == b'\n') {
            match (line, &pings) {
                (b"READY=1", _) => {
                    if let Some(ready) = ready.take() {
                        ready();
                    }
                }
                (b"WATCHDOG=1", Some(ping)) => ping(),
                (_, _) => {}
            }
        }
    }
}
