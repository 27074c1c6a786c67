//! What the admin endpoints and `gateway status --json` say, as JSON shapes.
//!
//! Pure. Names are a contract: extend, never rename. Secrets never come here.
//! Units: bytes, seconds, ratios from 0 to 1; moments as RFC 3339 in UTC.

use std::{collections::BTreeMap, num::NonZeroU32};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    acme::standing::{Standing, State},
    ipc::message::{self, AppTable, Duty, InstanceState},
    plan::{self, Action, PathMatch, SiteTls},
    rules::{
        jail::{Sentence, Who},
        job::{self, Counts, Outcome, Record},
    },
    telemetry::{Totals, ZoneCounts, node::NodeSample},
};

/// How it goes, worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Healthy,
    /// Everything is served, something wants a look.
    Degraded,
    /// A site is not served.
    Unhealthy,
}

impl Verdict {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// `/api/status`: all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub status: Verdict,
    /// All faults in one line.
    pub message: String,
    /// The worst first.
    #[serde(default)]
    pub faults: Vec<Fault>,
    pub timestamp: String,
    pub version: String,
    pub uptime_seconds: u64,
    pub process: Process,
    pub traffic: Traffic,
    pub listeners: Vec<Listener>,
    pub sites: Vec<Site>,
    pub apps: Vec<App>,
    pub upstreams: Vec<Upstream>,
    pub zones: Vec<Zone>,
    /// How many clients are banned.
    #[serde(default)]
    pub banned: u64,
    pub certificates: Vec<Certificate>,
    pub system: System,
}

/// What is wrong, at its root, and what follows from it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub status: Verdict,
    pub what: String,
    /// Sites that are not served because of it.
    #[serde(default)]
    pub so: Vec<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        if self.so.is_empty() { Ok(()) } else { write!(f, ", so {}", self.so.join(", ")) }
    }
}

/// Master and edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The file in force.
    #[serde(default)]
    pub config: String,
    pub master_pid: u32,
    pub edge_pid: u32,
    /// Of the master.
    pub started: String,
    pub edge_started: String,
    pub edge_restarts: u64,
    pub generation: u64,
    pub reloads: u64,
    pub reloads_refused: u64,
}

/// Since the edge started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    pub requests: u64,
    /// 4xx
    pub client_errors: u64,
    /// 5xx
    pub errors: u64,
    /// `errors` of `requests`.
    pub error_rate: f64,
    pub in_flight: u64,
    pub connections: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Over the last minute; missing until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<Recent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    pub requests_per_second: f64,
    pub error_rate: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// "http", "https", "admin"
    pub role: String,
    /// As configured, and as the kernel gave it (port 0).
    pub address: String,
    pub bound: String,
    pub accepting: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    pub name: String,
    pub hosts: Vec<String>,
    /// "off", "acme", "internal", "files"
    pub tls: String,
    pub routes: Vec<Route>,
    pub requests: u64,
    pub errors: u64,
    pub in_flight: u64,
    /// A page is shown in its place.
    #[serde(default)]
    pub maintenance: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub path: String,
    /// "upstream web", "redirect 301 https://…", "respond 200"
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub name: String,
    /// Instances that are ready.
    pub ready: usize,
    pub instances: Vec<Instance>,
    /// By reason.
    pub restarts: BTreeMap<String, u64>,
    /// It runs by a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub schedule: String,
    pub zone: Option<String>,
    pub last: Option<Run>,
    /// When a run succeeded last.
    #[serde(default)]
    pub last_success: Option<String>,
    /// By result, the times without a run among them.
    pub runs: Counts,
}

/// The last run of a job that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub started: String,
    pub ended: String,
    pub took_seconds: f64,
    pub outcome: Outcome,
    pub exit: String,
    /// The last lines that it wrote.
    pub lines: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `NAME.N`
    pub id: String,
    pub state: InstanceState,
    pub duty: Duty,
    /// Which deploy it is of; `None`: the configuration's own.
    pub release: Option<String>,
    pub since: String,
    pub pid: Option<u32>,
    pub address: Option<String>,
    pub restarts: u64,
    pub last_exit: Option<String>,
    pub last_exit_at: Option<String>,
    pub last_restart: Option<String>,
    pub next_start: Option<String>,
    /// It is stopped, and stays so until a person starts it.
    #[serde(default)]
    pub manual: bool,
    /// What else is to be known of it: who has its address, where it listens instead.
    #[serde(default)]
    pub note: Option<String>,
    pub cpu_seconds: f64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    pub name: String,
    /// Its servers are the instances of the app of its name.
    pub app: bool,
    /// Every server is down and the last ones are used all the same.
    pub panic: bool,
    pub servers: Vec<Server>,
}

impl Upstream {
    #[must_use]
    pub fn up(&self) -> usize {
        self.servers.iter().filter(|server| server.up).count()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// As in the metrics: the address as configured, for an app `NAME.N`.
    pub server: String,
    /// Where it is reached.
    pub address: String,
    pub up: bool,
    /// `up` `down` `slow` `ejected` `suspect` `draining` `unresolved`
    pub state: String,
    /// Why it is down, or up against appearances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub in_flight: u64,
    pub weight: u16,
    pub backup: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Zone {
    pub name: String,
    /// Several parts with a plus between them.
    pub key: String,
    /// Missing where `concurrent` alone is the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    pub burst: u32,
    /// Of the burst, those that do not wait; missing where nobody waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<u32>,
    /// Requests of a key at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Only answers with these statuses spend; missing where every request does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub count: Vec<u16>,
    /// "enforce", "observe"
    pub mode: String,
    pub keys: u64,
    pub max_keys: u32,
    /// Requests that wait for their turn now.
    pub waiting: u64,
    pub passed: u64,
    pub delayed: u64,
    pub rejected: u64,
    pub would_reject: u64,
}

/// `gateway bans --json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bans {
    /// All that are in force.
    pub count: u64,
    /// The newest first, [`Bans::MOST`] at most.
    pub bans: Vec<Ban>,
}

impl Bans {
    /// Shown at most.
    pub const MOST: usize = 10_000;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// IPv6 as its /64.
    pub address: String,
    /// As in `points`: "bad-uri", "404"; or "manual".
    pub reason: String,
    pub since: String,
    pub until: String,
    /// How often, this time included.
    pub times: u8,
    /// False: `observe` lets it pass.
    pub enforced: bool,
}

impl Ban {
    #[must_use]
    pub fn new(who: Who, sentence: &Sentence, enforced: bool) -> Self {
        let Sentence { since, until, times, reason } = *sentence;
        let (since, until) = (second(since.into()), second(until.into()));
        Self { address: who.to_string(), reason: reason.to_string(), since, until, times, enforced }
    }
}

/// Of files, of our own CA, or one that is ordered and renewed by itself; only the last has what stands below `problem`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// The site's name; for one on demand, the name that was asked for.
    pub host: String,
    /// Missing where nothing could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// "files", "internal", "acme", "stand-in"
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_at: Option<String>,
    /// What can be done about the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// "waiting", "ordering", "served", "unproven"
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_why: Option<String>,
    /// The CA that is asked next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_ca: Option<String>,
    /// Attempts in a row that came to nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// A third of its life or less is left, or there is none.
    #[serde(skip_serializing_if = "is_false")]
    pub at_risk: bool,
}

impl Certificate {
    /// `now` in Unix seconds.
    #[must_use]
    pub fn looked_after(standing: &Standing, now: i64) -> Self {
        let at_risk = standing.at_risk(now);
        let Standing { site, names, state, cert, next, failures, last_error, at_risk: _ } = standing;
        let unproven = (*state == State::Unproven).then(|| "it is in place, but a handshake with ourselves did not show it".to_owned());
        Self {
            host: site.clone(),
            not_after: cert.as_ref().map(|cert| second(cert.not_after)),
            source: if cert.is_some() { "acme" } else { "stand-in" }.to_owned(),
            problem: last_error.as_ref().map(|trouble| trouble.text.clone()).or(unproven),
            problem_at: last_error.as_ref().map(|trouble| second(trouble.at)),
            advice: last_error.as_ref().and_then(|trouble| trouble.advice.clone()),
            names: names.clone(),
            issuer: cert.as_ref().map(|cert| cert.issuer.clone()),
            serial: cert.as_ref().map(|cert| cert.serial.clone()),
            state: Some(state.as_str().to_owned()),
            renew_at: next.as_ref().map(|next| second(next.at)),
            renew_why: next.as_ref().map(|next| next.why.clone()),
            renew_ca: next.as_ref().map(|next| next.ca.clone()),
            failures: *failures,
            at_risk,
        }
    }
}

fn second(at: i64) -> String {
    Timestamp::from_second(at).unwrap_or_default().to_string()
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct System {
    pub cpu: Cpu,
    pub memory: Memory,
    pub disk: Vec<Disk>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    pub usage_ratio: f64,
    pub load1: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
    pub used_ratio: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    pub mount: String,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub used_ratio: f64,
}

/// `/health`, `/health/live`, `/health/ready`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub status: Verdict,
    pub message: String,
    pub timestamp: String,
}

/// `/health/detailed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detailed {
    #[serde(flatten)]
    pub health: Health,
    pub version: String,
    pub uptime_seconds: u64,
    /// `listeners`, `apps`, `upstreams`, `certificates`, `disk`
    pub components: BTreeMap<String, Component>,
    pub system: System,
    pub requests: Requests,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Component {
    pub status: Verdict,
    pub message: String,
}

/// `/health/metrics`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthMetrics {
    pub timestamp: String,
    pub uptime_seconds: u64,
    #[serde(flatten)]
    pub system: System,
    pub requests: Requests,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub total: u64,
    pub errors: u64,
    pub client_errors: u64,
    pub error_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<Recent>,
}

/// A moment as people and programs read it, to the second.
#[must_use]
pub fn moment(unix_ms: u64) -> String {
    i64::try_from(unix_ms / 1000).ok().and_then(|second| Timestamp::from_second(second).ok()).unwrap_or_default().to_string()
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Traffic {
    #[must_use]
    pub fn new(totals: Totals, recent: Option<Recent>) -> Self {
        let Totals { requests, client_errors, errors, received_bytes, sent_bytes, in_flight, connections } = totals;
        Self {
            requests,
            client_errors,
            errors,
            error_rate: share(errors, requests),
            in_flight,
            connections,
            received_bytes,
            sent_bytes,
            recent,
        }
    }

    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests {
            total: self.requests,
            errors: self.errors,
            client_errors: self.client_errors,
            error_rate: self.error_rate,
            recent: self.recent,
        }
    }
}

impl Site {
    /// `totals` of this site alone.
    #[must_use]
    pub fn new(site: &plan::Site, totals: Totals) -> Self {
        Self {
            name: site.name.clone(),
            hosts: site.hosts.iter().map(ToString::to_string).collect(),
            tls: match site.tls {
                SiteTls::Off => "off",
                SiteTls::Internal => "internal",
                SiteTls::Acme | SiteTls::OnDemand { .. } => "acme",
                SiteTls::Files { .. } | SiteTls::Directory { .. } => "files",
            }
            .into(),
            routes: site.routes.iter().map(Route::new).collect(),
            requests: totals.requests,
            errors: totals.errors,
            in_flight: totals.in_flight,
            maintenance: site.maintenance.on,
        }
    }
}

impl Route {
    fn new(route: &plan::Route) -> Self {
        let (action, upstream) = match &route.action {
            Action::Proxy { upstream } => (format!("upstream {upstream}"), Some(upstream.to_string())),
            Action::Redirect { to, status } => (format!("redirect {} {to}", status.as_u16()), None),
            Action::Respond { status, .. } => (format!("respond {}", status.as_u16()), None),
            Action::NotFound => ("not found".to_owned(), None),
        };
        let path = match &route.path {
            PathMatch::Exact(path) => format!("= {path}"),
            PathMatch::Prefix(path) => path.clone(),
            PathMatch::Regex(pattern) => format!("~ {pattern}"),
        };
        Self { path, action, upstream }
    }
}

/// Every app of the table, by name.
#[must_use]
pub fn apps(table: &AppTable) -> Vec<App> {
    let mut apps: BTreeMap<&str, App> = BTreeMap::new();
    for instance in &table.instances {
        let name = instance.id.app.as_str();
        let app = apps.entry(name).or_insert_with(|| App {
            name: name.to_owned(),
            ready: 0,
            instances: Vec::new(),
            restarts: table.restarts.get(name).cloned().unwrap_or_default(),
            job: table.jobs.get(name).map(Job::new),
        });
        app.ready += usize::from(instance.state == InstanceState::Ready);
        app.instances.push(Instance::new(instance));
    }
    apps.into_values().collect()
}

impl Job {
    #[must_use]
    pub fn new(record: &Record) -> Self {
        let Record { cron, zone, until_ms: _, running_ms: _, last, succeeded_ms, counts } = record;
        let at = |ms: i64| moment(u64::try_from(ms).unwrap_or(0));
        let last = last.as_ref().map(|job::Run { started_ms, ended_ms, took_ms, outcome, exit, lines }| Run {
            started: at(*started_ms),
            ended: at(*ended_ms),
            took_seconds: *took_ms as f64 / 1000.0,
            outcome: *outcome,
            exit: exit.clone(),
            lines: lines.clone(),
        });
        Self { schedule: cron.clone(), zone: zone.clone(), last, last_success: succeeded_ms.map(at), runs: *counts }
    }
}

impl Instance {
    #[must_use]
    pub fn new(instance: &message::Instance) -> Self {
        let message::Instance {
            id,
            incarnation: _,
            state,
            duty,
            release,
            since_ms,
            pid,
            addr,
            restarts,
            last_exit,
            last_restart_ms,
            due_ms,
            manual,
            note,
            cpu_ms,
            memory_bytes,
        } = instance;
        Self {
            id: id.to_string(),
            state: *state,
            duty: *duty,
            release: release.clone(),
            since: moment(*since_ms),
            pid: *pid,
            address: addr.as_ref().map(ToString::to_string),
            restarts: *restarts,
            last_exit: last_exit.as_ref().map(|(how, _)| how.clone()),
            last_exit_at: last_exit.as_ref().map(|(_, at)| moment(*at)),
            last_restart: last_restart_ms.map(moment),
            next_start: due_ms.map(moment),
            manual: *manual,
            note: note.clone(),
            cpu_seconds: *cpu_ms as f64 / 1000.0,
            memory_bytes: *memory_bytes,
        }
    }
}

impl Zone {
    #[must_use]
    pub fn new(name: &str, zone: &plan::Zone, keys: u64, waiting: u64, counts: ZoneCounts) -> Self {
        let ZoneCounts { passed, delayed, rejected, would_reject } = counts;
        Self {
            name: name.to_owned(),
            key: zone.key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + "),
            rate: zone.rate.map(|rate| rate.to_string()),
            burst: zone.burst,
            delay: (zone.delay < zone.burst).then_some(zone.delay),
            concurrent: zone.concurrent.map(NonZeroU32::get),
            count: zone.count.iter().map(http::StatusCode::as_u16).collect(),
            mode: zone.mode.as_str().to_owned(),
            keys,
            max_keys: zone.max_keys.get(),
            waiting,
            passed,
            delayed,
            rejected,
            would_reject,
        }
    }

    /// In words: "10r/1s, burst 20 delay 5, 3 at once", "5r/1m of 401 403".
    #[must_use]
    pub fn limit(&self) -> String {
        let burst = (self.rate.is_some() && self.burst > 0).then(|| match self.delay {
            Some(delay) => format!("burst {} delay {delay}", self.burst),
            None => format!("burst {}", self.burst),
        });
        let rate = self.rate.as_ref().map(|rate| match &self.count[..] {
            [] => rate.clone(),
            statuses => format!("{rate} of {}", statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")),
        });
        let at_once = self.concurrent.map(|most| format!("{most} at once"));
        [rate, burst, at_once].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl From<NodeSample> for System {
    fn from(sample: NodeSample) -> Self {
        let NodeSample { cpu_ratio, memory_total, memory_available, load1, disks } = sample;
        let used = memory_total.saturating_sub(memory_available);
        Self {
            cpu: Cpu { usage_ratio: cpu_ratio, load1 },
            memory: Memory {
                total_bytes: memory_total,
                used_bytes: used,
                available_bytes: memory_available,
                used_ratio: share(used, memory_total),
            },
            disk: disks
                .into_iter()
                .map(|disk| Disk {
                    mount: disk.mount.to_string_lossy().into_owned(),
                    total_bytes: disk.total,
                    free_bytes: disk.free,
                    used_ratio: share(disk.total.saturating_sub(disk.free), disk.total),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::standing::{Cert, Next, Trouble};

    const DAY: i64 = 86_400;

    fn standing() -> Standing {
        Standing {
            site: "shop.example".into(),
            names: vec!["shop.example".into(), "www.shop.example".into()],
            state: State::Served,
            cert: Some(Cert { issuer: "E7".into(), serial: "04ab".into(), not_before: 0, not_after: 90 * DAY }),
            next: Some(Next { at: 59 * DAY, why: "suggested by the CA".into(), ca: "letsencrypt".into() }),
            failures: 0,
            last_error: None,
            at_risk: false,
        }
    }

    #[test]
    fn a_certificate_that_is_looked_after_shows_how_it_stands() {
        let shown = Certificate::looked_after(&standing(), 10 * DAY);
        assert_eq!((shown.source.as_str(), shown.not_after.as_deref(), shown.problem), ("acme", Some("1970-04-01T00:00:00Z"), None));
        assert_eq!((shown.renew_why.as_deref(), shown.renew_at.as_deref()), (Some("suggested by the CA"), Some("1970-03-01T00:00:00Z")));
        let error = Trouble { at: DAY, text: "could not order it".into(), advice: Some("open port 80".into()) };
        let new = Standing { state: State::Waiting, cert: None, failures: 2, last_error: Some(error), ..standing() };
        let shown = Certificate::looked_after(&new, 10 * DAY);
        assert_eq!((shown.source.as_str(), shown.state.as_deref(), shown.at_risk), ("stand-in", Some("waiting"), true));
        assert_eq!((shown.problem.as_deref(), shown.advice.as_deref()), (Some("could not order it"), Some("open port 80")));
        let unproven = Standing { state: State::Unproven, ..standing() };
        assert!(Certificate::looked_after(&unproven, DAY).problem.is_some_and(|problem| problem.contains("handshake")));
    }

    #[test]
    fn the_alarm_rings_by_the_clock_even_when_the_steward_says_nothing() {
        assert!(!Certificate::looked_after(&standing(), 60 * DAY - 1).at_risk);
        assert!(Certificate::looked_after(&standing(), 60 * DAY).at_risk);
    }

    #[test]
    fn a_certificate_of_an_older_version_reads_and_a_plain_one_stays_short() {
        let old = serde_json::json!({ "host": "a.example", "source": "files", "not_after": "2099-01-01T00:00:00Z" });
        let read: Certificate = serde_json::from_value(old.clone()).expect("reads");
        let mut written = serde_json::to_value(read).expect("json");
        written.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        assert_eq!(written, old);
    }
}
