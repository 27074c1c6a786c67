//! What master and edge say to each other.
//!
//! Pure shapes. The wire is private to one build (D5): both sides send `Hello` first and refuse a different [`Build`].
//! Shape: tables travel whole (`Instances`, `Materials`), so a late or doubled message is a no-op, not a bug.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::id::{RequestId, Suspect};
use crate::{
    plan::{Plan, Site},
    rules::job::Record,
    vocab::{AppName, Host, Secret, ServerAddr},
};

/// Identifies the binary; equal on both sides or the link is refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Build(pub String);

impl Build {
    #[must_use]
    pub fn this() -> Self {
        Self(format!("{} wire 1", env!("CARGO_PKG_VERSION")))
    }
}

/// Counts applied configurations from 1; a crash of the edge does not reset it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// What a listening socket is for. Keyed by our own words, never by getsockname.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Role {
    Http,
    Https,
    Admin,
}

/// One listener: `role` and the address as configured, and the address the kernel gave (port 0).
///
/// Shape: K = `workers` descriptors for http and https, one for admin, travel beside the message in the order of the list.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    pub role: Role,
    pub asked: SocketAddr,
    pub bound: SocketAddr,
    /// Descriptors of this listener that travel with this very message: 0 when the edge has them already.
    pub descriptors: u8,
}

/// The bytes of a certificate and its key, read by the master (it may read what the edge's user may not).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Material {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// PEM, or why it could not be read.
    pub pem: Result<Pem, String>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Pem {
    pub chain: Vec<u8>,
    pub key: Secret<Vec<u8>>,
}

/// Certificates of CAs, likewise read by the master.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Roots {
    pub path: PathBuf,
    /// PEM, or why it could not be read.
    pub pem: Result<Vec<u8>, String>,
}

/// Every file of certificates that a plan names, in order and once each.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Materials {
    pub pairs: Vec<Material>,
    /// `client_ca` of sites, `root` of ACME directories.
    pub roots: Vec<Roots>,
}

impl Materials {
    /// What `before` held of these files, in the place of what is held now.
    pub fn put_back(&mut self, files: &[PathBuf], before: &Self) {
        for pair in self.pairs.iter_mut().filter(|pair| files.contains(&pair.cert)) {
            if let Some(old) = before.pairs.iter().find(|old| old.cert == pair.cert) {
                pair.clone_from(old);
            }
        }
        for roots in self.roots.iter_mut().filter(|roots| files.contains(&roots.path)) {
            if let Some(old) = before.ca(&roots.path) {
                roots.clone_from(old);
            }
        }
    }

    /// The CA file `path`; `None`: no plan that these were read for names it.
    #[must_use]
    pub fn ca(&self, path: &Path) -> Option<&Roots> {
        self.roots.iter().find(|roots| roots.path == path)
    }
}

/// A key from which keys of session tickets are derived.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TicketKey(pub Secret<[u8; 32]>);

/// `current` makes tickets; both open them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TicketKeys {
    pub current: TicketKey,
    pub previous: Option<TicketKey>,
}

/// What `gateway maintenance` said of a site.
///
/// Shape: it holds while the configuration says what it said then.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// `maintenance.on` at that time.
    pub configured: bool,
    pub on: bool,
}

/// By the names of sites.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Switches(pub BTreeMap<String, Switch>);

impl Switches {
    /// Whether a site is in maintenance.
    #[must_use]
    pub fn is_on(&self, site: &Site) -> bool {
        let configured = site.maintenance.on;
        self.0.get(&site.name).filter(|switch| switch.configured == configured).map_or(configured, |switch| switch.on)
    }
}

/// One of the processes of an app. `n` counts from 0.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct InstanceId {
    pub app: AppName,
    pub n: u16,
}

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.app, self.n)
    }
}

/// Which start of an instance is meant: verdicts on an earlier one are void.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Where a process stands in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    Stopped,
    Starting,
    /// The only state in which an instance is a backend.
    Ready,
    Draining,
    Stopping,
    Exited,
    Backoff,
    Cooldown,
    /// Not started, because somebody else has its address.
    Taken,
    /// Of a job: it does not run, and its last run failed.
    Failed,
}

impl InstanceState {
    pub const ALL: [Self; 10] = [
        Self::Stopped,
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Stopping,
        Self::Exited,
        Self::Backoff,
        Self::Cooldown,
        Self::Taken,
        Self::Failed,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Backoff => "backoff",
            Self::Cooldown => "cooldown",
            Self::Taken => "taken",
            Self::Failed => "failed",
        }
    }
}

/// Which requests a ready instance gets.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    #[default]
    Serves,
    /// Of a new release that is not proven yet: it serves, but a request that it answers with 5xx goes to one that stands by, if it may be sent again.
    OnTrial,
    /// Of the release before: only what one on trial could not do.
    StandsBy,
}

/// What the master knows of one process of an instance; also a row of status.json and of `gateway apps --json`.
///
/// Shape: while an instance is replaced it has a row for each of its processes, of different incarnations; the newest comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub incarnation: Incarnation,
    pub state: InstanceState,
    pub duty: Duty,
    /// Which deploy it is of; `None`: the configuration's own.
    pub release: Option<String>,
    /// Unix time in milliseconds at which it entered `state`.
    pub since_ms: u64,
    pub pid: Option<u32>,
    /// `None` for a worker without a port.
    pub addr: Option<ServerAddr>,
    pub restarts: u64,
    /// As in "exit 1", "signal 9 (KILL)", "not ready within 30s"; with the time in Unix milliseconds.
    pub last_exit: Option<(String, u64)>,
    pub last_restart_ms: Option<u64>,
    /// When the next start is due: in backoff and cooldown, while its address is taken, and of a job.
    pub due_ms: Option<u64>,
    /// It is stopped, and stays so until a person starts it: `autostart = false`.
    pub manual: bool,
    /// What else is to be known of it: who has its address, where it listens instead, that nobody knows whose the listener is.
    pub note: Option<String>,
    pub cpu_ms: u64,
    pub memory_bytes: u64,
}

/// Every app's instances and its restart counters by reason (`exit`, `signal`, `memory`, `unready`, `unhealthy`, `command`, `reload`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AppTable {
    pub instances: Vec<Instance>,
    pub restarts: BTreeMap<AppName, BTreeMap<String, u64>>,
    /// How often the master had to start a new edge.
    pub edge_restarts: u64,
    /// What is kept of each scheduled app. Its row among the instances is ready while a run goes, and due when the next one is.
    pub jobs: BTreeMap<AppName, Record>,
}

impl AppTable {
    /// The supervisor's part; that of the jobs stays. An app that has become a job is shown as one.
    pub fn put_apps(&mut self, apps: Self) {
        let Self { instances, restarts, edge_restarts, jobs: _ } = apps;
        let rows = std::mem::replace(&mut self.instances, instances);
        self.instances.retain(|row| !self.jobs.contains_key(&row.id.app));
        self.instances.extend(rows.into_iter().filter(|row| self.jobs.contains_key(&row.id.app)));
        self.restarts = restarts;
        self.restarts.extend(self.jobs.keys().map(|app| (app.clone(), BTreeMap::new())));
        self.edge_restarts = edge_restarts;
    }

    /// The part of the jobs; that of the supervisor stays.
    pub fn put_jobs(&mut self, rows: Vec<Instance>, jobs: BTreeMap<AppName, Record>) {
        self.instances.retain(|row| !self.jobs.contains_key(&row.id.app) && !jobs.contains_key(&row.id.app));
        self.instances.extend(rows);
        self.restarts.retain(|app, _| !self.jobs.contains_key(app));
        self.restarts.extend(jobs.keys().map(|app| (app.clone(), BTreeMap::new())));
        self.jobs = jobs;
    }
}

/// A configuration for the edge: built aside, swapped whole, or refused with nothing changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub generation: Generation,
    pub plan: Plan,
    /// The complete list: a listener the edge has and this list lacks is drained and closed.
    pub listeners: Vec<Listener>,
    pub materials: Materials,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToEdge {
    /// First message. `apps` as they stand (an edge that replaces a crashed one meets running apps); `reloads` = (done, refused) so far.
    Hello {
        build: Build,
        config: Box<Config>,
        apps: AppTable,
        reloads: (u64, u64),
        started_ms: u64,
        tickets: TicketKeys,
        switches: Switches,
    },
    /// Answered by `Applied` or `Refused`.
    Apply(Box<Config>),
    Apps(AppTable),
    /// Files changed on disk: swap those that are good, keep the old ones of those that are not.
    Materials(Materials),
    /// The keys were rotated.
    Tickets(TicketKeys),
    /// Each is answered by `Drained`.
    Drain(Vec<Drain>),
    /// Each is answered by `Warmed`.
    Warm(Vec<WarmUp>),
    /// From the control socket; answered by `Answer` with the same `ask`.
    Ask {
        ask: u64,
        query: Query,
    },
    /// A reload was refused before it came this far: counted in the metrics.
    ReloadRefused,
    /// Records of the access log that the master could not write since it was started; whenever there are more.
    AccessLost(u64),
    /// Stop accepting, finish what is in flight, exit 0.
    Shutdown {
        within: Duration,
    },
}

/// No new requests to a process; it is drained when the last is answered, or at the deadline.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    pub id: InstanceId,
    pub incarnation: Incarnation,
    pub within: Duration,
}

/// A process that is not in rotation yet is asked for these paths.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    pub id: InstanceId,
    pub incarnation: Incarnation,
    pub paths: Vec<String>,
    pub within: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Query {
    Status,
    Upstreams,
    Zones,
    Certificates,
    /// Order the certificate that is for this host now. Answered by `{"message": …}` or `{"error": …}`.
    Renew(Host),
    /// Who is banned. Answered by a `view::Bans` of the admin room.
    Bans,
    /// Ban an address, so long or as long as `[ban]` says. Answered by `{"message": …}` or `{"error": …}`.
    Ban {
        ip: IpAddr,
        lasts: Option<Duration>,
    },
    /// End the ban of an address, and forget its points. Answered likewise.
    Unban(IpAddr),
    /// These sites are in maintenance, or not, from now on. Answered by `{}` when that is so.
    Maintain(Switches),
    /// What became of the request of this id. Answered by a [`Failed`](super::why::Failed), or `{"error": …}`.
    Why(RequestId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToMaster {
    Hello {
        build: Build,
    },
    /// Every listener accepts.
    Ready {
        generation: Generation,
    },
    Applied {
        generation: Generation,
    },
    Refused {
        generation: Generation,
        reason: String,
    },
    Health {
        id: InstanceId,
        incarnation: Incarnation,
        health: Health,
    },
    Drained {
        id: InstanceId,
        incarnation: Incarnation,
        in_flight: u32,
    },
    /// Every path was answered below 500, or which was not and how.
    Warmed {
        id: InstanceId,
        incarnation: Incarnation,
        result: Result<(), String>,
    },
    /// Once a second: of the instances that have answered requests since.
    Tallies(Vec<Tally>),
    /// A process broke its connection off before it answered this request. If it has ended, that may be why.
    Lost {
        id: InstanceId,
        incarnation: Incarnation,
        suspect: Suspect,
        /// It had answered other requests well.
        answered: bool,
    },
    /// Requests find no process of this app: once a second at most.
    Wanted {
        app: AppName,
    },
    /// Of `Materials`: these files are no good, and what they held before is served on. An edge that follows is to be given that.
    PassedOver {
        files: Vec<PathBuf>,
    },
    /// A JSON document.
    Answer {
        ask: u64,
        json: String,
    },
    /// It was told by TERM to leave: its listeners are closed, what is in flight is finished. Nothing else follows.
    Leaving,
    /// Once a second: proof of life.
    Alive {
        connections: u64,
        in_flight: u64,
    },
}

/// How many requests a process has had since it was started.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub id: InstanceId,
    pub incarnation: Incarnation,
    /// Answered, or failed.
    pub requests: u64,
    /// Of these: answered with 5xx, or not at all.
    pub failures: u64,
}

/// What a probe of an app instance found; sent when it changes, and `Ready` again and again until the table shows the incarnation as ready.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Health {
    Ready,
    Live,
    /// `fail` probes in a row failed; the reason is the last one's.
    Dead {
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(app: &str, pid: u32) -> Instance {
        Instance {
            id: InstanceId { app: AppName::parse(app).expect("valid"), n: 0 },
            incarnation: Incarnation(1),
            state: InstanceState::Ready,
            duty: Duty::Serves,
            release: None,
            since_ms: 0,
            pid: Some(pid),
            addr: None,
            restarts: 0,
            last_exit: None,
            last_restart_ms: None,
            due_ms: None,
            manual: false,
            note: None,
            cpu_ms: 0,
            memory_bytes: 0,
        }
    }

    fn pids(table: &AppTable) -> Vec<u32> {
        table.instances.iter().filter_map(|row| row.pid).collect()
    }

    #[test]
    fn apps_and_jobs_are_written_by_two_and_neither_takes_away_the_others() {
        let name = |app| AppName::parse(app).expect("valid");
        let apps = |rows: Vec<Instance>| AppTable {
            restarts: rows.iter().map(|row| (row.id.app.clone(), BTreeMap::from([("exit".to_owned(), 1)]))).collect(),
            instances: rows,
            ..AppTable::default()
        };
        let mut table = AppTable::default();
        table.put_jobs(vec![row("nightly", 1)], BTreeMap::from([(name("nightly"), Record::default())]));
        table.put_apps(apps(vec![row("web", 2), row("mailer", 3)]));
        assert_eq!(pids(&table), [2, 3, 1]);
        table.put_apps(apps(vec![row("web", 4), row("mailer", 3)]));
        assert_eq!(pids(&table), [4, 3, 1]);
        // A worker becomes a job: for a moment both know of it.
        let jobs = BTreeMap::from([(name("nightly"), Record::default()), (name("mailer"), Record::default())]);
        table.put_jobs(vec![row("nightly", 1), row("mailer", 5)], jobs);
        assert_eq!(pids(&table), [4, 1, 5]);
        table.put_apps(apps(vec![row("web", 4), row("mailer", 3)]));
        assert_eq!(pids(&table), [4, 1, 5]);
        assert_eq!(table.restarts.keys().map(AppName::as_str).collect::<Vec<_>>(), ["mailer", "nightly", "web"]);
        table.put_jobs(Vec::new(), BTreeMap::new());
        assert_eq!(pids(&table), [4]);
        assert_eq!(table.restarts.keys().map(AppName::as_str).collect::<Vec<_>>(), ["web"]);
    }
}
