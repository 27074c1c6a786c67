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

use super::view::{App, Certificate, Component, Disk, Listener, Site, Upstream, Verdict};
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

/// The parts, and the whole: the worst part's verdict, and what is wrong with it.
pub struct Judgement {
    pub verdict: Verdict,
    pub message: String,
    pub components: BTreeMap<String, Component>,
}

#[must_use]
pub fn judge(facts: &Facts<'_>) -> Judgement {
    let parts = [
        ("listeners", listeners(facts.listeners)),
        ("sites", sites(facts.sites, facts.upstreams, facts.apps)),
        ("apps", apps(facts.apps)),
        ("upstreams", upstreams(facts.upstreams, facts.apps)),
        ("certificates", certificates(facts.certificates, facts.now)),
        ("disk", disks(facts.disks)),
    ];
    let verdict = parts.iter().map(|(_, part)| part.status).max().unwrap_or(Verdict::Healthy);
    let message = match verdict {
        Verdict::Healthy => "everything is served".to_owned(),
        Verdict::Degraded | Verdict::Unhealthy => {
            // The worst first; within a verdict in the order above.
            let mut bad: Vec<_> = parts.iter().map(|(_, part)| part).filter(|part| part.status != Verdict::Healthy).collect();
            bad.sort_by_key(|part| std::cmp::Reverse(part.status));
            bad.iter().map(|part| part.message.as_str()).collect::<Vec<_>>().join("; ")
        }
    };
    Judgement { verdict, message, components: parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect() }
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

fn listeners(listeners: &[Listener]) -> Component {
    let found = listeners
        .iter()
        .filter(|listener| !listener.accepting)
        .map(|listener| (Verdict::Unhealthy, format!("listener {} {} does not accept", listener.role, listener.bound)));
    component(found.collect(), counted(listeners.len(), "listener"))
}

/// Nobody has started it, which is as it should be.
fn is_manual(name: &str, apps: &[App]) -> bool {
    apps.iter().any(|app| app.name == name && !app.instances.is_empty() && app.instances.iter().all(|instance| instance.manual))
}

fn sites(sites: &[Site], upstreams: &[Upstream], apps: &[App]) -> Component {
    let up = |name: &str| is_manual(name, apps) || upstreams.iter().any(|upstream| upstream.name == name && upstream.up() > 0);
    let found = sites.iter().filter_map(|site| {
        let mut needs: Vec<_> = site.routes.iter().filter_map(|route| route.upstream.as_deref()).collect();
        needs.sort_unstable();
        needs.dedup();
        let down = !needs.is_empty() && !needs.iter().any(|name| up(name));
        down.then(|| (Verdict::Unhealthy, format!("site {} is not served: no server of {} is up", site.name, needs.join(", "))))
    });
    component(found.collect(), counted(sites.len(), "site"))
}

fn apps(apps: &[App]) -> Component {
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
        (!ill.is_empty()).then(|| (Verdict::Degraded, format!("app {}: {}", app.name, ill.join(", "))))
    });
    component(found.collect(), counted(apps.len(), "app"))
}

fn upstreams(upstreams: &[Upstream], apps: &[App]) -> Component {
    let found = upstreams.iter().filter_map(|upstream| {
        let down: Vec<_> = upstream.servers.iter().filter(|server| !server.up).map(|server| server.server.as_str()).collect();
        if is_manual(&upstream.name, apps) {
            None
        } else if upstream.up() == 0 {
            Some((Verdict::Degraded, format!("upstream {} has no server that is up", upstream.name)))
        // Instances come and go as their app is restarted: what ails them stands under `apps`.
        } else if down.is_empty() || upstream.app {
            None
        } else {
            Some((Verdict::Degraded, format!("upstream {}: {} down", upstream.name, down.join(", "))))
        }
    });
    component(found.collect(), counted(upstreams.len(), "upstream"))
}

fn certificates(certificates: &[Certificate], now: Timestamp) -> Component {
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
    component(found.collect(), counted(certificates.len(), "certificate"))
}

fn disks(disks: &[Disk]) -> Component {
    let found = disks
        .iter()
        .filter(|disk| disk.total_bytes > 0 && (disk.free_bytes as f64) < disk.total_bytes as f64 * DISK_MARGIN)
        .map(|disk| (Verdict::Degraded, format!("disk {} has {} MB left", disk.mount, disk.free_bytes >> 20)));
    component(found.collect(), counted(disks.len(), "disk"))
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
        assert!(message.starts_with("site shop is not served: no server of api, web is up; "), "{message}");
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
