use super::*;
use crate::{
    acme::vault::Vault,
    edge::{
        tls::{self, ca::Authority},
        upstream::Room,
    },
    ipc::message::{AppTable, Duty, Incarnation, Instance, InstanceId, InstanceState, Material, Pem, TicketKey, TicketKeys},
    plan::{
        Hold, SiteTls,
        testing::{self, SECOND},
    },
    vocab::{AppName, Secret, ServerAddr, ZoneName},
};

struct Scene {
    base: Base,
    _home: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        tls::install_provider();
        let home = tempfile::tempdir().expect("a directory");
        let authority = Arc::new(Authority::open(home.path()).expect("a CA"));
        let keys = TicketKeys { current: TicketKey(Secret::new([7; 32])), previous: None };
        let metrics = Arc::new(Metrics::new());
        let base = Base {
            tls: TlsBase::new(authority, keys, Vault::new().0).expect("keys that can be used"),
            access: None,
            screen: Arc::new(Screen::new()),
            board: Arc::default(),
            blackbox: Arc::default(),
            witness: Arc::new(Witness::new(tokio::sync::mpsc::channel(1).0)),
            verifier: Arc::default(),
            warden: Arc::new(Warden::new(&metrics)),
            switches: Switches::default(),
            metrics,
        };
        Self { base, _home: home }
    }

    fn prepare(&self, old: Option<&Live>, plan: Plan, materials: Materials) -> Result<Prepared, LiveError> {
        let generation = Generation(if old.is_some() { 2 } else { 1 });
        let config = Config { generation, plan, listeners: Vec::new(), materials };
        Live::prepare(self.base.ground(old), &config, OnBadPair::Refuse)
    }

    /// All that a refused configuration could have left behind.
    fn trace(&self, live: &Live) -> String {
        let mut text = String::new();
        self.base.metrics.render(&mut text);
        // What differs from one look to the next.
        let steady = |line: &&str| !line.starts_with("gateway_node") && !line.contains("process_");
        let mut trace: Vec<String> = text.lines().filter(steady).map(str::to_owned).collect();
        let mut pools: Vec<_> = live.pools.iter().collect();
        pools.sort_by_key(|pool| pool.name().clone());
        for pool in pools {
            let servers: Vec<_> = pool.servers().iter().map(Arc::as_ptr).collect();
            let room = pool.room().and_then(|room: &Arc<Room>| room.pool()).map(|pool| Arc::as_ptr(&pool));
            trace.push(format!("{} {:?} {servers:?} {room:?}", pool.name(), Arc::as_ptr(pool)));
        }
        trace.extend(live.zones.iter().map(|zone| format!("{} {}", zone.name, zone.limiter.keys())));
        trace.push(format!("{:?}", self.base.tls.vault.find(&Host::parse("new.test").expect("a host")).is_some()));
        trace.push(format!("{} {}", live.generation.0, live.sites.len()));
        trace.join("\n")
    }
}

fn proxied(name: &str, to: &str, tls: SiteTls) -> plan::Site {
    let upstream = UpstreamName::parse(to).expect("a name");
    let zones = vec![ZoneName::parse("api").expect("a name")];
    plan::Site { tls, routes: vec![plan::Route { action: Action::Proxy { upstream }, zones, ..testing::route() }], ..testing::site(name) }
}

fn files() -> SiteTls {
    SiteTls::Files { cert: "/c.pem".into(), key: "/k.pem".into() }
}

fn plan(hold: u32, burst: u32) -> Plan {
    let mut plan = testing::plan();
    let app = plan::App { hold: Some(Hold { time: SECOND * hold, requests: 10, bytes: 100 }), ..testing::app() };
    plan.apps.insert(AppName::parse("web").expect("a name"), app);
    plan.upstreams.insert(UpstreamName::parse("api").expect("a name"), testing::upstream());
    plan.zones.insert(ZoneName::parse("api").expect("a name"), plan::Zone { burst, ..testing::zone() });
    plan.sites = vec![proxied("a.test", "web", files()), proxied("b.test", "api", SiteTls::Off)];
    plan
}

/// What a reload might bring: other pools for both, another zone, another site with an automatic certificate, another upstream with a server of its own.
fn changed() -> Plan {
    let mut plan = plan(7, 5);
    plan.upstreams.get_mut(&UpstreamName::parse("api").expect("a name")).expect("there").balance = plan::Balance::LeastConn;
    let other = plan::Upstream { servers: vec![testing::server(([127, 0, 0, 1], 3).into())], ..testing::upstream() };
    plan.upstreams.insert(UpstreamName::parse("other").expect("a name"), other);
    plan.sites.push(proxied("new.test", "other", SiteTls::Acme));
    plan
}

fn materials(key: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Materials {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    let key = Secret::new(key(made.signing_key.serialize_pem().into_bytes()));
    let pem = Pem { chain: made.cert.pem().into_bytes(), key };
    Materials { pairs: vec![Material { cert: "/c.pem".into(), key: "/k.pem".into(), pem: Ok(pem) }], roots: Vec::new() }
}

fn ready() -> AppTable {
    let instance = Instance {
        id: InstanceId { app: AppName::parse("web").expect("a name"), n: 0 },
        incarnation: Incarnation(1),
        state: InstanceState::Ready,
        duty: Duty::Serves,
        release: None,
        since_ms: 0,
        pid: None,
        addr: Some(ServerAddr::Tcp(([127, 0, 0, 1], 9).into())),
        restarts: 0,
        last_exit: None,
        last_restart_ms: None,
        due_ms: None,
        manual: false,
        note: None,
        cpu_ms: 0,
        memory_bytes: 0,
    };
    AppTable { instances: vec![instance], ..AppTable::default() }
}

#[test]
fn a_reload_that_is_refused_for_a_bad_pair_leaves_pools_rooms_and_series_as_they_were() {
    let scene = Scene::new();
    let live = scene.prepare(None, plan(5, 0), materials(|key| key)).expect("good").enter(&scene.base);
    live.pools.apps(&ready(), &scene.base.metrics);
    let before = scene.trace(&live);
    assert!(before.contains("web.0") && before.contains("site=\"a.test\""), "{before}");
    let refused = scene.prepare(Some(&live), changed(), materials(|_| b"no key".to_vec()));
    assert!(matches!(refused, Err(LiveError::Tls(_))));
    assert_eq!(scene.trace(&live), before);
    // As long as it is only prepared, a good one is not seen either.
    let prepared = scene.prepare(Some(&live), changed(), materials(|key| key)).expect("good");
    assert_eq!(scene.trace(&live), before);
    drop(prepared);
    assert_eq!(scene.trace(&live), before);
}

#[test]
fn a_reload_that_enters_is_seen_by_whoever_waits_and_counts_on() {
    let scene = Scene::new();
    let live = scene.prepare(None, plan(5, 0), materials(|key| key)).expect("good").enter(&scene.base);
    live.pools.apps(&ready(), &scene.base.metrics);
    live.sites[0].metrics.done(200, Duration::ZERO, 0, 0);
    let web = UpstreamName::parse("web").expect("a name");
    let room = live.pools.get(&web).and_then(|pool| pool.room().cloned()).expect("an app has a room");
    let next = scene.prepare(Some(&live), changed(), materials(|key| key)).expect("good").enter(&scene.base);
    let pool = next.pools.get(&web).expect("there");
    assert!(room.pool().is_some_and(|in_force| Arc::ptr_eq(&in_force, pool)), "whoever waits finds the pool in force");
    assert_eq!(pool.servers().len(), 1, "its process is known");
    next.sites[0].metrics.done(200, Duration::ZERO, 0, 0);
    assert!(scene.base.tls.vault.find(&Host::parse("new.test").expect("a host")).is_some());
    let trace = scene.trace(&next);
    for series in [
        r#"gateway_http_requests_total{site="a.test",code="200"} 2"#,
        r#"gateway_http_requests_total{site="new.test",code="200"} 0"#,
        r#"gateway_upstream_up{upstream="other",server="127.0.0.1:3"} 0"#,
        "gateway_config_generation 2",
    ] {
        assert!(trace.contains(series), "{series}: {trace}");
    }
}
