//! The only prober: finds out which servers are up, which instances are ready and alive, and what names resolve to.
//!
//! Shape: one task a target, made and ended as pools and instances come and go; a target that a reload does not change keeps its task and its history.
//!   `[upstream] health`  at once, then each `interval`; each second at most while the server has never passed
//!   instance starting    with `ready` http or tcp: each 100 ms, after 5 s each 250 ms, until it passes → `Health::Ready`, and on until the master has it so
//!   instance ready       with `live`: each `interval` → `Health::Dead`, `Health::Live` when it turns. A probe that times out while requests are in flight on
//!                        the instance counts only if none was answered since the probe before: slow is not dead.
//!   a suspect            at once, until it says anything; its siblings once, where none has answered meanwhile ([`crate::rules::suspicion`])
//!   a host name          each 10 s; an address stays while the name still has it, and is given up when the name has not resolved three times in a row.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    check::{Check, Fault},
    pool::{AppSpec, Pool, Spec},
    pools::Pools,
    question::Question,
    server::{Address, PeerAddr, Server},
    suspect,
    target::{Target, Tools, Who},
};
use crate::{
    ipc::message::{Health, Incarnation, InstanceId, InstanceState, ToMaster},
    plan::{self, HealthKind, Ready},
    rules::health::{Outcome, Record, Thresholds, Verdict, weigh},
    vocab::{ServerAddr, UpstreamName},
};

const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// While a name has no address at all.
const RESOLVE_SOON: Duration = Duration::from_secs(1);
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Failed resolutions in a row after which the last address is given up: one lost datagram is not an outage.
const RESOLVE_FAILS: u32 = 3;
/// Between two looks for servers that hang.
const LOOK: Duration = Duration::from_millis(200);
/// Between two words that an instance which starts has passed.
const TELL_AGAIN: Duration = Duration::from_millis(250);
/// 2xx and 3xx.
const APP_PASSES: (u16, u16) = (200, 399);

/// The actor. Ends when the sender of pools is gone.
pub struct Prober {
    pools: watch::Receiver<Arc<Pools>>,
    tools: Tools,
    tasks: JoinSet<()>,
    running: HashMap<Key, Running>,
    /// One a server that may hang.
    questions: JoinSet<()>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    Name(UpstreamName, String),
    Server(UpstreamName, String),
    Instance(InstanceId, Incarnation),
}

struct Running {
    job: Job,
    task: AbortHandle,
}

#[derive(Clone, Debug, PartialEq)]
struct Timing {
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
}

#[derive(Clone)]
enum Job {
    Resolve { who: Who, address: Arc<Address> },
    Watch { target: Target, check: Check, timing: Timing },
    Ready { target: Target, check: Check, timeout: Duration, id: InstanceId, incarnation: Incarnation },
    Live { target: Target, check: Check, timing: Timing, id: InstanceId, incarnation: Incarnation },
}

impl Job {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Resolve { address, .. }, Self::Resolve { address: other, .. }) => Arc::ptr_eq(address, other),
            (Self::Watch { target, check, timing }, Self::Watch { target: t, check: c, timing: i }) => {
                target.same(t) && check == c && timing == i
            }
            (
                Self::Ready { target, check, timeout, id, incarnation },
                Self::Ready { target: t, check: c, timeout: o, id: n, incarnation: i },
            ) => target.same(t) && check == c && timeout == o && id == n && incarnation == i,
            (
                Self::Live { target, check, timing, id, incarnation },
                Self::Live { target: t, check: c, timing: m, id: n, incarnation: i },
            ) => target.same(t) && check == c && timing == m && id == n && incarnation == i,
            (Self::Resolve { .. } | Self::Watch { .. } | Self::Ready { .. } | Self::Live { .. }, _) => false,
        }
    }

    async fn run(self, tools: Tools) {
        match self {
            Self::Resolve { who, address } => resolve(&who, &address, &tools).await,
            Self::Watch { target, check, timing } => watch_server(&target, &check, &timing, &tools).await,
            Self::Ready { target, check, timeout, id, incarnation } => {
                // The master may know that somebody else answered: it is told again until the table says that the instance is ready, which ends this task.
                loop {
                    until_ready(&target, &check, timeout, &tools).await;
                    tools.report(id.clone(), incarnation, Health::Ready).await;
                    sleep(TELL_AGAIN).await;
                }
            }
            Self::Live { target, check, timing, id, incarnation } => {
                watch_instance(&target, &check, &timing, &id, incarnation, &tools).await
            }
        }
    }
}

impl Prober {
    /// `out`: verdicts on instances for the master. Any bound will do: a full channel makes the one task wait that has something to say.
    #[must_use]
    pub fn new(pools: watch::Receiver<Arc<Pools>>, out: mpsc::Sender<ToMaster>) -> Self {
        let epoch = pools.borrow().instances().epoch;
        let tools = Tools::new(out, epoch);
        Self { pools, tools, tasks: JoinSet::new(), running: HashMap::new(), questions: JoinSet::new() }
    }

    /// Cancel-safety: dropping it ends every probe.
    pub async fn run(mut self) {
        let mut tables = self.pools.borrow().instances().watch();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pools = self.pools.borrow_and_update().clone();
            tables.mark_unchanged();
            self.reconcile(&pools);
            loop {
                tokio::select! {
                    changed = self.pools.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    changed = tables.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some(ended) = self.tasks.join_next_with_id() => if let Err(error) = ended && error.is_panic() {
                        tracing::error!(error = %error, "probe ended");
                        let id = error.id();
                        self.running.retain(|_, running| running.task.id() != id);
                        break;
                    },
                    () = self.tools.turned.notified() => pools.observe(),
                    _ = second.tick() => pools.observe(),
                    _ = look.tick() => self.suspect(&pools),
                    Some(_) = self.questions.join_next() => {}
                }
            }
        }
    }

    /// Looks for servers that hang, and asks them.
    fn suspect(&mut self, pools: &Pools) {
        for pool in pools.iter() {
            let found = suspect::look(pool, pools.now());
            if found.turned {
                self.tools.turned.notify_one();
            }
            for server in found.question {
                if let Some(question) = Question::of(pool, server, self.tools.clone()) {
                    self.questions.spawn(question.ask());
                }
            }
        }
    }

    fn reconcile(&mut self, pools: &Pools) {
        let wanted = wanted(pools);
        self.running.retain(|key, running| {
            let keep = wanted.get(key).is_some_and(|job| job.same(&running.job));
            if !keep {
                running.task.abort();
            }
            keep
        });
        for (key, job) in wanted {
            self.running.entry(key).or_insert_with(|| {
                let task = self.tasks.spawn(job.clone().run(self.tools.clone()));
                Running { job, task }
            });
        }
    }
}

fn wanted(pools: &Pools) -> HashMap<Key, Job> {
    let mut wanted = HashMap::new();
    let table = pools.instances().table();
    for pool in pools.iter() {
        match &pool.spec {
            Spec::Upstream(spec) => servers(pool, spec, &mut wanted),
            Spec::App(app) => {
                for instance in table.instances.iter().filter(|instance| instance.id.app == app.name) {
                    let Some(known) = pools.instances().find(&instance.id, instance.incarnation) else { continue };
                    let who = Who { upstream: pool.name().clone(), server: instance.id.to_string() };
                    let target = Target { who, address: known.address, vitals: known.vitals };
                    if let Some(job) = instance_job(app, target, &instance.id, instance.incarnation, known.state) {
                        wanted.insert(Key::Instance(instance.id.clone(), instance.incarnation), job);
                    }
                }
            }
        }
    }
    wanted
}

fn servers(pool: &Pool, spec: &plan::Upstream, wanted: &mut HashMap<Key, Job>) {
    for server in pool.servers() {
        let Server { label, address, vitals, .. } = &*server;
        let who = Who { upstream: pool.name().clone(), server: label.clone() };
        if let ServerAddr::Name { .. } = address.asked() {
            let job = Job::Resolve { who: who.clone(), address: address.clone() };
            wanted.insert(Key::Name(pool.name().clone(), label.clone()), job);
        }
        if let Some(plan::Health { kind, interval, timeout, fail, pass }) = &spec.health {
            let check = match kind {
                HealthKind::Tcp => Check::Tcp,
                HealthKind::Http { path, host, expect } => Check::Http {
                    path: path.clone(),
                    host: host.clone().unwrap_or_else(|| suspect::host_of(address.asked())),
                    expect: expect.clone(),
                    version: spec.http,
                },
            };
            let timing = Timing { interval: *interval, timeout: *timeout, thresholds: Thresholds { fail: *fail, pass: *pass } };
            let target = Target { who, address: address.clone(), vitals: vitals.clone() };
            wanted.insert(Key::Server(pool.name().clone(), label.clone()), Job::Watch { target, check, timing });
        }
    }
}

fn instance_job(app: &AppSpec, target: Target, id: &InstanceId, incarnation: Incarnation, state: InstanceState) -> Option<Job> {
    let http = |path: &str, host: &Option<String>| {
        let host = host.clone().or_else(|| app.host.clone()).unwrap_or_else(|| "localhost".into());
        Check::Http { path: path.into(), host, expect: vec![APP_PASSES], version: app.http }
    };
    match state {
        InstanceState::Starting => {
            let (check, timeout) = match &app.ready {
                Ready::Http { path, host, timeout } => (http(path, host), *timeout),
                Ready::Tcp { timeout } => (Check::Tcp, *timeout),
                // The master sees these itself.
                Ready::Log { .. } | Ready::Notify { .. } | Ready::Started => return None,
            };
            Some(Job::Ready { target, check, timeout, id: id.clone(), incarnation })
        }
        InstanceState::Ready => {
            let plan::Live { path, host, interval, timeout, fail, pass } = app.live.as_ref()?;
            let timing = Timing { interval: *interval, timeout: *timeout, thresholds: Thresholds { fail: *fail, pass: *pass } };
            Some(Job::Live { target, check: http(path, host), timing, id: id.clone(), incarnation })
        }
        InstanceState::Stopped
        | InstanceState::Draining
        | InstanceState::Stopping
        | InstanceState::Exited
        | InstanceState::Backoff
        | InstanceState::Cooldown
        | InstanceState::Taken
        | InstanceState::Failed => None,
    }
}

/// Spreads probes that began together, by a tenth.
fn about(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}

async fn watch_server(target: &Target, check: &Check, timing: &Timing, tools: &Tools) {
    let Target { who, vitals, .. } = target;
    let mut record = Record::of(vitals.verdict());
    let mut first = true;
    loop {
        let Some(result) = tools.probe(target, check, timing.timeout).await else {
            sleep(timing.interval.min(Duration::from_millis(250))).await;
            continue;
        };
        let outcome = result.as_ref().err().map_or(Outcome::Pass, Fault::outcome);
        let reason = result.err().map(|fault| fault.to_string());
        let next = record.step(outcome, timing.thresholds);
        if next.verdict() == record.verdict() {
            if next.verdict() != Verdict::Up {
                vitals.complain(reason);
            }
        } else {
            match (next.verdict(), &reason) {
                (Verdict::Up, _) => tracing::info!(upstream = %who.upstream, server = %who.server, "server up"),
                (_, reason) => {
                    tracing::warn!(upstream = %who.upstream, server = %who.server, reason = reason.as_deref().unwrap_or_default(), "server down");
                }
            }
            vitals.set_verdict(next.verdict(), reason);
            tools.turned.notify_one();
        }
        record = next;
        let pause = match record.verdict() {
            Verdict::New => about(timing.interval.min(Duration::from_secs(1))),
            // Half of it on average: servers of one pool are not probed in step.
            Verdict::Up | Verdict::Slow | Verdict::Down if first => timing.interval.mul_f64(fastrand::f64()),
            Verdict::Up | Verdict::Slow | Verdict::Down => about(timing.interval),
        };
        first = record.verdict() == Verdict::New;
        sleep(pause).await;
    }
}

async fn until_ready(target: &Target, check: &Check, within: Duration, tools: &Tools) {
    let began = Instant::now();
    // One that hangs on the first request must not use up the whole time of its start.
    let within = within.min(Duration::from_secs(5));
    loop {
        match tools.probe(target, check, within).await {
            Some(Ok(())) => return target.vitals.complain(None),
            Some(Err(fault)) => target.vitals.complain(Some(fault.to_string())),
            None => {}
        }
        sleep(Duration::from_millis(if began.elapsed() < Duration::from_secs(5) { 100 } else { 250 })).await;
    }
}

async fn watch_instance(target: &Target, check: &Check, timing: &Timing, id: &InstanceId, incarnation: Incarnation, tools: &Tools) {
    let Target { who, vitals, .. } = target;
    // A task that a reload has made anew goes on from what the one before had found.
    let mut record = Record::of(if vitals.verdict() == Verdict::Slow { Verdict::Down } else { Verdict::Up });
    let mut answered = vitals.answered();
    sleep(timing.interval.mul_f64(fastrand::f64())).await;
    loop {
        let result = tools.probe(target, check, timing.timeout).await.unwrap_or(Ok(()));
        let outcome = result.as_ref().err().map_or(Outcome::Pass, Fault::outcome);
        let reason = result.err().map_or_else(String::new, |fault| fault.to_string());
        let before = std::mem::replace(&mut answered, vitals.answered());
        match weigh(outcome, vitals.in_flight(), answered != before) {
            Some(outcome) => {
                let next = record.step(outcome, timing.thresholds);
                if next.verdict() != record.verdict() {
                    if next.verdict() == Verdict::Up {
                        tracing::info!(upstream = %who.upstream, instance = %id, "instance alive again");
                        vitals.set_verdict(Verdict::Up, None);
                        tools.report(id.clone(), incarnation, Health::Live).await;
                    } else {
                        tracing::warn!(upstream = %who.upstream, instance = %id, reason = %reason, "instance dead");
                        // The last choice from now on, but a choice, until the master has replaced it.
                        vitals.set_verdict(Verdict::Slow, Some(reason.clone()));
                        tools.report(id.clone(), incarnation, Health::Dead { reason }).await;
                    }
                    tools.turned.notify_one();
                }
                record = next;
            }
            None => tracing::debug!(upstream = %who.upstream, instance = %id, reason = %reason, "instance slow"),
        }
        sleep(about(timing.interval)).await;
    }
}

async fn resolve(who: &Who, address: &Address, tools: &Tools) {
    let ServerAddr::Name { host, port } = address.asked() else { return };
    let mut failed = 0;
    loop {
        let slot = tools.slots.acquire().await;
        let answer = timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host.as_str(), *port))).await;
        drop(slot);
        let found: Vec<_> = match answer {
            Ok(Ok(addrs)) => addrs.map(PeerAddr::Tcp).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let current = address.found();
        match (found.first(), &current) {
            (None, Some(_)) => {
                failed += 1;
                if failed >= RESOLVE_FAILS {
                    tracing::warn!(upstream = %who.upstream, server = %who.server, "name does not resolve");
                    address.resolved(None);
                    tools.turned.notify_one();
                }
            }
            (None, None) => {
                if failed == 0 {
                    tracing::warn!(upstream = %who.upstream, server = %who.server, "name does not resolve");
                }
                failed += 1;
            }
            (Some(first), current) => {
                failed = 0;
                if !current.as_ref().is_some_and(|current| found.contains(current)) {
                    tracing::debug!(upstream = %who.upstream, server = %who.server, addr = ?first, "name resolved");
                    address.resolved(Some(first.clone()));
                    tools.turned.notify_one();
                }
            }
        }
        // A name that has none yet is asked for again soon.
        sleep(if address.found().is_some() { RESOLVE_EVERY } else { RESOLVE_SOON }).await;
    }
}

#[cfg(test)]
mod tests;
