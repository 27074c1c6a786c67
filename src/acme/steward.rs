//! The steward: looks after every certificate of the configuration, and those that clients ask for.
//!
//! Shape: an actor. Plans, orders by hand, demands and ended attempts come in; attempts are begun when they are due, a few at a time. Nothing that serves waits for it.
//!        What it knows is published as [`Standing`]s at every change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    account::Accounts,
    attempt::{self, AttemptError, Bench, Job, Look, Outcome},
    challenge::Board,
    client::Transport,
    demand::Asker,
    disk,
    handle::{Desk, Order},
    order,
    proof::{self, Door, ProofError},
    standing::{Standing, Trouble},
    trouble,
    vault::{Demand, Vault, WAITING},
    ward::{Memory, Reason, Ward, validity},
};
use crate::{
    ipc::message::{Config, Role},
    pki::pair::Pair,
    plan::{Acme, Challenge, SiteTls},
    rules::{
        clientip,
        renewal::{Failure, Fault, Options, Why},
    },
    store::certs::{Certs, CertsError, Item},
    telemetry::{AcmeMetrics, Ordered, Seldom},
    vocab::{Host, HostPattern, chain},
};

/// Orders at a time; more wait.
const ORDERS: usize = 8;
/// Questions for windows at a time, and handshakes with ourselves; more wait.
const LOOKS: usize = 8;
const PROOFS: usize = 16;
/// The clock may be set: it is looked at this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A clock that goes back by more, in seconds, was set.
const CLOCK_STEP: i64 = 60;
/// Certificates on demand; more are refused.
const ON_DEMAND: usize = 1000;
/// A certificate that was not seen on our own listener is looked for again after this.
const PROVE_AGAIN: Duration = Duration::from_secs(60);

/// What the steward is made of.
pub struct Parts {
    pub certs: Certs,
    pub vault: Arc<Vault>,
    pub board: Arc<Board>,
    pub metrics: Arc<AcmeMetrics>,
    pub demands: mpsc::Receiver<Demand>,
    pub desk: Desk,
    /// The configuration in force.
    pub settings: watch::Receiver<Arc<Setting>>,
}

/// What a configuration means for it.
#[derive(Clone)]
pub struct Setting {
    acme: Acme,
    /// Names that go together, by the name that their certificate goes by.
    sites: BTreeMap<Host, Vec<Host>>,
    /// Whom sites with certificates on demand ask.
    asks: BTreeSet<String>,
    /// Kinds of challenge that some listener can answer, in their order.
    challenges: Vec<Challenge>,
    door: Option<Door>,
    /// By CA: how to speak with it, or why not.
    transports: Vec<Result<Transport, String>>,
    staging: Vec<bool>,
}

impl Setting {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Config { plan, listeners, materials, .. } = config;
        let acme = plan.tls.acme.clone();
        let exact = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(host) => Some(host.clone()),
            HostPattern::Wildcard(_) | HostPattern::Any => None,
        };
        let sites = plan.sites.iter().filter(|site| site.tls == SiteTls::Acme).filter_map(|site| {
            let names: Vec<Host> = site.hosts.iter().filter_map(exact).chain(site.redirected.iter().cloned()).collect();
            Some((names.first()?.clone(), names))
        });
        let asks = plan.sites.iter().filter_map(|site| match &site.tls {
            SiteTls::OnDemand { ask } => Some(ask.clone()),
            SiteTls::Off | SiteTls::Internal | SiteTls::Acme | SiteTls::Files { .. } | SiteTls::Directory { .. } => None,
        });
        let of = |role| listeners.iter().find(move |listener| listener.role == role);
        let can = |challenge: &Challenge| match challenge {
            Challenge::TlsAlpn01 => of(Role::Https).is_some(),
            Challenge::Http01 => of(Role::Http).is_some(),
        };
        let door = of(Role::Https).map(|listener| Door {
            bound: listener.bound,
            proxy_header: plan.listen.proxy_protocol && clientip::is_trusted(proof::reachable(listener.bound).ip(), &plan.trusted_proxies),
        });
        let transports = acme.cas.iter().map(|ca| {
            let pem = match &ca.root {
                None => None,
                Some(path) => {
                    let roots = materials.roots.iter().find(|roots| roots.path == *path);
                    Some(roots.map_or_else(|| Err("it was not read".to_owned()), |roots| roots.pem.clone())?)
                }
            };
            Transport::new(pem.as_deref()).map_err(|error| chain(&error))
        });
        Self {
            sites: sites.collect(),
            asks: asks.collect(),
            challenges: acme.challenges.iter().copied().filter(can).collect(),
            door,
            transports: transports.collect(),
            staging: acme.cas.iter().map(|ca| ca.staging.is_some()).collect(),
            acme,
        }
    }

    fn options(&self) -> Options<'_> {
        Options { staging: &self.staging, challenges: self.challenges.len() }
    }
}

/// The actor.
pub struct Steward {
    certs: Certs,
    vault: Arc<Vault>,
    board: Arc<Board>,
    metrics: Arc<AcmeMetrics>,
    demands: mpsc::Receiver<Demand>,
    desk: Desk,
    settings: watch::Receiver<Arc<Setting>>,
    setting: Arc<Setting>,
    accounts: Arc<Accounts>,
    wards: BTreeMap<Host, Ward>,
    /// Names with an attempt under way; those of sites that are gone among them.
    running: BTreeSet<Host>,
    looks: Arc<Semaphore>,
    proofs: Arc<Semaphore>,
    tasks: JoinSet<Done>,
    asker: Asker,
    /// Who waits for a certificate on demand; a name stands here from its question to its answer. [`WAITING`] at most.
    waiting: HashMap<Host, Vec<oneshot::Sender<bool>>>,
    unanswered: Seldom,
    refused: Seldom,
    /// When the clock was read last.
    seen: i64,
}

/// What a task has found.
enum Done {
    Attempt { name: Host, directory: String, ca: String, attempt: crate::rules::renewal::Attempt, took: Duration, outcome: Outcome },
    Look { name: Host, pair: Arc<Pair>, look: Look },
    Proof { name: Host, pair: Arc<Pair>, result: Result<(), ProofError> },
    Asked { name: Host, ask: String, answer: io::Result<bool> },
}

enum Event {
    Order(Order),
    Setting,
    Demand(Demand),
    Done(Done),
    Wake,
    Closed,
}

impl Steward {
    /// Fills the slots with what is on disk. Blocks for the disk: to be called before anything is served.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { certs, vault, board, metrics, demands, desk, mut settings } = parts;
        let setting = settings.borrow_and_update().clone();
        let accounts = Arc::new(Accounts::new(certs.clone()));
        let mut steward = Self {
            certs,
            vault,
            board,
            metrics,
            demands,
            desk,
            settings,
            setting,
            accounts,
            wards: BTreeMap::new(),
            running: BTreeSet::new(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            proofs: Arc::new(Semaphore::new(PROOFS)),
            tasks: JoinSet::new(),
            asker: Asker::default(),
            waiting: HashMap::new(),
            unanswered: Seldom::a_minute(),
            refused: Seldom::a_minute(),
            seen: now(),
        };
        steward.take_sites();
        steward.publish();
        steward
    }

    /// Until nobody can change its configuration any more.
    pub async fn run(mut self) {
        let names: Vec<Host> = self.wards.keys().cloned().collect();
        names.iter().for_each(|name| self.prove(name, Duration::ZERO));
        let mut wake = Instant::now();
        // Strangers that ask for names on demand in a flood are answered without a look at every certificate.
        let mut stirred = true;
        loop {
            if stirred {
                self.begin().await;
                self.publish();
                wake = Instant::now() + self.until_due();
            }
            let event = tokio::select! {
                Some(order) = self.desk.orders.recv() => Event::Order(order),
                changed = self.settings.changed() => if changed.is_ok() { Event::Setting } else { Event::Closed },
                Some(demand) = self.demands.recv() => Event::Demand(demand),
                // Whatever ends early has been caught, and none is cut off.
                Some(done) = self.tasks.join_next() => done.map_or(Event::Wake, Event::Done),
                () = sleep_until(wake) => Event::Wake,
            };
            stirred = match event {
                Event::Order(Order { host, reply }) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(self.renew(&host));
                    true
                }
                Event::Setting => {
                    self.apply();
                    true
                }
                Event::Demand(demand) => self.wanted(demand),
                Event::Done(Done::Asked { name, ask, answer }) => self.answered(name, ask, answer),
                Event::Done(done) => {
                    self.done(done).await;
                    true
                }
                Event::Wake => true,
                Event::Closed => return,
            };
        }
    }

    /// Does `work` beside everything else; a fault in it is its own, and comes to `fallback`.
    fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static, fallback: Done) {
        self.tasks.spawn(async move { AssertUnwindSafe(work).catch_unwind().await.unwrap_or(fallback) });
    }

    fn apply(&mut self) {
        let setting = self.settings.borrow_and_update().clone();
        if setting.acme.cas != self.setting.acme.cas || setting.acme.email != self.setting.acme.email {
            self.accounts.reopen();
        }
        if (&setting.acme, &setting.challenges) != (&self.setting.acme, &self.setting.challenges) {
            let now = now();
            self.wards.values_mut().for_each(|ward| ward.memory.history = ward.memory.history.clone().afresh(now));
        }
        self.setting = setting;
        self.take_sites();
    }

    /// The certificate of `host`, now.
    fn renew(&mut self, host: &str) -> Result<String, String> {
        let none = self.wards.is_empty();
        let found = self.wards.values_mut().find(|ward| ward.names.iter().any(|name| name.as_str() == host));
        match found {
            Some(ward) if ward.busy => Err(format!("an order for {} is under way already", ward.name)),
            Some(ward) => {
                ward.asked = true;
                Ok(format!("renewing the certificate of {}; see `gateway certs`", ward.name))
            }
            None if none => Err("no certificate of this gateway is ordered from a CA".to_owned()),
            None => Err(format!("no certificate for {host:?} is looked after: see `gateway certs` for those that are")),
        }
    }

    /// Wards for what the configuration names; of what it no longer names only the files are left.
    fn take_sites(&mut self) {
        let Setting { sites, asks, .. } = &*self.setting;
        let gone = |ward: &&Ward| match &ward.reason {
            _ if sites.contains_key(&ward.name) => false,
            Reason::Site => true,
            Reason::Demand { ask } => !asks.contains(ask),
        };
        let gone: Vec<Host> = self.wards.values().filter(gone).map(|ward| ward.name.clone()).collect();
        let spare: Vec<Spare> = self.wards.values().filter_map(|ward| Some((ward.slot.pair()?, ward.memory.directory.clone()))).collect();
        for name in gone {
            self.wards.remove(&name);
            // Or somebody who asks for it on demand would be served what nobody renews.
            self.vault.remove(&name);
            self.tell(&name, false);
        }
        for (name, names) in self.setting.sites.clone() {
            match self.wards.get_mut(&name) {
                Some(ward) => ward.named(names, now()),
                None => drop(self.take(name, names, Reason::Site, &spare)),
            }
        }
    }

    /// Takes a certificate into care, with what is on disk of it; else with the best of `spare` and of its other names, so that a site whose hosts change places or move
    /// to another site does not fall back to a stand-in.
    fn take(&mut self, name: Host, names: Vec<Host>, reason: Reason, spare: &[Spare]) -> Option<Arc<Pair>> {
        let slot = self.vault.slot(&name);
        let mut memory = self.memory(&name);
        memory.history = memory.history.restored(now());
        let mut ward = Ward::new(name.clone(), names, reason, slot, memory);
        ward.busy = self.running.contains(&name);
        if ward.slot.pair().is_none() {
            if let Some((pair, finished)) = self.read(&name) {
                ward.slot.put(pair.clone());
                if let Some(directory) = finished {
                    tracing::info!(cert = %name, serial = pair.serial, "certificate was issued just before a crash");
                    ward.issued(&pair, directory, pair.not_before);
                }
            } else if let Some((pair, directory)) = self.best(&ward.names, spare) {
                tracing::info!(cert = %name, serial = pair.serial, "served with the certificate of another site for now");
                ward.memory.directory = directory;
                ward.slot.put(pair);
            }
        }
        let pair = ward.slot.pair();
        self.wards.insert(name, ward);
        pair
    }

    /// Of the certificates that are there already the one for the most of `names`, and of these the one that lasts longest.
    fn best(&self, names: &[Host], spare: &[Spare]) -> Option<Spare> {
        let now = now();
        let others = names.iter().skip(1).filter_map(|name| {
            let (pair, finished) = self.read(name)?;
            Some((pair, finished.or_else(|| self.memory(name).directory)))
        });
        let fits = |pair: &Pair| names.iter().filter(|name| pair.is_for(name.as_str())).count();
        let good = spare.iter().cloned().chain(others).filter(|(pair, _)| fits(pair) > 0 && pair.valid(now).is_ok());
        good.max_by_key(|(pair, _)| (fits(pair), pair.not_after))
    }

    fn memory(&self, name: &Host) -> Memory {
        self.certs
            .read_json(name, Item::History)
            .unwrap_or_else(|error| {
                tracing::warn!(cert = %name, error = %chain(&error), "what was tried before was not read: it begins anew");
                None
            })
            .unwrap_or_default()
    }

    /// And the directory that it is from, if we died before we could note that.
    fn read(&self, name: &Host) -> Option<(Arc<Pair>, Option<String>)> {
        let pem = match self.certs.read(name, Item::Bundle) {
            Ok(pem) => pem?,
            Err(error) => {
                tracing::error!(cert = %name, error = %chain(&error), "certificate not read");
                return None;
            }
        };
        match Pair::from_pem(&pem, &pem) {
            Ok(pair) => Some((Arc::new(pair), order::finished(&self.certs, name, &pem))),
            Err(error) => {
                tracing::error!(cert = %name, error = %chain(&error), "certificate on disk is not usable: a new one is ordered");
                None
            }
        }
    }

    /// Begins what is due.
    async fn begin(&mut self) {
        let now = now();
        if now.saturating_add(CLOCK_STEP) < self.seen {
            self.wards.values_mut().for_each(|ward| ward.clock_was_set_back(now));
        }
        self.seen = now;
        let looks: Vec<Host> = self.wards.values().filter(|ward| ward.wants_look(now)).map(|ward| ward.name.clone()).collect();
        looks.iter().for_each(|name| self.look(name));
        let mut due: Vec<_> =
            self.wards.values().filter(|ward| !ward.busy && ward.next().0 <= now).map(|ward| (ward.next().0, ward.name.clone())).collect();
        due.sort();
        for (_, name) in due.into_iter().take(ORDERS.saturating_sub(self.running.len())) {
            self.attempt(&name, now).await;
        }
    }

    async fn attempt(&mut self, name: &Host, now: i64) {
        let options = self.setting.options();
        let Some(ward) = self.wards.get_mut(name) else { return };
        let attempt = ward.memory.history.attempt(&options);
        let Some(ca) = self.setting.acme.cas.get(attempt.ca).cloned() else { return };
        let (_, why) = ward.next();
        ward.busy = true;
        ward.memory.history = ward.memory.history.clone().begun(now);
        let pair = ward.slot.pair();
        let replaces = pair.filter(|_| ward.memory.directory.as_deref() == Some(ca.directory.as_str())).and_then(|pair| pair.leaf());
        let mut challenges = self.setting.challenges.clone();
        let first = attempt.challenge.min(challenges.len());
        challenges.rotate_left(first);
        let job = Job {
            name: ward.name.clone(),
            names: ward.names.clone(),
            staging: attempt.staging,
            challenges,
            replaces: if why == Why::First { None } else { replaces },
            slot: ward.slot.clone(),
            ask: match &ward.reason {
                // The first time it has just been asked.
                Reason::Demand { ask } if ward.slot.pair().is_some() || ward.memory.history.failures() > 0 => Some(ask.clone()),
                Reason::Demand { .. } | Reason::Site => None,
            },
            transport: self.setting.transports.get(attempt.ca).cloned().unwrap_or_else(|| Err("it was not read".to_owned())),
            ca,
        };
        tracing::info!(cert = %name, names = job.names.len(), ca = job.ca.name, staging = job.staging, why = %why, "ordering a certificate");
        let kept = self.remember(name).await;
        self.running.insert(name.clone());
        let bench = self.bench();
        let end = |error| Outcome::Failed { error, challenge: None, retry_after: None };
        let fallback = Done::Attempt {
            name: name.clone(),
            directory: job.ca.directory.clone(),
            ca: job.ca.name.clone(),
            attempt,
            took: Duration::ZERO,
            outcome: end(AttemptError::Fault),
        };
        let work = async move {
            let began = SystemTime::now();
            let outcome = match kept {
                Ok(()) => attempt::make(&job, &bench).await,
                // Nor could its certificate be kept.
                Err(error) => end(error.into()),
            };
            let took = began.elapsed().unwrap_or_default();
            Done::Attempt { name: job.name, directory: job.ca.directory, ca: job.ca.name, attempt, took, outcome }
        };
        self.spawn(work, fallback);
    }

    fn bench(&self) -> Bench {
        Bench {
            accounts: self.accounts.clone(),
            board: self.board.clone(),
            certs: self.certs.clone(),
            email: self.setting.acme.email.clone(),
            profile: self.setting.acme.profile.clone(),
        }
    }

    /// Asks the CA when it wants this certificate renewed.
    fn look(&mut self, name: &Host) {
        let Some(ward) = self.wards.get_mut(name) else { return };
        let issuer = self.setting.acme.cas.iter().position(|ca| Some(&ca.directory) == ward.memory.directory.as_ref());
        let way = issuer.and_then(|index| Some((self.setting.acme.cas[index].clone(), self.setting.transports[index].clone().ok()?)));
        let leaf = ward.slot.pair().and_then(|pair| Some((pair.leaf()?, pair)));
        let silence = Look { word: attempt::Word::None, again: i64::MAX };
        // Not again before this one is answered.
        ward.looked(Look { word: attempt::Word::Silence, again: i64::MAX }, now());
        let (Some((ca, transport)), Some((leaf, pair))) = (way, leaf) else { return ward.looked(silence, now()) };
        let (bench, name, turn) = (self.bench(), name.clone(), self.looks.clone());
        let fallback = Done::Look { name: name.clone(), pair: pair.clone(), look: Look { word: attempt::Word::Silence, again: i64::MAX } };
        let work = async move {
            let _turn = turn.acquire_owned().await;
            let look = attempt::look(&ca, &leaf, &bench, &transport).await;
            Done::Look { name, pair, look }
        };
        self.spawn(work, fallback);
    }

    /// Looks for the certificate on our own listener, after a while.
    fn prove(&mut self, name: &Host, after: Duration) {
        let Some(ward) = self.wards.get(name) else { return };
        let (Some(door), Some(pair)) = (self.setting.door, ward.slot.pair()) else { return };
        let Some(leaf) = pair.leaf() else { return };
        let (name, asked) = (name.clone(), ward.names.first().map_or_else(|| name.to_string(), ToString::to_string));
        let turn = self.proofs.clone();
        let fallback = Done::Proof { name: name.clone(), pair: pair.clone(), result: Err(ProofError::Name(asked.clone())) };
        let work = async move {
            sleep(after).await;
            let _turn = turn.acquire_owned().await;
            let result = proof::prove(door, &asked, &leaf).await;
            Done::Proof { name, pair, result }
        };
        self.spawn(work, fallback);
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Attempt { name, directory, ca, attempt, took, outcome } => {
                self.running.remove(&name);
                let now = now();
                let options = self.setting.options();
                // Its site is gone; what it came to is on disk.
                let Some(ward) = self.wards.get_mut(&name) else { return };
                ward.busy = false;
                match outcome {
                    Outcome::Issued(pair) => {
                        // The site may have been gone for a while, and have got a slot anew.
                        ward.slot.put(pair.clone());
                        ward.issued(&pair, directory, now);
                        self.metrics.ordered(Ordered::Ok);
                        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                        tracing::info!(cert = %name, ca, issuer = pair.issuer, serial = pair.serial, took_ms, "certificate issued");
                        self.prove(&name, Duration::ZERO);
                    }
                    Outcome::Rehearsed => {
                        ward.memory.history = ward.memory.history.clone().rehearsed(now);
                        self.metrics.ordered(Ordered::Rehearsed);
                        tracing::info!(cert = %name, ca, "the rehearsal passed: the order proper follows");
                    }
                    Outcome::Unwanted => {
                        tracing::info!(cert = %name, "certificate on demand is no longer wanted");
                        self.wards.remove(&name);
                        self.vault.remove(&name);
                        return self.tell(&name, false);
                    }
                    Outcome::Failed { error, challenge, retry_after } => {
                        let said = trouble::explained(&error, challenge, &directory, retry_after.map(unix));
                        let failure = said.failure;
                        let fault = Fault { failure, retry_after: said.retry_after };
                        let served = ward.slot.pair().map(|pair| validity(&pair));
                        ward.memory.history = ward.memory.history.clone().failed(&options, attempt, fault, served, now, fastrand::f64());
                        ward.memory.trouble = Some(Trouble { at: now, text: said.text.clone(), advice: said.advice.clone() });
                        ward.asked = false;
                        self.metrics.ordered(Ordered::Failed);
                        let next_s = ward.next().0.saturating_sub(now).max(0);
                        let advice = said.advice.as_deref().unwrap_or_default();
                        let level_up =
                            ward.standing(now, &self.setting.acme.cas, &self.setting.staging, self.setting.challenges.len()).at_risk;
                        if level_up || failure == Failure::Validation {
                            tracing::error!(cert = %name, ca, staging = attempt.staging, error = said.text, advice, next_s, "certificate not ordered");
                        } else {
                            tracing::warn!(cert = %name, ca, staging = attempt.staging, error = said.text, advice, next_s, "certificate not ordered");
                        }
                    }
                }
                // Said already.
                let _ = self.remember(&name).await;
                let there = self.wards.get(&name).is_some_and(|ward| ward.slot.pair().is_some());
                self.tell(&name, there);
            }
            Done::Look { name, pair, look } => {
                // What the CA says of a certificate that is no longer served is no word about the new one.
                if let Some(ward) = self.wards.get_mut(&name).filter(|ward| serves(ward, &pair)) {
                    ward.looked(look, now());
                }
            }
            Done::Proof { name, pair, result } => {
                let Some(ward) = self.wards.get_mut(&name).filter(|ward| serves(ward, &pair)) else { return };
                let before = ward.proven.replace(result.is_ok());
                if result.is_ok() && before == Some(false) {
                    ward.memory.trouble = None;
                }
                if let Err(error) = result {
                    if before != Some(false) {
                        tracing::error!(cert = %name, error = %chain(&error), "certificate is in place but was not seen on our own listener");
                    }
                    let advice = Some(
                        "another program may have the port, or a proxy in front that ends TLS; `gateway status` shows the listeners"
                            .to_owned(),
                    );
                    ward.memory.trouble = Some(Trouble { at: now(), text: format!("could not {}", chain(&error)), advice });
                    self.prove(&name, PROVE_AGAIN);
                }
            }
            Done::Asked { name, ask, answer } => drop(self.answered(name, ask, answer)),
        }
    }

    /// A client asks for a name without a certificate. Gives whether anything is looked after that was not before.
    fn wanted(&mut self, demand: Demand) -> bool {
        let Demand { name, ask, answer } = demand;
        if let Some(ward) = self.wards.get(&name) {
            if ward.slot.pair().is_some() {
                let _ = answer.send(true);
                return false;
            }
            if !ward.busy && ward.next().0 > now() {
                // It has just failed: nobody waits for the next try.
                let _ = answer.send(false);
                return false;
            }
        }
        // Those who have gone make room.
        self.waiting.values_mut().for_each(|waiting| waiting.retain(|answer| !answer.is_closed()));
        if self.waiting.values().map(Vec::len).sum::<usize>() >= WAITING {
            let _ = answer.send(false);
            return false;
        }
        let under_way = self.waiting.contains_key(&name) || self.wards.contains_key(&name);
        self.waiting.entry(name.clone()).or_default().push(answer);
        if under_way {
            return false;
        }
        if let Some(yes) = self.asker.known(&name, &ask, now()) {
            return self.asked(name, ask, yes);
        }
        match self.asker.ask(&name, &ask) {
            Some(asking) => {
                let fallback = Done::Asked { name: name.clone(), ask: ask.clone(), answer: Err(io::ErrorKind::Other.into()) };
                self.spawn(async move { Done::Asked { answer: asking.await, name, ask } }, fallback);
            }
            None => self.tell(&name, false),
        }
        false
    }

    fn answered(&mut self, name: Host, ask: String, answer: io::Result<bool>) -> bool {
        let yes = answer.unwrap_or_else(|error| {
            if let Some(muted) = self.unanswered.may() {
                tracing::warn!(cert = %name, ask, error = %error, muted, "could not ask whether a name may have a certificate");
            }
            false
        });
        self.asker.heard(&name, &ask, yes, now());
        self.asked(name, ask, yes)
    }

    fn asked(&mut self, name: Host, ask: String, yes: bool) -> bool {
        let on_demand = self.wards.values().filter(|ward| ward.reason != Reason::Site).count();
        if !yes || self.wards.contains_key(&name) {
            let there = yes && self.wards.get(&name).is_some_and(|ward| ward.slot.pair().is_some());
            self.tell(&name, there);
            return false;
        }
        if on_demand < ON_DEMAND && self.take(name.clone(), vec![name.clone()], Reason::Demand { ask }, &[]).is_some() {
            self.prove(&name, Duration::ZERO);
            self.tell(&name, true);
            return true;
        }
        // What is on disk already costs no order.
        if on_demand >= ON_DEMAND || !self.asker.may_order(now()) {
            if let Some(muted) = self.refused.may() {
                tracing::warn!(cert = %name, on_demand, muted, "too many certificates on demand: this one is refused");
            }
            self.wards.remove(&name);
            self.vault.remove(&name);
            self.tell(&name, false);
            return false;
        }
        true
    }

    fn tell(&mut self, name: &Host, there: bool) {
        for answer in self.waiting.remove(name).unwrap_or_default() {
            // The client may be gone.
            let _ = answer.send(there);
        }
    }

    async fn remember(&self, name: &Host) -> Result<(), CertsError> {
        let Some(ward) = self.wards.get(name) else { return Ok(()) };
        let (certs, host, memory) = (self.certs.clone(), name.clone(), ward.memory.clone());
        let kept = disk(move || certs.write_json(&host, Item::History, &memory)).await;
        if let Err(error) = &kept {
            tracing::error!(cert = %name, error = %chain(error), "what was tried is not kept on disk");
        }
        kept
    }

    fn publish(&self) {
        let now = now();
        let Setting { acme, staging, challenges, .. } = &*self.setting;
        let all: Vec<Standing> = self.wards.values().map(|ward| ward.standing(now, &acme.cas, staging, challenges.len())).collect();
        self.desk.standings.send_if_modified(|old| {
            let changed = **old != all;
            if changed {
                *old = Arc::new(all);
            }
            changed
        });
    }

    fn until_due(&self) -> Duration {
        let free = self.running.len() < ORDERS;
        let first = self.wards.values().map(Ward::wakes_at).min().filter(|_| free).unwrap_or(i64::MAX);
        let seconds = u64::try_from(first.saturating_sub(now())).unwrap_or_default();
        Duration::from_secs(seconds).clamp(Duration::from_millis(200), LONGEST_SLEEP)
    }
}

/// A certificate that may stand in for another, and the directory that issued it.
type Spare = (Arc<Pair>, Option<String>);

fn serves(ward: &Ward, pair: &Arc<Pair>) -> bool {
    ward.slot.pair().is_some_and(|served| Arc::ptr_eq(&served, pair))
}

fn now() -> i64 {
    unix(SystemTime::now())
}

fn unix(moment: SystemTime) -> i64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
