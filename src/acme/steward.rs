//! The steward: looks after every certificate of the configuration, and those that clients ask for.
//!
//! Shape: an actor. Plans, orders by hand, demands and ended attempts come in; attempts are begun when they are due, a few at a time. Nothing that serves waits for it.
//!        What it knows is published as [`Standing`]s at every change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
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
    demand::Asker,
    disk,
    handle::{Desk, Order},
    order,
    proof::{self, ProofError},
    standing::Standing,
    vault::{Demand, Vault},
    ward::{Memory, Reason, Ward},
};
use crate::{
    pki::pair::Pair,
    rules::renewal::Why,
    store::certs::{Certs, CertsError, Item},
    telemetry::{AcmeMetrics, Seldom},
    vocab::{Host, chain},
};

mod demand;
mod done;
mod setting;

use done::{Done, Ended};
pub use setting::Setting;

/// Orders at a time; more wait.
const ORDERS: usize = 8;
/// Questions for windows at a time, and handshakes with ourselves; more wait.
const LOOKS: usize = 8;
const PROOFS: usize = 16;
/// The clock may be set: it is looked at this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A clock that goes back by more, in seconds, was set.
const CLOCK_STEP: i64 = 60;

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
        let fallback = Done::Attempt(Ended {
            name: name.clone(),
            directory: job.ca.directory.clone(),
            ca: job.ca.name.clone(),
            attempt,
            took: Duration::ZERO,
            outcome: end(AttemptError::Fault),
        });
        let work = async move {
            let began = SystemTime::now();
            let outcome = match kept {
                Ok(()) => attempt::make(&job, &bench).await,
                // Nor could its certificate be kept.
                Err(error) => end(error.into()),
            };
            let took = began.elapsed().unwrap_or_default();
            Done::Attempt(Ended { name: job.name, directory: job.ca.directory, ca: job.ca.name, attempt, took, outcome })
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
