//! What a reload changes: old plan × new plan → changes.
//!
//! Pure. `master::reload` refuses what is in [`Changes::fixed`] and acts on the rest; the edge swaps its whole plan.
//! Laws: `diff(a, a)` is empty; `apply(&diff(a, b), a)` is `b`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
};

use thiserror::Error;

use super::{Admin, App, Ban, Limits, Listen, Log, Plan, Site, Timeouts, TlsPolicy, Upstream, User, Zone};
use crate::vocab::{AppName, UpstreamName, ZoneName};

/// What differs between two plans, and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Cannot change while we run: state, run, user, workers.
    pub fixed: Vec<Fixed>,
    pub listeners: Listeners,
    pub apps: BTreeMap<AppName, AppChange>,
    pub upstreams: BTreeMap<UpstreamName, Change<Upstream>>,
    pub zones: BTreeMap<ZoneName, Change<Zone>>,
    /// By name; the order of the new plan is in `site_order`.
    pub sites: BTreeMap<String, Change<Site>>,
    pub site_order: Option<Vec<String>>,
    pub settings: Settings,
}

/// Addresses to bind and to let go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listeners {
    pub added: BTreeSet<(Role, SocketAddr)>,
    pub removed: BTreeSet<(Role, SocketAddr)>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Http,
    Https,
    Admin,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    Added(T),
    Changed(T),
    Removed,
}

/// What happens to an app.
#[derive(Clone, Debug, PartialEq)]
pub enum AppChange {
    Added(App),
    Removed,
    /// Its processes are replaced one by one: command, dir, user, group, env, port, ready, limits.
    Restart(App),
    /// Its processes stay: procs, live, restart, stop, log, timeouts.
    Live(App),
}

/// Settings without a name, where they differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub files: Option<Vec<PathBuf>>,
    pub trusted_proxies: Option<Vec<ipnet::IpNet>>,
    pub listen: Option<Listen>,
    pub timeouts: Option<Timeouts>,
    pub limits: Option<Limits>,
    pub tls: Option<TlsPolicy>,
    pub admin: Option<Option<Admin>>,
    pub log: Option<Log>,
    pub users: Option<BTreeMap<PathBuf, Vec<User>>>,
    pub ban: Option<Option<Ban>>,
}

/// A value that is fixed for the life of the master.
#[derive(Clone, Debug, PartialEq)]
pub enum Fixed {
    State(PathBuf),
    Run(PathBuf),
    User(String),
    Workers(NonZeroUsize),
}

impl Fixed {
    /// The key, as written.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::State(_) => "state",
            Self::Run(_) => "run",
            Self::User(_) => "user",
            Self::Workers(_) => "workers",
        }
    }
}

/// A reload would change what is fixed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("reload: {keys} cannot change while gateway runs")]
pub struct NeedsRestart {
    pub keys: Keys,
}

impl NeedsRestart {
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "restart gateway for it, or put the old value back"
    }
}

/// Keys, as in `state, workers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys(pub Vec<&'static str>);

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Errors: [`NeedsRestart`] names every key that a reload cannot change.
    pub fn reloadable(&self) -> Result<(), NeedsRestart> {
        if self.fixed.is_empty() { Ok(()) } else { Err(NeedsRestart { keys: Keys(self.fixed.iter().map(Fixed::key).collect()) }) }
    }
}

/// What turns `old` into `new`.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Changes {
    let Plan {
        files,
        state,
        run,
        user,
        workers,
        trusted_proxies,
        listen,
        timeouts,
        limits,
        tls,
        admin,
        log,
        apps,
        upstreams,
        zones,
        users,
        ban,
        sites,
    } = new;
    let mut fixed = Vec::new();
    fixed.extend((old.state != *state).then(|| Fixed::State(state.clone())));
    fixed.extend((old.run != *run).then(|| Fixed::Run(run.clone())));
    fixed.extend((old.user != *user).then(|| Fixed::User(user.clone())));
    fixed.extend((old.workers != *workers).then_some(Fixed::Workers(*workers)));
    let (before, after) = (sockets(old), sockets(new));
    let by_name = |sites: &[Site]| -> BTreeMap<String, Site> { sites.iter().map(|site| (site.name.clone(), site.clone())).collect() };
    let order = |sites: &[Site]| -> Vec<String> { sites.iter().map(|site| site.name.clone()).collect() };
    Changes {
        fixed,
        listeners: Listeners { added: after.difference(&before).copied().collect(), removed: before.difference(&after).copied().collect() },
        apps: changed(&old.apps, apps).into_iter().map(|(name, change)| (name.clone(), app(old.apps.get(&name), change))).collect(),
        upstreams: changed(&old.upstreams, upstreams),
        zones: changed(&old.zones, zones),
        sites: changed(&by_name(&old.sites), &by_name(sites)),
        site_order: (order(&old.sites) != order(sites)).then(|| order(sites)),
        settings: Settings {
            files: differs(&old.files, files),
            trusted_proxies: differs(&old.trusted_proxies, trusted_proxies),
            listen: differs(&old.listen, listen),
            timeouts: differs(&old.timeouts, timeouts),
            limits: differs(&old.limits, limits),
            tls: differs(&old.tls, tls),
            admin: differs(&old.admin, admin),
            log: differs(&old.log, log),
            users: differs(&old.users, users),
            ban: differs(&old.ban, ban),
        },
    }
}

/// The plan that `changes` make of `old`.
#[must_use]
pub fn apply(changes: &Changes, old: &Plan) -> Plan {
    let Changes { fixed, listeners: _, apps, upstreams, zones, sites, site_order, settings } = changes;
    let Settings { files, trusted_proxies, listen, timeouts, limits, tls, admin, log, users, ban } = settings.clone();
    let mut plan = old.clone();
    for value in fixed.clone() {
        match value {
            Fixed::State(path) => plan.state = path,
            Fixed::Run(path) => plan.run = path,
            Fixed::User(user) => plan.user = user,
            Fixed::Workers(count) => plan.workers = count,
        }
    }
    for (name, change) in apps.clone() {
        match change {
            AppChange::Added(app) | AppChange::Restart(app) | AppChange::Live(app) => drop(plan.apps.insert(name, app)),
            AppChange::Removed => drop(plan.apps.remove(&name)),
        }
    }
    merge(&mut plan.upstreams, upstreams);
    merge(&mut plan.zones, zones);
    let order: Vec<String> = site_order.clone().unwrap_or_else(|| plan.sites.iter().map(|site| site.name.clone()).collect());
    let mut by_name: BTreeMap<String, Site> = std::mem::take(&mut plan.sites).into_iter().map(|site| (site.name.clone(), site)).collect();
    merge(&mut by_name, sites);
    plan.sites = order.iter().filter_map(|name| by_name.remove(name)).collect();
    plan.files = files.unwrap_or(plan.files);
    plan.trusted_proxies = trusted_proxies.unwrap_or(plan.trusted_proxies);
    plan.listen = listen.unwrap_or(plan.listen);
    plan.timeouts = timeouts.unwrap_or(plan.timeouts);
    plan.limits = limits.unwrap_or(plan.limits);
    plan.tls = tls.unwrap_or(plan.tls);
    plan.admin = admin.unwrap_or(plan.admin);
    plan.log = log.unwrap_or(plan.log);
    plan.users = users.unwrap_or(plan.users);
    plan.ban = ban.unwrap_or(plan.ban);
    plan
}

fn sockets(plan: &Plan) -> BTreeSet<(Role, SocketAddr)> {
    let http = plan.listen.http.iter().map(|addr| (Role::Http, *addr));
    let https = plan.listen.https.iter().map(|addr| (Role::Https, *addr));
    http.chain(https).chain(plan.admin.iter().map(|admin| (Role::Admin, admin.listen))).collect()
}

fn differs<T: Clone + PartialEq>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}

fn changed<N: Clone + Ord, T: Clone + PartialEq>(old: &BTreeMap<N, T>, new: &BTreeMap<N, T>) -> BTreeMap<N, Change<T>> {
    let gone = old.keys().filter(|name| !new.contains_key(name)).map(|name| (name.clone(), Change::Removed));
    let come = new.iter().filter_map(|(name, value)| match old.get(name) {
        None => Some((name.clone(), Change::Added(value.clone()))),
        Some(before) if before != value => Some((name.clone(), Change::Changed(value.clone()))),
        Some(_) => None,
    });
    gone.chain(come).collect()
}

fn merge<N: Clone + Ord, T: Clone>(into: &mut BTreeMap<N, T>, changes: &BTreeMap<N, Change<T>>) {
    for (name, change) in changes {
        match change {
            Change::Added(value) | Change::Changed(value) => drop(into.insert(name.clone(), value.clone())),
            Change::Removed => drop(into.remove(name)),
        }
    }
}

fn app(old: Option<&App>, change: Change<App>) -> AppChange {
    match (change, old) {
        (Change::Removed, _) => AppChange::Removed,
        (Change::Changed(new), Some(old)) => {
            if same_process(old, &new) {
                AppChange::Live(new)
            } else {
                AppChange::Restart(new)
            }
        }
        (Change::Added(new) | Change::Changed(new), _) => AppChange::Added(new),
    }
}

/// Whether a running process of the old app may serve the new one; what differs besides is applied to it.
#[must_use]
pub fn same_process(old: &App, new: &App) -> bool {
    let App {
        command,
        dir,
        user,
        group,
        env,
        port,
        // Decides what a process is given to prove itself with, as NOTIFY_SOCKET.
        ready,
        limits,
        umask,
        // Decides what a process is given to prove that it lives.
        watchdog,
        // The cgroup of a process is made with it.
        memory_max,
        // Applied to what runs.
        recycle: _,
        hold: _,
        after: _,
        schedule: _,
        before: _,
        deploy: _,
        release: _,
        procs: _,
        live: _,
        restart: _,
        stop: _,
        log: _,
        timeouts: _,
    } = new;
    old.command == *command
        && old.dir == *dir
        && old.user == *user
        && old.group == *group
        && old.env == *env
        && old.port == *port
        && old.ready == *ready
        && old.limits == *limits
        && old.umask == *umask
        && old.watchdog.is_some() == watchdog.is_some()
        && old.memory_max == *memory_max
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::{
            AppLimits, AppPort, DeployPolicy, FilterMode, Filters, LogFormat, LogLevel, Ready, Recycle, RestartPolicy, Rotation, SiteTls,
            Stop, TlsVersion, UpstreamTimeouts, ZoneKey, ZoneMode,
            app::{Policy, StopSignal},
        },
        vocab::{ByteSize, HostPattern, Pace, Secret},
    };

    fn rotation(keep: usize) -> Rotation {
        Rotation { size: ByteSize(1 << 20), age: None, keep, compress: true }
    }

    fn app(command: u8, procs: u16, keep: usize) -> App {
        let second = Duration::from_secs(1);
        App {
            command: vec![format!("run-{command}")],
            dir: None,
            user: None,
            group: None,
            env: [("A".to_owned(), Secret::new(command.to_string()))].into(),
            procs: procs.try_into().expect("above zero"),
            port: AppPort::Allotted,
            ready: Ready::Tcp { timeout: second },
            live: None,
            restart: RestartPolicy {
                policy: Policy::Always,
                delay: second,
                max_delay: second,
                budget: Pace::new(1, second).expect("a pace"),
                success: Vec::new(),
                give_up: Vec::new(),
            },
            stop: Stop { signal: StopSignal::Term, timeout: second, drain: second },
            limits: AppLimits::default(),
            umask: None,
            recycle: Recycle::default(),
            hold: None,
            memory_max: None,
            after: Vec::new(),
            schedule: None,
            before: Vec::new(),
            watchdog: None,
            deploy: DeployPolicy {
                warm: Vec::new(),
                guard: Duration::from_secs(30),
                errors: 0.05,
                before_timeout: Duration::from_secs(600),
            },
            release: None,
            log: rotation(keep),
            timeouts: UpstreamTimeouts { connect: second, read: second, send: second, idle: second },
        }
    }

    fn site(name: &str, tls: bool) -> Site {
        let off = FilterMode::Off;
        Site {
            name: name.into(),
            hosts: vec![HostPattern::parse(name).expect("a host")],
            redirected: Vec::new(),
            canonical: None,
            tls: if tls { SiteTls::Internal } else { SiteTls::Off },
            client_ca: None,
            headers: Vec::new(),
            filters: Filters::new(off, off, off),
            allow: Vec::new(),
            deny: Vec::new(),
            maintenance: Default::default(),
            routes: Vec::new(),
        }
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let apps = prop::collection::btree_map(0_u8..4, (0_u8..2, 1_u16..3, 1_usize..3), 0..4);
        let zones = prop::collection::btree_map(0_u8..4, 1_u32..3, 0..4);
        let sites = prop::collection::btree_map(0_u8..5, any::<bool>(), 0..5)
            .prop_flat_map(|sites| Just(sites.into_iter().collect::<Vec<_>>()).prop_shuffle());
        let ports = prop::collection::btree_set(8000_u16..8004, 0..3);
        (apps, zones, sites, ports, 1_usize..3, any::<bool>()).prop_map(|(apps, zones, sites, ports, workers, flag)| {
            let second = Duration::from_secs(1);
            let name = |n: u8| format!("n{n}");
            Plan {
                files: vec![if flag { "a.toml" } else { "b.toml" }.into()],
                state: "/s".into(),
                run: "/r".into(),
                user: "nobody".into(),
                workers: workers.try_into().expect("above zero"),
                trusted_proxies: Vec::new(),
                listen: Listen {
                    http: ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
                    https: Vec::new(),
                    proxy_protocol: flag,
                    max_connections: 10.try_into().expect("above zero"),
                    max_connections_per_ip: None,
                },
                timeouts: Timeouts { header: second, idle: second, body: second, send: second, drain: second },
                limits: Limits {
                    headers: ByteSize(1),
                    header_count: 1.try_into().expect("above zero"),
                    uri: ByteSize(1),
                    body: ByteSize(1),
                    streams: 1.try_into().expect("above zero"),
                    resets: Pace::new(1, second).expect("a pace"),
                },
                tls: TlsPolicy { min: TlsVersion::V1_2, acme: crate::plan::Acme::none() },
                admin: flag.then(|| Admin { listen: ([127, 0, 0, 1], 9900).into(), token: None }),
                log: Log { level: LogLevel::Info, format: LogFormat::Text, dir: None, access: None, rotate: rotation(1) },
                apps: apps.into_iter().map(|(n, (c, p, k))| (AppName::parse(&name(n)).expect("a name"), app(c, p, k))).collect(),
                upstreams: BTreeMap::new(),
                zones: zones
                    .into_iter()
                    .map(|(n, rate)| {
                        let zone = Zone {
                            key: vec![ZoneKey::Ip],
                            rate: Some(Pace::new(rate, second).expect("a pace")),
                            burst: 0,
                            delay: 0,
                            concurrent: None,
                            status: http::StatusCode::TOO_MANY_REQUESTS,
                            count: vec![],
                            headers: None,
                            mode: ZoneMode::Enforce,
                            max_keys: 1.try_into().expect("above zero"),
                        };
                        (ZoneName::parse(&name(n)).expect("a name"), zone)
                    })
                    .collect(),
                users: flag.then(|| ("/users".into(), Vec::new())).into_iter().collect(),
                ban: flag.then(crate::plan::ban::tests::ban),
                sites: sites.into_iter().map(|(n, tls)| site(&name(n), tls)).collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn a_plan_does_not_differ_from_itself(a in plan()) {
            prop_assert!(diff(&a, &a).is_empty());
        }

        #[test]
        fn applying_what_differs_gives_the_new_plan(a in plan(), b in plan()) {
            prop_assert_eq!(apply(&diff(&a, &b), &a), b);
        }

        #[test]
        fn only_what_differs_is_named(a in plan(), b in plan()) {
            let changes = diff(&a, &b);
            prop_assert_eq!(changes.is_empty(), a == b);
            for name in changes.apps.keys() {
                prop_assert_ne!(a.apps.get(name), b.apps.get(name));
            }
        }
    }

    #[test]
    fn more_processes_leave_those_that_run_and_a_new_command_does_not() {
        let name = AppName::parse("web").expect("a name");
        let with = |app: App| BTreeMap::from([(name.clone(), app)]);
        let change = |new: App| {
            let old = with(app(0, 1, 1));
            let change = changed(&old, &with(new)).remove(&name).expect("a change");
            super::app(old.get(&name), change)
        };
        assert!(matches!(change(app(0, 2, 1)), AppChange::Live(_)));
        assert!(matches!(change(app(0, 1, 2)), AppChange::Live(_)));
        assert!(matches!(change(app(1, 1, 1)), AppChange::Restart(_)));
    }

    #[test]
    fn what_is_fixed_is_refused_by_its_key() {
        let changes = Changes { fixed: vec![Fixed::State("/x".into()), Fixed::Workers(NonZeroUsize::MIN)], ..Changes::default() };
        assert_eq!(changes.reloadable().expect_err("fixed").to_string(), "reload: state, workers cannot change while gateway runs");
    }
}
