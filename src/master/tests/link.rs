//! The edge link with edges that are real processes.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{fake_edge, lives, until};
use crate::{
    ipc::message::{Generation, Incarnation, InstanceId, Materials, Query},
    master::{
        edge_link::{ApplyError, EdgeLink, Handle, Setting, Wiring},
        nursery::{Nursery, Strangers},
        output::{Files, Output},
        sockets::Sockets,
        table::Table,
        words::Heard,
    },
    plan::Plan,
    vocab::AppName,
};

struct Scene {
    edge: Handle,
    heard: mpsc::Receiver<Heard>,
    table: watch::Sender<Table>,
    nursery: Nursery,
    dir: tempfile::TempDir,
    setting: Setting,
    tasks: JoinSet<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.nursery.kill_all();
    }
}

fn setting(generation: u64, user: &str, sockets: &Arc<Sockets>) -> Setting {
    let plan = Plan { user: user.into(), ..super::plan() };
    Setting {
        generation: Generation(generation),
        plan: Arc::new(plan),
        sockets: sockets.clone(),
        materials: Materials::default(),
        reloads: (0, 0),
    }
}

impl Scene {
    fn with(vice: &str, user: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let mut plan = super::plan();
        plan.log.dir = Some(dir.path().into());
        plan.workers = std::num::NonZeroUsize::new(2).expect("some");
        plan.listen.http = vec!["127.0.0.1:0".parse().expect("valid")];
        let sockets = Arc::new(Sockets::bind(&plan, &Sockets::default()).expect("bound"));
        let nursery = Nursery::new(Strangers::Leave).expect("guard");
        let output = Output::start(&Files::of(&plan)).expect("threads");
        let (table, table_out) = watch::channel(Table::default());
        let (send, heard) = mpsc::channel(64);
        let setting = setting(1, user, &sockets);
        let wiring = Wiring {
            program: fake_edge::program(vice),
            nursery: nursery.clone(),
            output,
            table: table_out,
            heard: send,
            started_ms: 0,
            tickets: super::tickets(),
            switches: watch::channel(Default::default()).1,
        };
        let (link, edge) = EdgeLink::new(wiring, setting.clone());
        let mut tasks = JoinSet::new();
        let children = nursery.clone();
        tasks.spawn(async move { children.run().await.expect("signals") });
        tasks.spawn(link.run());
        Self { edge, heard, table, nursery, dir, setting, tasks }
    }

    async fn ready(vice: &str) -> Self {
        let scene = Self::with(vice, "nobody");
        scene.is_ready().await;
        scene
    }

    async fn is_ready(&self) {
        let facts = self.edge.facts();
        until("a ready edge", || facts.borrow().ready).await;
    }

    fn pid(&self) -> i32 {
        self.edge.facts().borrow().pid.expect("it runs").cast_signed()
    }
}

#[tokio::test]
async fn an_edge_is_started_and_answers() {
    let scene = Scene::ready("good").await;
    assert_eq!(scene.edge.ask(Query::Zones, Duration::from_secs(10)).await.as_deref(), Some("{\"asked\":\"Zones\"}"));
    let log = scene.dir.path().join("access.log");
    until("the access log", || std::fs::read_to_string(&log).is_ok_and(|text| text == "fake edge was here\n")).await;
    let log = scene.dir.path().join("gateway.log");
    until("its own log", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("fake edge speaks\n"))).await;
    assert_eq!(scene.tasks.len(), 2);
}

#[tokio::test]
async fn a_killed_edge_is_replaced_at_once() {
    let scene = Scene::ready("good").await;
    let first = scene.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).expect("killed");
    let killed = std::time::Instant::now();
    let facts = scene.edge.facts();
    until("another edge", || facts.borrow().ready && facts.borrow().pid.is_some_and(|pid| pid.cast_signed() != first)).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
    assert_eq!(facts.borrow().restarts, 1);
}

#[tokio::test]
async fn a_configuration_is_applied_or_refused_with_nothing_changed() {
    let scene = Scene::ready("good").await;
    let sockets = scene.setting.sockets.clone();
    assert_eq!(scene.edge.apply(setting(2, "bad", &sockets)).await, Err(ApplyError::Refused("bad user".into())));
    let before = scene.pid();
    assert_eq!(scene.edge.apply(setting(3, "good", &sockets)).await, Ok(()));
    assert_eq!(scene.pid(), before);
}

#[tokio::test]
async fn a_configuration_that_kills_the_edge_is_refused_and_the_old_one_comes_back() {
    let scene = Scene::ready("good").await;
    let sockets = scene.setting.sockets.clone();
    assert_eq!(scene.edge.apply(setting(2, "deadly", &sockets)).await, Err(ApplyError::Died));
    scene.is_ready().await;
    assert_eq!(scene.edge.apply(setting(3, "good", &sockets)).await, Ok(()));
}

#[tokio::test]
async fn a_good_configuration_mends_an_edge_that_cannot_start() {
    // With this user it never becomes ready.
    let scene = Scene::with("good", "bad");
    let facts = scene.edge.facts();
    until("a process", || facts.borrow().pid.is_some()).await;
    let sockets = scene.setting.sockets.clone();
    assert_eq!(scene.edge.apply(setting(2, "good", &sockets)).await, Ok(()));
    assert!(facts.borrow().ready);
}

#[tokio::test]
async fn an_edge_of_another_build_is_not_spoken_to() {
    let scene = Scene::with("foreign", "nobody");
    let facts = scene.edge.facts();
    until("a second try", || facts.borrow().restarts >= 1).await;
    assert!(!facts.borrow().ready);
}

#[tokio::test]
async fn an_edge_that_keeps_dying_is_started_ever_more_slowly() {
    let scene = Scene::with("exits", "nobody");
    let facts = scene.edge.facts();
    let start = std::time::Instant::now();
    until("four deaths", || facts.borrow().restarts >= 4).await;
    assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400));
}

#[tokio::test]
async fn a_silent_edge_is_killed_and_replaced() {
    let scene = Scene::ready("silent").await;
    let first = scene.pid();
    let facts = scene.edge.facts();
    until("another edge", || facts.borrow().restarts == 1).await;
    assert!(!lives(first));
}

#[tokio::test]
async fn a_drain_is_answered_by_the_edge_or_by_its_absence() {
    let mut scene = Scene::ready("good").await;
    let id = InstanceId { app: AppName::parse("web").expect("valid"), n: 0 };
    scene.edge.drain(id.clone(), Incarnation(1), Duration::from_secs(10));
    assert!(matches!(scene.heard.recv().await, Some(Heard::Drained { incarnation: Incarnation(1), .. })));
    scene.edge.shutdown(Duration::from_secs(10)).await;
    assert!(scene.nursery.is_empty());
    scene.edge.drain(id, Incarnation(2), Duration::from_secs(10));
    assert!(matches!(scene.heard.recv().await, Some(Heard::Drained { incarnation: Incarnation(2), .. })));
    assert_eq!(scene.edge.ask(Query::Status, Duration::from_secs(10)).await, None);
    drop(scene.table.clone());
}

#[tokio::test]
async fn drains_of_more_processes_than_any_queue_holds_are_not_taken_for_drained() {
    // It drains for ever: whatever is told comes from us.
    let mut scene = Scene::ready("never-drained").await;
    let pid = scene.pid();
    let id = |n| InstanceId { app: AppName::parse("web").expect("valid"), n };
    for n in 0..1000 {
        scene.edge.drain(id(n), Incarnation(1), Duration::from_secs(100));
    }
    // The question went after them: it has had them all, lives, and nobody was told anything.
    assert!(scene.edge.ask(Query::Zones, Duration::from_secs(10)).await.is_some());
    assert!(scene.heard.try_recv().is_err());
    // And each is told of once the edge is gone.
    let edge = scene.edge.clone();
    let told = async {
        let mut told = std::collections::BTreeSet::new();
        while told.len() < 1000 {
            if let Some(Heard::Drained { id, .. }) = scene.heard.recv().await {
                told.insert(id.n);
            }
        }
    };
    assert_eq!(scene.edge.facts().borrow().pid.map(u32::cast_signed), Some(pid));
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(edge.shutdown(Duration::from_secs(10)), told) })
        .await
        .expect("all are told");
}

#[tokio::test]
async fn an_edge_that_does_not_stop_is_killed() {
    let scene = Scene::ready("stubborn").await;
    let pid = scene.pid();
    scene.edge.shutdown(Duration::from_millis(100)).await;
    assert!(!lives(pid));
}
