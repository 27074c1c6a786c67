//! Who is banned: before any site is asked.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use http::StatusCode;
use ipnet::IpNet;
use thiserror::Error;

use super::{Ask, Verdict, address::Nets};
use crate::{
    edge::{
        refused,
        warden::{Charge, Warden, Watched, enforces},
    },
    plan::{self, BanMode, Family, ban::Offence},
    rules::jail::{Reason, Rule, Sentence, Who},
};

/// How long a ban by hand lasts where neither the command nor `[ban]` says.
const BY_HAND: Duration = Duration::from_secs(3600);

/// Why an address is not banned by hand.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum Spared {
    #[error("{0} is one of trusted_proxies: a ban would shut out everybody behind it; ban the client that it names")]
    Proxy(IpAddr),
    #[error("{0} stands in `ignore` of [ban]: take it out there first")]
    Ignored(IpAddr),
    #[error("{0} is no client's address")]
    Nobody(IpAddr),
}

/// What somebody asked for and was answered.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// What a gate refused it for.
    pub offence: Option<Offence>,
    pub status: u16,
    /// Without a query.
    pub path: &'a [u8],
    /// What a filter took it for, refused or not.
    pub seen: Option<Family>,
    /// It came with credentials, or with a form that may hold some: a 401 for any other only invites.
    pub tried: bool,
    /// What is behind the route is a program of PHP, whose own paths are no probes.
    pub php: bool,
}

impl Deed<'_> {
    /// By what it may count.
    fn offences(&self) -> impl Iterator<Item = Offence> {
        let missing = matches!(self.status, 404 | 410);
        let own = self.php && self.path.ends_with(b".php");
        let by_status = self.status >= 400 && (self.status != 401 || self.tried) && !(missing && own);
        let probe = missing && !own && matches!(self.seen, Some(Family::Probe | Family::DotFile | Family::Extension));
        let observed = self.seen.is_some() && self.offence.is_none();
        let row = self.offence == Some(Offence::Zone);
        let special = [(probe, Offence::Probe), (observed, Offence::Observed), (row, Offence::ZoneRow)];
        let of_status = [Offence::Status(self.status), Offence::Class((self.status / 100) as u8)];
        let special = special.into_iter().filter_map(|(is, offence)| is.then_some(offence));
        self.offence.into_iter().chain(special).chain(of_status.into_iter().filter(move |_| by_status))
    }

    /// Whether an offence counts once for each path.
    fn counts_paths(&self, offence: Offence) -> bool {
        let missing = matches!(self.status, 404 | 410);
        match offence {
            Offence::Probe => true,
            Offence::Status(_) | Offence::Class(_) => missing,
            _ => false,
        }
    }
}

/// The warden as one configuration sees him: what counts, and who is exempt.
#[derive(Debug)]
pub struct Sentry {
    warden: Arc<Warden>,
    /// `ignore`.
    ignored: Nets,
    /// Nobody behind a proxy is to suffer for another.
    proxies: Nets,
    law: Option<Law>,
}

/// `[ban]`
#[derive(Debug, PartialEq)]
struct Law {
    rule: Rule,
    mode: BanMode,
    points: BTreeMap<Offence, u16>,
}

impl Sentry {
    #[must_use]
    pub fn new(plan: &plan::Plan, warden: Arc<Warden>) -> Self {
        Self::of(plan.ban.as_ref(), &plan.trusted_proxies, warden)
    }

    /// As [`Self::new`], from what concerns it alone.
    #[must_use]
    pub fn of(ban: Option<&plan::Ban>, proxies: &[IpNet], warden: Arc<Warden>) -> Self {
        let law = |ban: &plan::Ban| Law { rule: Rule::of(ban), mode: ban.mode, points: ban.points.clone() };
        Self { warden, ignored: Nets::new(ban.map_or(&[], |ban| &ban.ignore)), proxies: Nets::new(proxies), law: ban.map(law) }
    }

    /// It is in force now: those it exempts are freed, without `[ban]` all that were not banned by hand; points that were counted in another time are forgotten.
    pub fn takes_over(&self, old: Option<&Self>) {
        let counted = self.law.iter().flat_map(|law| law.points.keys()).map(|offence| Reason::Offence(*offence));
        counted.chain([Reason::Hand]).for_each(|reason| self.warden.metrics().expect(reason.to_string()));
        if !self.warden.is_idle() {
            self.warden.free_all_but(|who, sentence| self.is_law_for(sentence.reason) && !self.is_exempt(who.address()));
        }
        let find_time = |sentry: &Self| sentry.law.as_ref().map(|law| law.rule.find_time);
        if old.is_some_and(|old| find_time(old) != find_time(self)) {
            self.warden.forget_points();
        }
    }

    fn is_law_for(&self, reason: Reason) -> bool {
        reason == Reason::Hand || self.law.is_some()
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.ignored.contains(ip) || self.proxies.contains(ip)
    }

    fn mode(&self) -> BanMode {
        self.law.as_ref().map_or(BanMode::Observe, |law| law.mode)
    }

    /// Whether a connection of `peer` is worth nothing: he is banned, and not one who speaks for others.
    #[must_use]
    pub fn shuts_out(&self, peer: IpAddr) -> bool {
        !self.warden.is_idle() && self.enforced(peer) == Some(true)
    }

    /// Whether he is banned, and whether that is enforced.
    fn enforced(&self, ip: IpAddr) -> Option<bool> {
        let sentence = self.warden.held(ip)?;
        if self.is_exempt(ip) || !self.is_law_for(sentence.reason) {
            return None;
        }
        Some(enforces(self.mode(), sentence.reason))
    }

    /// Counts what somebody is answered: a refusal by a gate, what a filter saw, else the status; once, by what is dearest.
    pub fn charge(&self, client: IpAddr, deed: &Deed<'_>) {
        let Some(law) = self.law.as_ref() else { return };
        let good = deed.status < 400 && deed.offence.is_none();
        if good {
            self.warden.credit(client);
            if deed.seen.is_none() {
                return;
            }
        }
        if self.is_exempt(client) {
            return;
        }
        let exact = law.points.contains_key(&Offence::Status(deed.status));
        let row = law.points.contains_key(&Offence::ZoneRow);
        let crowds = deed.offence == Some(Offence::Zone) && row && self.warden.crowds(client, &law.rule);
        let counts = |offence: &Offence| match offence {
            Offence::ZoneRow => crowds,
            // A status that has points of its own is not counted by its class.
            Offence::Class(_) => !exact,
            _ => true,
        };
        let charges = deed.offences().filter(counts);
        let charges = charges.filter_map(|offence| Some(Charge { offence, points: *law.points.get(&offence)? }));
        let Some(charge) = charges.reduce(|a, b| if b.points > a.points { b } else { a }) else { return };
        if !deed.counts_paths(charge.offence) || self.warden.is_new(client, deed.path, &law.rule) {
            self.warden.charge(client, charge, &law.rule, law.mode);
        }
    }

    /// By hand, with `[ban]` or without. `None`: as long as `[ban]` says, or an hour.
    ///
    /// Errors: [`Spared`]
    pub fn ban(&self, ip: IpAddr, lasts: Option<Duration>) -> Result<(Who, Sentence), Spared> {
        let who = Who::of(ip).ok_or(Spared::Nobody(ip))?;
        if self.proxies.contains(ip) {
            return Err(Spared::Proxy(ip));
        }
        if self.ignored.contains(ip) {
            return Err(Spared::Ignored(ip));
        }
        let lasts = lasts.or_else(|| Some(self.law.as_ref()?.rule.ban_time)).unwrap_or(BY_HAND);
        Ok((who, self.warden.ban(who, lasts)))
    }

    /// Whether there was a ban to end.
    #[must_use]
    pub fn free(&self, ip: IpAddr) -> bool {
        Who::of(ip).is_some_and(|who| self.warden.free(who))
    }

    /// How many are banned, to the second.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.warden.count()
    }

    /// Tells the metrics how many are banned; before they are read.
    pub fn report(&self) {
        self.warden.metrics().set_held(self.warden.count());
    }

    /// Those in force, and how many they are; `true`: enforced.
    #[must_use]
    pub fn list(&self, most: usize) -> (Vec<(Who, Sentence, bool)>, usize) {
        let (listed, count) = self.warden.list(most);
        (listed.into_iter().map(|(who, sentence)| (who, sentence, enforces(self.mode(), sentence.reason))).collect(), count)
    }

    /// A tunnel of `client` is to be cut when he is banned. `None`: he is exempt, whatever becomes of others in his /64.
    #[must_use]
    pub fn watch(&self, client: IpAddr) -> Option<Watched> {
        if self.is_exempt(client) {
            return None;
        }
        let watched = self.warden.watch(client)?;
        // Banned between the gate and here.
        if self.shuts_out(client) {
            watched.cut_now();
        }
        Some(watched)
    }
}

/// 403 for whoever is banned; where he is the peer himself, that is the connection's last answer.
#[must_use]
pub fn admit(ask: &Ask, sentry: &Sentry) -> Verdict {
    if sentry.warden.is_idle() {
        return Verdict::Pass;
    }
    match sentry.enforced(ask.client) {
        None => Verdict::Pass,
        Some(false) => {
            sentry.warden.metrics().would_reject();
            Verdict::Pass
        }
        Some(true) => {
            sentry.warden.metrics().rejected();
            let page = ask.page(StatusCode::FORBIDDEN).by(refused::BAN);
            Verdict::Answer(if ask.peer == ask.client { page.last() } else { page })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn sentry(warden: &Arc<Warden>, change: impl FnOnce(&mut plan::Ban)) -> Sentry {
        let mut ban = plan::testing::ban();
        change(&mut ban);
        Sentry::of(Some(&ban), &["10.0.0.0/8".parse().expect("a net")], warden.clone())
    }

    fn warden() -> Arc<Warden> {
        Arc::new(Warden::new(&Metrics::new()))
    }

    /// How often somebody new must be charged so until he is shut out.
    fn charges(sentry: &Sentry, offence: Option<Offence>, status: u16) -> Option<usize> {
        let client = ip("192.0.2.1");
        let _ = sentry.free(client);
        (1..=40).find(|n| {
            let path = format!("/{n}");
            sentry.charge(client, &Deed { path: path.as_bytes(), ..deed(offence, status) });
            sentry.shuts_out(client)
        })
    }

    fn deed(offence: Option<Offence>, status: u16) -> Deed<'static> {
        Deed { offence, status, path: b"/", seen: None, tried: true, php: false }
    }

    /// As a file without `points` has it.
    fn by_default() -> Sentry {
        sentry(&warden(), |ban| ban.points = crate::plan::ban::usual())
    }

    #[test]
    fn ten_missing_icons_of_one_page_ban_nobody() {
        let sentry = by_default();
        for n in 0..10 {
            let path = format!("/icons/{n}.png");
            for _ in 0..5 {
                sentry.charge(ip("192.0.2.1"), &Deed { path: path.as_bytes(), ..deed(None, 404) });
            }
        }
        assert!(!sentry.shuts_out(ip("192.0.2.1")));
        // Where the user asks for it, a page that is loaded again and again counts once for each.
        let written = super::tests::sentry(&warden(), |ban| ban.points = [(Offence::Status(404), 1)].into());
        for _ in 0..50 {
            written.charge(ip("192.0.2.1"), &Deed { path: b"/favicon.ico", ..deed(None, 404) });
        }
        assert!(!written.shuts_out(ip("192.0.2.1")));
    }

    #[test]
    fn five_people_behind_one_address_are_not_shut_out_for_their_slips() {
        let sentry = by_default();
        for person in 0..5 {
            for n in 0..20 {
                sentry.charge(ip("192.0.2.1"), &deed(None, 200));
                let path = format!("/old/{person}/{n}");
                sentry.charge(ip("192.0.2.1"), &Deed { path: path.as_bytes(), ..deed(None, 404) });
                sentry.charge(ip("192.0.2.1"), &deed(Some(Offence::Zone), 429));
            }
            for _ in 0..2 {
                sentry.charge(ip("192.0.2.1"), &deed(Some(Offence::Auth), 401));
            }
        }
        assert!(!sentry.shuts_out(ip("192.0.2.1")));
    }

    #[test]
    fn operations_of_git_and_docker_that_are_invited_first_ban_nobody() {
        let written = |ban: &mut plan::Ban| ban.points = [(Offence::Status(401), 2), (Offence::Auth, 2)].into();
        for sentry in [by_default(), sentry(&warden(), written)] {
            for _ in 0..20 {
                sentry.charge(ip("192.0.2.1"), &Deed { tried: false, ..deed(None, 401) });
                sentry.charge(ip("192.0.2.1"), &deed(None, 200));
            }
            assert!(!sentry.shuts_out(ip("192.0.2.1")));
        }
        assert_eq!(charges(&sentry(&warden(), written), None, 401), Some(5), "credentials that are wrong count");
    }

    #[test]
    fn a_scanner_is_banned_within_ten_requests() {
        for refused in [true, false] {
            let sentry = by_default();
            let asked = (0..10).find(|n| {
                let path = format!("/.env.{n}");
                let seen = Some(Family::Probe);
                let deed = if refused { deed(Some(Offence::BadUri), 403) } else { deed(None, 404) };
                sentry.charge(ip("192.0.2.1"), &Deed { path: path.as_bytes(), seen, ..deed });
                sentry.charge(ip("192.0.2.2"), &Deed { path: b"/wp-login.php", seen, php: true, ..super::tests::deed(None, 404) });
                sentry.shuts_out(ip("192.0.2.1"))
            });
            assert!(asked.is_some() && !sentry.shuts_out(ip("192.0.2.2")), "{refused}");
        }
    }

    #[test]
    fn what_filters_only_observe_counts_where_it_is_written() {
        let seen = Deed { seen: Some(Family::Sql), ..deed(None, 200) };
        let sentry = by_default();
        let written = super::tests::sentry(&warden(), |ban| ban.points = [(Offence::Observed, 5)].into());
        for _ in 0..6 {
            sentry.charge(ip("192.0.2.1"), &seen);
            written.charge(ip("192.0.2.1"), &seen);
        }
        assert!(!sentry.shuts_out(ip("192.0.2.1")) && written.shuts_out(ip("192.0.2.1")));
    }

    #[test]
    fn a_request_counts_once_by_what_is_dearest() {
        let sentry = sentry(&warden(), |ban| {
            ban.points =
                [(Offence::BadUri, 1), (Offence::Status(403), 5), (Offence::Status(404), 1), (Offence::Class(4), 2), (Offence::Zone, 10)]
                    .into();
        });
        for (offence, status, times) in [
            (None, 404, Some(10)),
            (None, 418, Some(5)),
            (None, 503, None),
            (None, 200, None),
            (Some(Offence::BadUri), 403, Some(2)),
            (Some(Offence::BadUri), 404, Some(10)),
            (Some(Offence::Zone), 404, Some(1)),
            (Some(Offence::Auth), 401, Some(5)),
        ] {
            assert_eq!(charges(&sentry, offence, status), times, "{offence:?} {status}");
        }
    }

    #[test]
    fn neither_proxies_nor_the_ignored_are_banned_also_not_in_their_former_life() {
        let warden = warden();
        let before = sentry(&warden, |_| {});
        for client in ["192.0.2.1", "2001:db8::1"] {
            before.ban(ip(client), None).expect("banned");
        }
        let after = sentry(&warden, |ban| ban.ignore = ["192.0.2.0/24", "2001:db8::1/128"].map(|net| net.parse().expect("a net")).into());
        assert!(!after.shuts_out(ip("192.0.2.1")) && !after.shuts_out(ip("2001:db8::1")), "also before it takes over");
        assert!(after.shuts_out(ip("2001:db8::2")), "another one of the same /64");
        after.takes_over(Some(&before));
        assert!(!before.shuts_out(ip("192.0.2.1")), "free");
        assert_eq!(after.ban(ip("192.0.2.1"), None), Err(Spared::Ignored(ip("192.0.2.1"))));
        assert_eq!(after.ban(ip("::ffff:10.1.2.3"), None), Err(Spared::Proxy(ip("::ffff:10.1.2.3"))));
        for _ in 0..20 {
            after.charge(ip("10.1.2.3"), &deed(Some(Offence::BadUri), 403));
        }
        assert!(!after.shuts_out(ip("10.1.2.3")));
    }

    #[test]
    fn a_tunnel_of_somebody_exempt_is_not_cut_with_another_of_his_64() {
        let warden = warden();
        let sentry = sentry(&warden, |ban| ban.ignore = vec!["2001:db8::1/128".parse().expect("a net")]);
        let other = sentry.watch(ip("2001:db8::2")).expect("he may be banned");
        assert!(sentry.watch(ip("2001:db8::1")).is_none() && sentry.watch(ip("10.1.2.3")).is_none());
        sentry.ban(ip("2001:db8::2"), None).expect("banned");
        assert!(other.is_cut() && sentry.watch(ip("2001:db8::1")).is_none());
        assert!(sentry.watch(ip("2001:db8::2")).expect("he may be banned").is_cut(), "too late to be warned");
    }

    #[test]
    fn without_a_section_bans_by_hand_alone_are_left() {
        let warden = warden();
        let with = sentry(&warden, |_| {});
        charges(&with, Some(Offence::BadUri), 403).expect("banned");
        with.ban(ip("192.0.2.2"), None).expect("banned");
        let without = Sentry::of(None, &[], warden.clone());
        assert!(!without.shuts_out(ip("192.0.2.1")) && without.shuts_out(ip("192.0.2.2")));
        without.takes_over(Some(&with));
        assert!(!with.shuts_out(ip("192.0.2.1")) && with.shuts_out(ip("192.0.2.2")));
        assert_eq!(charges(&without, Some(Offence::BadUri), 403), None);
    }

    #[test]
    fn points_go_when_their_time_is_another_and_else_stay() {
        let warden = warden();
        let first = sentry(&warden, |_| {});
        first.charge(ip("192.0.2.1"), &deed(Some(Offence::BadUri), 403));
        let second = sentry(&warden, |ban| ban.ban_time *= 2);
        second.takes_over(Some(&first));
        second.charge(ip("192.0.2.1"), &deed(Some(Offence::BadUri), 403));
        assert!(second.shuts_out(ip("192.0.2.1")), "5 and 5");
        second.charge(ip("192.0.2.3"), &deed(Some(Offence::BadUri), 403));
        let third = sentry(&warden, |ban| ban.find_time *= 2);
        third.takes_over(Some(&second));
        third.charge(ip("192.0.2.3"), &deed(Some(Offence::BadUri), 403));
        assert!(!third.shuts_out(ip("192.0.2.3")));
    }
}
