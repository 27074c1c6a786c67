//! Health rule: what of all that is known makes the gateway healthy, degraded or unhealthy.
//!
//! Pure. `api` brings the facts and the time.
//!
//! Shape: **unhealthy** (503) when a listener does not accept, or a site has upstreams and no server of any of them is up: someone outside gets no answer.
//!        **degraded** (200) when everything is served and something wants a look: an upstream or a server is down, an app is in backoff or cooldown or has
//!        no instance ready, a certificate is missing, over, near its end or not renewed as it should be, a disk is nearly full. Taking a degraded gateway out of rotation would make
//!        things worse, so it answers 200. Else **healthy**. An app that was stopped by command, or has done its work and may exit, is no fault of its own.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::view::{App, Certificate, Component, Disk, Fault, Listener, Site, Upstream, Verdict};
use crate::ipc::message::InstanceState;

/// A certificate from files that ends sooner than this is reported.
const CERTIFICATE_MARGIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// A disk with less than this share free is reported.
const DISK_MARGIN: f64 = 0.05;

/// What is judged.
pub struct Facts<'a> {
    pub now: Timestamp,
    pub listeners: &'a [Listener],
    pub sites: &'a [Site],
    pub apps: &'a [App],
    pub upstreams: &'a [Upstream],
    pub certificates: &'a [Certificate],
    pub disks: &'a [Disk],
}

/// The parts, and the whole: the worst part's verdict, and what is wrong.
pub struct Judgement {
    pub verdict: Verdict,
    pub message: String,
    /// One for each root; the worst first.
    pub faults: Vec<Fault>,
    pub components: BTreeMap<String, Component>,
}

#[must_use]
pub fn judge(facts: &Facts<'_>) -> Judgement {
    let found = Found::of(facts);
    let faults = faults(&found, facts);
    let Found { listeners, sites, apps, upstreams, certificates, disks } = found;
    let named = |found: Vec<(String, Verdict, String)>| found.into_iter().map(|(_, verdict, what)| (verdict, what)).collect::<Vec<_>>();
    let sites = sites.into_iter().map(|dark| (Verdict::Unhealthy, dark.told())).collect();
    let parts = [
        ("listeners", component(listeners, counted(facts.listeners.len(), "listener"))),
        ("sites", component(sites, counted(facts.sites.len(), "site"))),
        ("apps", component(named(apps), counted(facts.apps.len(), "app"))),
        ("upstreams", component(named(upstreams), counted(facts.upstreams.len(), "upstream"))),
        ("certificates", component(certificates, counted(facts.certificates.len(), "certificate"))),
        ("disk", component(disks, counted(facts.disks.len(), "disk"))),
    ];
    let verdict = parts.iter().map(|(_, part)| part.status).max().unwrap_or(Verdict::Healthy);
    let message = match verdict {
        Verdict::Healthy => "everything is served".to_owned(),
        Verdict::Degraded | Verdict::Unhealthy => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    Judgement { verdict, message, faults, components: parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect() }
}

/// What was found in each part; of apps and upstreams with their names.
struct Found {
    listeners: Vec<(Verdict, String)>,
    sites: Vec<Dark>,
    apps: Vec<(String, Verdict, String)>,
    upstreams: Vec<(String, Verdict, String)>,
    certificates: Vec<(Verdict, String)>,
    disks: Vec<(Verdict, String)>,
}

impl Found {
    fn of(facts: &Facts<'_>) -> Self {
        Self {
            listeners: listeners(facts.listeners),
            sites: sites(facts.sites, facts.upstreams, facts.apps),
            apps: apps(facts.apps),
            upstreams: upstreams(facts.upstreams, facts.apps),
            certificates: certificates(facts.certificates, facts.now),
            disks: disks(facts.disks),
        }
    }
}

/// A site of which no upstream serves.
struct Dark {
    site: String,
    needs: Vec<String>,
}

impl Dark {
    fn told(&self) -> String {
        format!("site {} is not served: no server of {} is up", self.site, self.needs.join(", "))
    }
}

/// Each root once: a site that is not served follows from what its servers ail from, and an upstream without servers from its app.
fn faults(found: &Found, facts: &Facts<'_>) -> Vec<Fault> {
    let plain = |(status, what): &(Verdict, String)| Fault { status: *status, what: what.clone(), so: Vec::new() };
    let mut told: Vec<&str> = Vec::new();
    let mut all: Vec<Fault> = found.listeners.iter().map(plain).collect();
    let ill = |name: &str| found.apps.iter().any(|(app, ..)| app == name);
    let roots = found.apps.iter().chain(found.upstreams.iter().filter(|(name, ..)| !ill(name)));
    for (name, status, what) in roots {
        let dark: Vec<&Dark> = found.sites.iter().filter(|dark| dark.needs.contains(name) && !told.contains(&dark.site.as_str())).collect();
        told.extend(dark.iter().map(|dark| dark.site.as_str()));
        let so: Vec<String> = dark.iter().map(|dark| format!("site {} is not served", dark.site)).collect();
        let status = if so.is_empty() { *status } else { Verdict::Unhealthy };
        // That it was stopped says more than that nothing is up.
        let stopped = facts.apps.iter().any(|app| app.name == *name && app.instances.iter().all(|one| one.state == InstanceState::Stopped));
        let what = if stopped { format!("app {name} is stopped") } else { what.clone() };
        all.push(Fault { status, what, so });
    }
    let orphans = found.sites.iter().filter(|dark| !told.contains(&dark.site.as_str()));
    all.extend(orphans.map(|dark| Fault { status: Verdict::Unhealthy, what: dark.told(), so: Vec::new() }));
    all.extend(found.certificates.iter().chain(&found.disks).map(plain));
    all.sort_by_key(|fault| std::cmp::Reverse(fault.status));
    all
}

/// All that was found, or that nothing was.
fn component(found: Vec<(Verdict, String)>, fine: String) -> Component {
    let status = found.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Healthy);
    let message = if found.is_empty() { fine } else { found.into_iter().map(|(_, what)| what).collect::<Vec<_>>().join("; ") };
    Component { status, message }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn listeners(listeners: &[Listener]) -> Vec<(Verdict, String)> {
    let found = listeners
        .iter()
        .filter(|listener| !listener.accepting)
        .map(|listener| (Verdict::Unhealthy, format!("listener {} {} does not accept", listener.role, listener.bound)));
    found.collect()
}

/// Nobody has started it, which is as it should be.
fn is_manual(name: &str, apps: &[App]) -> bool {
    apps.iter().any(|app| app.name == name && !app.instances.is_empty() && app.instances.iter().all(|instance| instance.manual))
}

fn sites(sites: &[Site], upstreams: &[Upstream], apps: &[App]) -> Vec<Dark> {
    let up = |name: &str| is_manual(name, apps) || upstreams.iter().any(|upstream| upstream.name == name && upstream.up() > 0);
    let found = sites.iter().filter_map(|site| {
        let mut needs: Vec<_> = site.routes.iter().filter_map(|route| route.upstream.as_deref()).collect();
        needs.sort_unstable();
        needs.dedup();
        let down = !needs.is_empty() && !needs.iter().any(|name| up(name));
        down.then(|| Dark { site: site.name.clone(), needs: needs.into_iter().map(str::to_owned).collect() })
    });
    found.collect()
}

fn apps(apps: &[App]) -> Vec<(String, Verdict, String)> {
    let found = apps.iter().filter_map(|app| {
        let ill: Vec<_> = app
            .instances
            .iter()
            .filter(|instance| match instance.state {
                InstanceState::Backoff | InstanceState::Cooldown | InstanceState::Taken | InstanceState::Failed => true,
                InstanceState::Starting | InstanceState::Draining | InstanceState::Stopping => app.ready == 0 && app.job.is_none(),
                InstanceState::Stopped | InstanceState::Ready | InstanceState::Exited => false,
            })
            .map(|instance| {
                let why = instance.note.as_ref().or(instance.last_exit.as_ref()).map(|how| format!(" ({how})")).unwrap_or_default();
                format!("{} {}{why}", instance.id, instance.state.as_str())
            })
            .collect();
        (!ill.is_empty()).then(|| (app.name.clone(), Verdict::Degraded, format!("app {}: {}", app.name, ill.join(", "))))
    });
    found.collect()
}

fn upstreams(upstreams: &[Upstream], apps: &[App]) -> Vec<(String, Verdict, String)> {
    let found = upstreams.iter().filter_map(|upstream| {
        let down: Vec<_> = upstream.servers.iter().filter(|server| !server.up).map(|server| server.server.as_str()).collect();
        if is_manual(&upstream.name, apps) {
            None
        } else if upstream.up() == 0 {
            Some((upstream.name.clone(), Verdict::Degraded, format!("upstream {} has no server that is up", upstream.name)))
        // Instances come and go as their app is restarted: what ails them stands under `apps`.
        } else if down.is_empty() || upstream.app {
            None
        } else {
            Some((upstream.name.clone(), Verdict::Degraded, format!("upstream {}: {} down", upstream.name, down.join(", "))))
        }
    });
    found.collect()
}

fn certificates(certificates: &[Certificate], now: Timestamp) -> Vec<(Verdict, String)> {
    let found = certificates.iter().filter_map(|certificate| {
        let host = &certificate.host;
        if let Some(problem) = &certificate.problem {
            return Some((Verdict::Degraded, format!("certificate of {host}: {problem}")));
        }
        if certificate.at_risk && certificate.not_after.is_none() {
            return Some((Verdict::Degraded, format!("certificate of {host}: there is none yet")));
        }
        let end: Timestamp = certificate.not_after.as_deref()?.parse().ok()?;
        let left = end.as_second().saturating_sub(now.as_second());
        match u64::try_from(left) {
            Err(_) | Ok(0) => Some((Verdict::Degraded, format!("certificate of {host} has ended"))),
            Ok(left) if certificate.source == "files" && left < CERTIFICATE_MARGIN.as_secs() => Some((
                Verdict::Degraded,
                format!("certificate of {host} ends in {}", counted(usize::try_from(left / 86_400).unwrap_or(0), "day")),
            )),
            Ok(left) if certificate.at_risk => Some((
                Verdict::Degraded,
                format!(
                    "certificate of {host} is not renewed yet and ends in {}",
                    counted(usize::try_from(left / 86_400).unwrap_or(0), "day")
                ),
            )),
            Ok(_) => None,
        }
    });
    found.collect()
}

fn disks(disks: &[Disk]) -> Vec<(Verdict, String)> {
    let found = disks
        .iter()
        .filter(|disk| disk.total_bytes > 0 && (disk.free_bytes as f64) < disk.total_bytes as f64 * DISK_MARGIN)
        .map(|disk| (Verdict::Degraded, format!("disk {} has {} MB left", disk.mount, disk.free_bytes >> 20)));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::view::{Instance, Route, Server},
        ipc::message::Duty,
    };

    fn upstream(name: &str, up: &[bool]) -> Upstream {
        let servers = up.iter().enumerate().map(|(n, up)| Server {
            server: format!("10.0.0.{n}:80"),
            address: format!("10.0.0.{n}:80"),
            up: *up,
            state: if *up { "up" } else { "down" }.into(),
            reason: None,
            in_flight: 0,
            weight: 1,
            backup: false,
        });
        Upstream { name: name.into(), app: false, panic: false, servers: servers.collect() }
    }

    fn site(name: &str, upstreams: &[&str]) -> Site {
        let route = |upstream: &&str| Route { path: "/".into(), action: String::new(), upstream: Some((*upstream).to_owned()) };
        Site {
            name: name.into(),
            hosts: vec![name.into()],
            tls: "off".into(),
            routes: upstreams.iter().map(route).collect(),
            requests: 0,
            errors: 0,
            in_flight: 0,
            maintenance: false,
        }
    }

    fn app(states: &[InstanceState]) -> App {
        let instances = states.iter().enumerate().map(|(n, state)| Instance {
            id: format!("web.{n}"),
            state: *state,
            duty: Duty::Serves,
            release: None,
            since: String::new(),
            pid: None,
            address: None,
            restarts: 0,
            last_exit: Some("exit 1".into()),
            last_exit_at: None,
            last_restart: None,
            next_start: None,
            manual: false,
            note: None,
            cpu_seconds: 0.0,
            memory_bytes: 0,
        });
        App {
            name: "web".into(),
            ready: states.iter().filter(|state| **state == InstanceState::Ready).count(),
            instances: instances.collect(),
            restarts: BTreeMap::new(),
            job: None,
        }
    }

    fn facts() -> Facts<'static> {
        Facts { now: Timestamp::UNIX_EPOCH, listeners: &[], sites: &[], apps: &[], upstreams: &[], certificates: &[], disks: &[] }
    }

    fn verdict(facts: &Facts<'_>) -> (Verdict, String) {
        let Judgement { verdict, message, .. } = judge(facts);
        (verdict, message)
    }

    #[test]
    fn a_gateway_with_nothing_to_do_is_healthy() {
        assert_eq!(verdict(&facts()), (Verdict::Healthy, "everything is served".into()));
    }

    #[test]
    fn a_site_is_unserved_only_when_all_its_upstreams_are_down() {
        let sites = [site("shop", &["api", "web"]), site("static", &[])];
        let half = [upstream("api", &[false, false]), upstream("web", &[true])];
        assert_eq!(
            verdict(&Facts { sites: &sites, upstreams: &half, ..facts() }),
            (Verdict::Degraded, "upstream api has no server that is up".into())
        );
        let none = [upstream("api", &[false]), upstream("web", &[])];
        let (verdict, message) = verdict(&Facts { sites: &sites, upstreams: &none, ..facts() });
        assert_eq!(verdict, Verdict::Unhealthy);
        assert_eq!(message, "upstream api has no server that is up, so site shop is not served; upstream web has no server that is up");
    }

    #[test]
    fn one_fault_is_one_item_with_its_root_first() {
        use InstanceState::{Cooldown, Stopped};
        let sites = [site("shop", &["web"]), site("blog", &["web"])];
        let down = [Upstream { app: true, ..upstream("web", &[false]) }];
        let judged = |state| judge(&Facts { sites: &sites, upstreams: &down, apps: &[app(&[state])], ..facts() });
        let Judgement { verdict, message, faults, components } = judged(Cooldown);
        assert_eq!((verdict, faults.len()), (Verdict::Unhealthy, 1), "{faults:?}");
        assert_eq!(message, "app web: web.0 cooldown (exit 1), so site shop is not served, site blog is not served");
        assert_eq!(components["sites"].status, Verdict::Unhealthy);
        assert_eq!(judged(Stopped).message, "app web is stopped, so site shop is not served, site blog is not served");
        // What is worse comes first.
        let disks = [Disk { mount: "/".into(), total_bytes: 100 << 20, free_bytes: 0, used_ratio: 1.0 }];
        let listeners = [Listener { role: "https".into(), address: "[::]:443".into(), bound: "[::]:443".into(), accepting: false }];
        let judged = judge(&Facts { disks: &disks, listeners: &listeners, ..facts() });
        assert!(judged.message.starts_with("listener https [::]:443 does not accept; disk / has"), "{}", judged.message);
    }

    #[test]
    fn a_server_that_is_down_is_worth_a_look() {
        let upstreams = [upstream("api", &[true, false])];
        assert_eq!(verdict(&Facts { upstreams: &upstreams, ..facts() }), (Verdict::Degraded, "upstream api: 10.0.0.1:80 down".into()));
    }

    #[test]
    fn a_listener_that_does_not_accept_is_unhealthy() {
        let listeners = [Listener { role: "https".into(), address: "[::]:443".into(), bound: "[::]:443".into(), accepting: false }];
        assert_eq!(verdict(&Facts { listeners: &listeners, ..facts() }).0, Verdict::Unhealthy);
    }

    #[test]
    fn an_app_that_rolls_is_fine_and_one_that_crashes_is_not() {
        use InstanceState::{Backoff, Draining, Ready, Starting, Stopped};
        for (states, expected) in [
            (vec![Ready, Starting], Verdict::Healthy),
            (vec![Ready, Draining], Verdict::Healthy),
            (vec![Stopped, Stopped], Verdict::Healthy),
            (vec![Starting, Starting], Verdict::Degraded),
            (vec![Ready, Backoff], Verdict::Degraded),
        ] {
            assert_eq!(verdict(&Facts { apps: &[app(&states)], ..facts() }).0, expected, "{states:?}");
        }
        assert_eq!(verdict(&Facts { apps: &[app(&[Ready, Backoff])], ..facts() }).1, "app web: web.1 backoff (exit 1)");
    }

    #[test]
    fn a_certificate_near_its_end_is_reported_once_nobody_renews_it() {
        let certificate = |source: &str, end: i64| Certificate {
            host: "a.example".into(),
            not_after: Some(Timestamp::from_second(end).expect("valid").to_string()),
            source: source.into(),
            ..Certificate::default()
        };
        for (given, expected) in [
            (certificate("files", 30 * 86_400), None),
            (certificate("files", 3 * 86_400 + 60), Some("certificate of a.example ends in 3 days")),
            (certificate("internal", 86_400), None),
            (certificate("internal", -1), Some("certificate of a.example has ended")),
        ] {
            let (verdict, message) = verdict(&Facts { certificates: &[given], ..facts() });
            assert_eq!((verdict == Verdict::Degraded).then_some(message.as_str()), expected);
        }
    }

    #[test]
    fn a_certificate_that_is_looked_after_is_reported_when_it_is_at_risk_or_an_order_failed() {
        let good = Certificate {
            host: "a.example".into(),
            not_after: Some(Timestamp::from_second(20 * 86_400 + 60).expect("valid").to_string()),
            source: "acme".into(),
            ..Certificate::default()
        };
        let said = |given: Certificate| verdict(&Facts { certificates: &[given], ..facts() });
        assert_eq!(said(good.clone()).0, Verdict::Healthy);
        let late = Certificate { at_risk: true, ..good.clone() };
        assert_eq!(said(late.clone()), (Verdict::Degraded, "certificate of a.example is not renewed yet and ends in 20 days".into()));
        let none = Certificate { not_after: None, source: "stand-in".into(), ..late };
        assert_eq!(said(none), (Verdict::Degraded, "certificate of a.example: there is none yet".into()));
        let failed = Certificate { problem: Some("could not order it".into()), ..good };
        assert_eq!(said(failed), (Verdict::Degraded, "certificate of a.example: could not order it".into()));
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_reported() {
        let disk = |free_bytes| Disk { mount: "/".into(), total_bytes: 100 << 20, free_bytes, used_ratio: 0.0 };
        assert_eq!(verdict(&Facts { disks: &[disk(4 << 20)], ..facts() }), (Verdict::Degraded, "disk / has 4 MB left".into()));
        assert_eq!(verdict(&Facts { disks: &[disk(6 << 20)], ..facts() }).0, Verdict::Healthy);
    }
}
