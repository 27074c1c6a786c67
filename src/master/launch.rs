//! From an app's block to a running process: its address, environment, pipes and user.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram as StdDatagram},
    },
    path::{Path, PathBuf},
    sync::Arc,
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
    child::{Identity, Launch, SpawnError},
    nursery::Nursery,
    output::{Awaited, Output, Tail},
    places::Places,
    supervisor::Notice,
};
use crate::{
    ipc::message::InstanceId,
    plan::{App, AppPort, Ready},
    vocab::{AppName, ServerAddr},
};

/// Where `{port}` comes from: below the kernel's ephemeral ports, above the well-known ones.
const PRIVATE_PORTS: std::ops::Range<u16> = 20_000..30_000;
const PORT_TRIES: u32 = 200;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

/// Where processes are made.
pub struct Workshop {
    places: Places,
    nursery: Nursery,
    output: Output,
    /// `{exe}`
    exe: PathBuf,
    /// Soft and hard limit of open files that we were started with.
    nofile: Option<(u64, u64)>,
    /// Allotted now or before; not given to another instance.
    ports: HashMap<u16, InstanceId>,
    notifiers: JoinSet<()>,
}

impl Workshop {
    #[must_use]
    pub fn new(places: Places, nursery: Nursery, output: Output) -> Self {
        Self {
            places,
            nursery,
            output,
            exe: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            nofile: getrlimit(Resource::RLIMIT_NOFILE).ok(),
            ports: HashMap::new(),
            notifiers: JoinSet::new(),
        }
    }

    /// After an app is gone.
    pub fn forget(&mut self, app: &AppName) {
        self.ports.retain(|_, id| id.app != *app);
        self.places.forget(app);
    }

    /// Starts one process. `before` is the address of the one before, which is kept if it can be had.
    pub fn start(
        &mut self,
        id: &InstanceId,
        incarnation: u64,
        app: &App,
        before: Option<&ServerAddr>,
        notices: &UnboundedSender<Notice>,
    ) -> Result<Started, SpawnError> {
        while self.notifiers.try_join_next().is_some() {}
        let identity = Identity::of(app.user.as_deref(), app.group.as_deref())?;
        let addr = self.address(id, app, &identity, before)?;
        let fill = |text: &str| self.fill(text, id, addr.as_ref());
        let argv = app.command.iter().map(|word| OsString::from(fill(word))).collect();
        let mut env = environment(&identity);
        for (name, value) in &app.env {
            env.insert(name.into(), fill(value.reveal()).into());
        }
        env.insert("GATEWAY_INSTANCE".into(), id.n.to_string().into());
        if let Some(ServerAddr::Tcp(addr)) = &addr {
            env.insert("PORT".into(), addr.port().to_string().into());
        }
        let seen = seen(id, incarnation, notices);
        let mut awaited = None;
        let mut notify = None;
        match &app.ready {
            Ready::Log { pattern, .. } => {
                let pattern = Regex::new(pattern)
                    .map_err(|error| SpawnError::Prepare { what: "ready.log".to_owned(), source: io::Error::other(error) })?;
                awaited = Some(Awaited { pattern, seen: Box::new(seen) });
            }
            Ready::Notify { .. } => {
                let path = self.places.notify_socket(id)?;
                let socket = listen(&path, &identity).map_err(|source| SpawnError::Prepare { what: path.display().to_string(), source })?;
                env.insert("NOTIFY_SOCKET".into(), path.into());
                notify = Some(self.listen_to(socket, seen));
            }
            Ready::Http { .. } | Ready::Tcp { .. } | Ready::Started => {}
        }
        let pipes =
            self.output.app_pipes(id, awaited).map_err(|source| SpawnError::Prepare { what: "pipes for its output".to_owned(), source });
        let started = pipes.and_then(|(stdout, stderr, tail)| {
            let root = identity.uid.is_root();
            let launch = Launch {
                argv,
                arg0: None,
                dir: app.dir.clone(),
                env,
                identity,
                umask: app.umask.unwrap_or(if app.port == AppPort::Socket { 0o007 } else { 0o022 }),
                nofile: app.limits.nofile.map(|n| (n, n)).or(self.nofile),
                stdout,
                stderr,
                descriptors: Vec::new(),
            };
            let (id, notices) = (id.clone(), notices.clone());
            let tell = move |exit| drop(notices.send(Notice::Exited { id, incarnation, exit }));
            Ok((self.nursery.spawn(launch, tell)?, tail, root))
        });
        match started {
            Ok((pid, tail, root)) => Ok(Started { pid, addr, tail, notify, root }),
            Err(error) => {
                if let Some(task) = notify {
                    task.abort();
                }
                Err(error)
            }
        }
    }

    fn listen_to(&mut self, socket: UnixDatagram, seen: impl FnOnce() + Send + 'static) -> Notify {
        let socket = Arc::new(socket);
        Notify { task: self.notifiers.spawn(wait_for_ready(socket.clone(), seen)), socket }
    }

    /// A process of the binary before: its end and its words are ours to hear now.
    ///
    /// Errors: its notify socket is of no use.
    pub fn take_over(
        &mut self,
        id: &InstanceId,
        incarnation: u64,
        pid: Pid,
        notify: Option<OwnedFd>,
        notices: &UnboundedSender<Notice>,
    ) -> io::Result<Option<Notify>> {
        let tell = {
            let (id, notices) = (id.clone(), notices.clone());
            move |exit| drop(notices.send(Notice::Exited { id, incarnation, exit }))
        };
        self.nursery.take_over(pid, tell);
        let Some(fd) = notify else { return Ok(None) };
        let socket = UnixDatagram::from_std(StdDatagram::from(fd))?;
        Ok(Some(self.listen_to(socket, seen(id, incarnation, notices))))
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
        before: Option<&ServerAddr>,
    ) -> Result<Option<ServerAddr>, SpawnError> {
        let local = |port| Some(ServerAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        match app.port {
            AppPort::None => Ok(None),
            AppPort::Fixed { first } => match first.get().checked_add(id.n) {
                Some(port) => Ok(local(port)),
                None => Err(SpawnError::NoPort),
            },
            AppPort::Socket => Ok(Some(ServerAddr::Unix(self.places.socket(id, identity)?))),
            AppPort::Allotted => {
                if let Some(ServerAddr::Tcp(addr)) = before {
                    if self.ports.contains_key(&addr.port()) && is_free(addr.port()) {
                        return Ok(local(addr.port()));
                    }
                    self.ports.remove(&addr.port());
                }
                let tries = (0..PORT_TRIES).map(|_| fastrand::u16(PRIVATE_PORTS));
                let port = tries.into_iter().find(|port| !self.ports.contains_key(port) && is_free(*port)).ok_or(SpawnError::NoPort)?;
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

/// Clean: of ours only where to find programs, the language and the time zone.
fn environment(identity: &Identity) -> BTreeMap<OsString, OsString> {
    let ours = |name: &str, otherwise: &str| std::env::var_os(name).filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.into());
    let mut env = BTreeMap::from([
        ("PATH".into(), ours("PATH", PATH)),
        ("LANG".into(), ours("LANG", "C.UTF-8")),
        ("HOME".into(), identity.home.clone().into_os_string()),
        ("USER".into(), identity.name.clone().into()),
        ("LOGNAME".into(), identity.name.clone().into()),
    ]);
    if let Some(zone) = std::env::var_os("TZ") {
        env.insert("TZ".into(), zone);
    }
    env
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
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

/// Until READY=1 comes. The socket is the instance's own, so whoever may write to it is the instance.
async fn wait_for_ready(socket: Arc<UnixDatagram>, seen: impl FnOnce()) {
    let mut buffer = [0; 4096];
    // An error of the socket itself ends the wait; the ready timeout then says the rest.
    while let Ok(bytes) = socket.recv(&mut buffer).await {
        if buffer[..bytes].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            seen();
            break;
        }
    }
    // What comes later (STOPPING=1, STATUS=…) finds an open socket, not an error.
    while socket.recv(&mut buffer).await.is_ok() {}
}
