use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    edge::upstream::{
        Lease,
        testing::{self, TestPlan},
    },
    ipc::message::AppTable,
    rules::attempt::Trust,
    telemetry::Metrics,
    vocab::Host,
};

/// Answers every request with a status that can be changed; 0: accepts and says nothing.
struct Fake {
    addr: SocketAddr,
    status: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
    hosts: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn answers(status: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (status, asked, hosts) = (Arc::new(AtomicU32::new(status)), Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = JoinSet::new();
        let shared = (status.clone(), asked.clone(), hosts.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (status, asked, hosts) = shared.clone();
                connections.spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                    asked.fetch_add(1, Ordering::Relaxed);
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
                    hosts.lock().expect("whole").push(host.to_owned());
                    match status.load(Ordering::Relaxed) {
                        0 => drop(stream.read_buf(&mut Vec::new()).await),
                        status => drop(stream.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes()).await),
                    }
                });
            }
        });
        Self { addr, status, asked, hosts, _tasks: tasks }
    }

    fn now_answers(&self, status: u32) {
        self.status.store(status, Ordering::Relaxed);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Room {
    metrics: Metrics,
    pools: watch::Sender<Arc<Pools>>,
    out: mpsc::Receiver<ToMaster>,
    _prober: JoinSet<()>,
}

impl Room {
    fn of(plan: TestPlan) -> Self {
        let metrics = Metrics::new();
        let (pools, watched) = watch::channel(Arc::new(Pools::build(&plan.plan(), None, &metrics)));
        let (sender, out) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(Prober::new(watched, sender).run());
        Self { metrics, pools, out, _prober: tasks }
    }

    fn reload(&self, plan: TestPlan) {
        let next = Pools::build(&plan.plan(), Some(&self.pools.borrow()), &self.metrics);
        self.pools.send_replace(Arc::new(next));
    }

    fn apps(&self, table: &AppTable) {
        self.pools.borrow().apps(table, &self.metrics);
    }

    fn state(&self, upstream: &str, server: usize) -> &'static str {
        let pools = self.pools.borrow();
        let name = UpstreamName::parse(upstream).expect("a name");
        pools.get(&name).expect("there").view(pools.now()).servers[server].state
    }

    fn pick(&self, upstream: &str) -> Option<Lease> {
        let pools = self.pools.borrow();
        pools.get(&UpstreamName::parse(upstream).expect("a name")).expect("there").pick(pools.now(), &[], Trust::Any, &mut || 0).ok()
    }

    async fn heard(&mut self) -> (String, u64, Health) {
        match timeout(DEADLINE, self.out.recv()).await.expect("in time").expect("open") {
            ToMaster::Health { id, incarnation, health } => (id.to_string(), incarnation.0, health),
            other => panic!("{other:?}"),
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(10);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn probed(servers: &[&Fake], change: impl Fn(&mut plan::Health)) -> TestPlan {
    TestPlan::new().upstream("api", |api| {
        api.servers = servers.iter().map(|fake| testing::server(fake.addr)).collect();
        let mut health = plan::Health { interval: Duration::from_millis(20), timeout: Duration::from_millis(100), ..testing::health() };
        change(&mut health);
        api.health = Some(health);
    })
}

#[tokio::test]
async fn a_server_comes_up_goes_down_and_recovers_by_itself() {
    let (good, other) = (Fake::answers(200).await, Fake::answers(404).await);
    let room = Room::of(probed(&[&good, &other], |_| {}));
    until("the first probe comes at once", || room.state("api", 0) == "up").await;
    until("several probes", || other.asked() > 3).await;
    assert_eq!(room.state("api", 1), "down", "404 is not what is expected");
    good.now_answers(500);
    until("three failures", || room.state("api", 0) == "down").await;
    good.now_answers(200);
    until("two passes", || room.state("api", 0) == "up").await;
    assert_eq!(good.hosts.lock().expect("whole")[0], good.addr.to_string());
}

#[tokio::test]
async fn a_server_that_only_times_out_is_the_last_choice_but_a_choice() {
    let only = Fake::answers(200).await;
    let room = Room::of(probed(&[&only], |_| {}));
    until("up", || room.state("api", 0) == "up").await;
    only.now_answers(0);
    until("three timeouts", || room.state("api", 0) == "slow").await;
    assert!(room.pick("api").is_some(), "slow is not dead");
    only.now_answers(200);
    until("recovers", || room.state("api", 0) == "up").await;
}

#[tokio::test]
async fn a_reload_that_changes_nothing_here_goes_on_with_the_same_probes() {
    let fake = Fake::answers(200).await;
    let slow = |health: &mut plan::Health| health.interval = Duration::from_secs(3600);
    let room = Room::of(probed(&[&fake], slow));
    until("up", || room.state("api", 0) == "up").await;
    for _ in 0..20 {
        room.reload(probed(&[&fake], slow).upstream("other", |_| {}));
        tokio::task::yield_now().await;
    }
    // A changed interval is a new task: its first probe proves that the reloads were seen.
    room.reload(probed(&[&fake], |health| health.interval = Duration::from_secs(1800)));
    until("the new task", || fake.asked() >= 2).await;
    assert_eq!(fake.asked(), 2);
    assert_eq!(room.state("api", 0), "up");
}

#[tokio::test]
async fn names_are_resolved_and_those_that_are_not_are_down_not_errors() {
    let fake = Fake::answers(200).await;
    let name = |host| ServerAddr::Name { host: Host::parse(host).expect("a host"), port: fake.addr.port() };
    let room = Room::of(TestPlan::new().upstream("api", |api| {
        api.servers[0].addr = name("localhost");
        api.servers[1].addr = name("no-such-host.invalid");
    }));
    until("localhost resolves", || room.state("api", 0) == "up").await;
    assert_eq!(room.state("api", 1), "unresolved");
    assert_eq!(room.pick("api").expect("one is up").label(), format!("localhost:{}", fake.addr.port()));
}

fn app(change: impl FnOnce(&mut plan::App)) -> TestPlan {
    TestPlan::new().app_with("web", 1, |app| {
        app.ready = Ready::Http { path: "/ready".into(), host: None, timeout: Duration::from_secs(30) };
        change(app);
    })
}

fn one(fake: &Fake, incarnation: u64, state: InstanceState) -> AppTable {
    AppTable { instances: vec![testing::instance("web", 0, incarnation, state, fake.addr)], ..AppTable::default() }
}

#[tokio::test]
async fn readiness_is_told_once_for_each_start() {
    let fake = Fake::answers(503).await;
    let mut room = Room::of(app(|_| {}));
    room.apps(&one(&fake, 1, InstanceState::Starting));
    until("it is asked", || fake.asked() >= 2).await;
    assert!(room.out.try_recv().is_err());
    fake.now_answers(302);
    assert_eq!(room.heard().await, ("web.0".into(), 1, Health::Ready));
    assert!(room.pick("web").is_none(), "the master decides");
    let asked = fake.asked();
    // The same table again, as after any change elsewhere: nothing more to ask or tell.
    room.apps(&one(&fake, 1, InstanceState::Starting));
    room.apps(&one(&fake, 2, InstanceState::Starting));
    assert_eq!(room.heard().await, ("web.0".into(), 2, Health::Ready));
    assert_eq!(fake.asked(), asked + 1);
    room.apps(&one(&fake, 2, InstanceState::Ready));
    assert!(room.pick("web").is_some());
}

fn live(app: &mut plan::App) {
    let count = |n| NonZeroU32::new(n).expect("not zero");
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(60));
    app.live = Some(plan::Live { path: "/live".into(), host: None, interval, timeout, fail: count(3), pass: count(2) });
}

#[tokio::test]
async fn an_instance_that_hangs_is_dead_and_may_come_back() {
    let fake = Fake::answers(200).await;
    let mut room = Room::of(app(live));
    room.apps(&one(&fake, 1, InstanceState::Ready));
    until("it is asked", || fake.asked() >= 3).await;
    assert!(room.out.try_recv().is_err(), "alive is what it was");
    fake.now_answers(0);
    assert_eq!(room.heard().await, ("web.0".into(), 1, Health::Dead { reason: "no answer within 60ms".into() }));
    assert!(room.pick("web").is_some(), "the last one is never taken out");
    fake.now_answers(200);
    assert_eq!(room.heard().await, ("web.0".into(), 1, Health::Live));
}

#[tokio::test]
async fn a_busy_instance_that_answers_requests_is_slow_not_dead() {
    let fake = Fake::answers(200).await;
    let mut room = Room::of(app(live));
    room.apps(&one(&fake, 1, InstanceState::Ready));
    fake.now_answers(0);
    let busy = room.pick("web").expect("ready");
    let begin = fake.asked();
    until("ten timeouts", || {
        // Requests are answered all the while, one stays under way.
        room.pick("web").expect("ready").answered(Duration::ZERO, 200, Duration::ZERO, crate::edge::upstream::Asked::default());
        fake.asked() > begin + 10
    })
    .await;
    assert!(room.out.try_recv().is_err());
    // It answers nobody any more: dead, however busy.
    let _still_busy = busy;
    assert!(matches!(room.heard().await, (_, 1, Health::Dead { .. })));
}

/// Two servers, the first of which has a request that it says nothing to.
async fn one_waits(first: &Fake, second: &Fake) -> (Room, Lease) {
    let room = Room::of(TestPlan::new().upstream("api", |api| {
        api.servers = vec![testing::server(first.addr), testing::server(second.addr)];
    }));
    let mut waits = room.pick("api").expect("up");
    let now = room.pools.borrow().now();
    waits.sent(now, None, DEADLINE, None);
    (room, waits)
}

#[tokio::test]
async fn a_server_that_hangs_leaves_the_rotation_until_it_says_anything() {
    let (hangs, answers) = (Fake::answers(0).await, Fake::answers(404).await);
    let (room, _waits) = one_waits(&hangs, &answers).await;
    until("it is suspect", || room.state("api", 0) == "suspect").await;
    assert!(hangs.asked() >= 1 && answers.asked() == 1, "both were asked: {} {}", hangs.asked(), answers.asked());
    let labels: Vec<_> = (0..4).filter_map(|_| Some(room.pick("api")?.label().to_owned())).collect();
    assert_eq!(labels, vec![answers.addr.to_string(); 4]);
    let view = room.pools.borrow().iter().map(|pool| pool.view(room.pools.borrow().now())).next().expect("one");
    assert!(view.servers[0].reason.as_deref().is_some_and(|reason| reason.starts_with("no byte from it for")), "{view:?}");
    // An answer to the next question, a bad one too.
    hangs.now_answers(503);
    until("it is back", || room.state("api", 0) == "up").await;
}

#[tokio::test]
async fn a_byte_to_anyone_brings_a_suspect_back_at_once() {
    let (hangs, answers) = (Fake::answers(0).await, Fake::answers(200).await);
    let (room, waits) = one_waits(&hangs, &answers).await;
    until("it is suspect", || room.state("api", 0) == "suspect").await;
    waits.heard();
    assert_eq!(room.state("api", 0), "up");
}

#[tokio::test]
async fn one_slow_answer_of_a_server_that_answers_others_makes_it_no_suspect() {
    let (slow, answers) = (Fake::answers(200).await, Fake::answers(200).await);
    let (room, _waits) = one_waits(&slow, &answers).await;
    until("it was asked", || slow.asked() == 1).await;
    // What it owes now is younger than the request that waits: it would be asked again, and not once has it been out.
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        assert_eq!(room.state("api", 0), "up");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(slow.asked(), 1);
}

#[tokio::test]
async fn where_all_hang_nobody_is_suspect() {
    let (one, other) = (Fake::answers(0).await, Fake::answers(0).await);
    let (room, _waits) = one_waits(&one, &other).await;
    until("both were asked twice", || {
        assert_eq!((room.state("api", 0), room.state("api", 1)), ("up", "up"));
        one.asked() >= 2 && other.asked() >= 2
    })
    .await;
}

#[tokio::test]
async fn whoever_has_left_waits_no_more() {
    let (hangs, answers) = (Fake::answers(0).await, Fake::answers(200).await);
    let (room, waits) = one_waits(&hangs, &answers).await;
    drop(waits);
    until("it owes nothing", || {
        let pools = room.pools.borrow();
        let pool = pools.iter().next().expect("one");
        pool.servers()[0].vitals.silence.owes_since().is_none()
    })
    .await;
    assert_eq!((hangs.asked(), answers.asked()), (0, 0));
}
