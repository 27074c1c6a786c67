//! Warden: the jail with the clock, the log and the metrics that it lacks.
//!
//! Shape: one for the life of an edge; every `Live` looks at it through a [`Sentry`](super::gate::Sentry) of its own, which knows what counts and who is exempt.
//!        Whoever is banned finds: his next request answered with 403, and his connection closed then; new TLS connections closed before a byte; his open tunnels cut,
//!        for a WebSocket is one request for hours. Downloads and requests under way are finished.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    plan::{BanMode, ban::Offence},
    rules::jail::{Jail, Reason, Rule, Sentence, Who},
    telemetry::{BanMetrics, Metrics, Seldom},
    vocab::lock,
};

pub mod ledger;

pub use ledger::Ledger;

/// Lines a second about bans; more are counted on the next.
const LINES: NonZeroU32 = NonZeroU32::new(10).expect("not zero because it is ten");

/// See the head of this file.
#[derive(Debug)]
pub struct Warden {
    jail: Jail,
    metrics: Arc<BanMetrics>,
    /// What is written down is not what is.
    unwritten: AtomicBool,
    /// Rung when that becomes so.
    changed: Notify,
    /// By the client at their end: how many, and how they are cut.
    tunnels: Mutex<HashMap<Who, (usize, CancellationToken)>>,
    told: Seldom,
}

/// What somebody did.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub offence: Offence,
    pub points: u16,
}

impl Warden {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            jail: Jail::new(),
            metrics: metrics.bans(),
            unwritten: AtomicBool::new(false),
            changed: Notify::new(),
            tunnels: Mutex::default(),
            told: Seldom::a_second(LINES),
        }
    }

    /// Whether nobody is banned: one relaxed load.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jail.is_empty()
    }

    /// How many are banned, to the second.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.jail.count() as u64
    }

    #[must_use]
    pub fn metrics(&self) -> &BanMetrics {
        &self.metrics
    }

    /// The ban that is in force.
    #[must_use]
    pub fn held(&self, ip: IpAddr) -> Option<Sentence> {
        self.jail.held(Who::of(ip)?, now)
    }

    /// Whether he has not been charged with this path yet.
    pub fn is_new(&self, client: IpAddr, path: &[u8], rule: &Rule) -> bool {
        Who::of(client).is_some_and(|who| self.jail.is_new(who, path, rule, now()))
    }

    /// Whether he goes on and on where a zone refuses him.
    pub fn crowds(&self, client: IpAddr, rule: &Rule) -> bool {
        Who::of(client).is_some_and(|who| self.jail.crowds(who, rule, now()))
    }

    /// He was answered as honest people are.
    pub fn credit(&self, client: IpAddr) {
        if let Some(who) = Who::of(client) {
            self.jail.credit(who);
        }
    }

    /// Counts an offence, and bans whoever has done too much.
    pub fn charge(&self, client: IpAddr, charge: Charge, rule: &Rule, mode: BanMode) {
        let Some(who) = Who::of(client) else { return };
        let Some((sentence, points)) = self.jail.strike(who, charge.offence, charge.points, rule, now()) else { return };
        match mode {
            BanMode::Enforce => self.cut(who),
            BanMode::Observe => {}
        }
        self.metrics.banned(&sentence.reason.to_string());
        self.is_unwritten();
        self.tell(who, &sentence, points, mode);
    }

    /// By hand.
    pub fn ban(&self, who: Who, lasts: Duration) -> Sentence {
        let sentence = self.jail.ban(who, lasts, now());
        self.cut(who);
        self.metrics.banned(&sentence.reason.to_string());
        self.is_unwritten();
        let until = moment(sentence.until);
        tracing::info!(client = %who, %until, "client banned by hand");
        sentence
    }

    /// By hand. Whether there was a ban to end; points go either way.
    pub fn free(&self, who: Who) -> bool {
        let was = self.jail.free(who, now());
        self.is_unwritten();
        if was {
            tracing::info!(client = %who, "ban ended by hand");
        }
        was
    }

    /// Frees whomever the configuration does not want banned any more.
    pub fn free_all_but(&self, mut keep: impl FnMut(Who, &Sentence) -> bool) {
        let mut freed = 0_u64;
        self.jail.free_all_but(|who, sentence| {
            let kept = keep(who, sentence);
            freed += u64::from(!kept);
            kept
        });
        if freed > 0 {
            self.is_unwritten();
            tracing::info!(freed, "bans ended by the configuration");
        }
    }

    /// Points are counted in another time from now on.
    pub fn forget_points(&self) {
        self.jail.acquit_all();
    }

    /// Those in force, the newest first, and how many there are; at most `most` of them.
    #[must_use]
    pub fn list(&self, most: usize) -> (Vec<(Who, Sentence)>, usize) {
        let (now, mut all) = (now(), Vec::new());
        self.jail.each(|who, sentence| {
            if sentence.holds(now) {
                all.push((who, sentence));
            }
        });
        let count = all.len();
        let newest_first = |(who, sentence): &(Who, Sentence)| (std::cmp::Reverse(sentence.since), *who);
        if count > most {
            all.select_nth_unstable_by_key(most, newest_first);
            all.truncate(most);
        }
        all.sort_unstable_by_key(newest_first);
        (all, count)
    }

    /// Cuts a tunnel of `ip` when that is banned, for as long as the result lives.
    #[must_use]
    pub fn watch(self: &Arc<Self>, ip: IpAddr) -> Option<Watched> {
        let who = Who::of(ip)?;
        let cut = {
            let mut tunnels = self.tunnels();
            let (count, cut) = tunnels.entry(who).or_default();
            *count += 1;
            cut.clone()
        };
        Some(Watched { warden: self.clone(), who, cut })
    }

    fn cut(&self, who: Who) {
        if let Some((_, cut)) = self.tunnels().remove(&who) {
            cut.cancel();
        }
    }

    fn tunnels(&self) -> MutexGuard<'_, HashMap<Who, (usize, CancellationToken)>> {
        // Nothing panics while it is held.
        lock(&self.tunnels)
    }

    fn is_unwritten(&self) {
        self.unwritten.store(true, Relaxed);
        self.changed.notify_one();
    }

    fn tell(&self, who: Who, sentence: &Sentence, points: u32, mode: BanMode) {
        let Some(more) = self.told.may() else { return };
        let (reason, until, times) = (sentence.reason, moment(sentence.until), sentence.times);
        match mode {
            BanMode::Enforce => tracing::warn!(client = %who, %reason, points, %until, times, more, "client banned"),
            BanMode::Observe => tracing::warn!(client = %who, %reason, points, %until, times, more, "client would be banned"),
        }
    }
}

/// A tunnel that is cut when its client is banned.
#[derive(Debug)]
pub struct Watched {
    warden: Arc<Warden>,
    who: Who,
    cut: CancellationToken,
}

impl Watched {
    /// Cancelled when the client is banned.
    #[must_use]
    pub fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// As if the ban had just been made.
    pub fn cut_now(&self) {
        self.warden.cut(self.who);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.cut.is_cancelled() {
            return;
        }
        let mut tunnels = self.warden.tunnels();
        if let Some((count, _)) = tunnels.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                tunnels.remove(&self.who);
            }
        }
    }
}

/// Whether a ban is one that this mode enforces; one by hand always is.
#[must_use]
pub fn enforces(mode: BanMode, reason: Reason) -> bool {
    match (reason, mode) {
        (Reason::Hand, _) | (Reason::Offence(_), BanMode::Enforce) => true,
        (Reason::Offence(_), BanMode::Observe) => false,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn moment(second: u32) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule { max: 2, find_time: Duration::from_secs(600), ban_time: Duration::from_secs(600), grow: false }
    }

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn a_ban_cuts_the_tunnels_of_its_client_and_no_others() {
        let warden = Arc::new(Warden::new(&Metrics::new()));
        let (first, second, other) = (warden.watch(ip(1)), warden.watch(ip(1)), warden.watch(ip(2)));
        drop(second);
        let charge = Charge { offence: Offence::Zone, points: 2 };
        warden.charge(ip(1), charge, &rule(), BanMode::Enforce);
        let is_cut = |watched: &Option<Watched>| watched.as_ref().expect("an address").cut.is_cancelled();
        assert!(is_cut(&first) && !is_cut(&other));
        let late = warden.watch(ip(1));
        drop((first, other));
        assert_eq!(warden.tunnels().len(), 1, "one that came after the ban is not counted down by one from before");
        drop(late);
        assert!(warden.tunnels().is_empty());
        assert!(warden.unwritten.load(Relaxed) && warden.held(ip(1)).is_some() && warden.count() == 1);
    }

    #[test]
    fn the_newest_are_listed_first_and_no_more_than_asked_for() {
        let warden = Warden::new(&Metrics::new());
        for n in 1..=9 {
            let who = Who::of(ip(n)).expect("an address");
            let since = 2_000_000_000 + u32::from(n);
            let sentence = Sentence { since, until: since + 1_000_000_000, times: 1, reason: Reason::Hand };
            assert!(warden.jail.restore(who, sentence, now()));
        }
        let (listed, count) = warden.list(3);
        assert_eq!((listed.iter().map(|(who, _)| who.address()).collect::<Vec<_>>(), count), (vec![ip(9), ip(8), ip(7)], 9));
    }
}
