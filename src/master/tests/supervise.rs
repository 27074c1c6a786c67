//! The supervisor with apps that are real processes, named by their vice.

use std::{collections::BTreeMap, fs, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{fake_edge, lives, pids, until};
use crate::{
    ipc::message::{AppTable, Generation, Health, Instance, InstanceState, Materials},
    master::{
        clock::Clock,
        edge_link::{self, EdgeLink, Setting},
        nursery::{Nursery, Strangers},
        obituary::Register,
        output::{Files, Output},
        places::Places,
        sockets::Sockets,
        supervisor::{Message, Supervisor, Wiring},
        table::Table,
        words::{Heard, Order, Word},
    },
    plan::{App, AppPort, Ready, RestartPolicy, Stop, app::StopSignal, testing},
    vocab::{AppName, Secret, ServerAddr},
};

const SHORT: Duration = Duration::from_millis(300);

fn name(text: &str) -> AppName {
    AppName::parse(text).expect("valid")
}

/// A worker that runs a shell script in the scene's directory.
pub fn app(script: &str) -> App {
    App {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        restart: RestartPolicy { delay: Duration::from_millis(20), max_delay: Duration::from_millis(200), ..testing::app().restart },
        stop: Stop { signal: StopSignal::Term, timeout: SHORT, drain: Duration::from_secs(5) },
        ..testing::worker()
    }
}

struct Scene {
    supervisor: mpsc::Sender<Message>,
    heard: mpsc::Sender<Heard>,
    table: watch::Receiver<Table>,
    nursery: Nursery,
    dir: tempfile::TempDir,
    tasks: JoinSet<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.nursery.kill_all();
    }
}

impl Scene {
    /// `edge`: a fake one that finds every instance with an address ready; else none, and verdicts are told by hand.
    async fn new(apps: &[(&str, App)], edge: bool) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let mut plan = super::plan();
        plan.state = dir.path().join("state");
        plan.run = dir.path().join("run");
        plan.log.dir = Some(dir.path().join("logs"));
        let nursery = Nursery::new(Strangers::Leave).expect("guard");
        let output = Output::start(&Files::of(&plan)).expect("threads");
        let places = Places::prepare(&plan).expect("made");
        let clock = Clock::start();
        let (table, table_out) = watch::channel(Table::default());
        let (supervisor, inbox) = mpsc::channel(64);
        let (heard_by_edge, heard) = mpsc::channel(64);
        let setting = Setting {
            generation: Generation(1),
            plan: Arc::new(plan),
            sockets: Arc::new(Sockets::default()),
            materials: Materials::default(),
            reloads: (0, 0),
        };
        let wiring = edge_link::Wiring {
            program: fake_edge::program("good"),
            nursery: nursery.clone(),
            output: output.clone(),
            table: table_out.clone(),
            heard: heard_by_edge.clone(),
            started_ms: 0,
            tickets: super::tickets(),
            switches: watch::channel(Default::default()).1,
        };
        let (link, handle) = EdgeLink::new(wiring, setting);
        let mut tasks = JoinSet::new();
        let children = nursery.clone();
        tasks.spawn(async move { children.run().await.expect("signals") });
        if edge {
            tasks.spawn(link.run());
            let facts = handle.facts();
            until("the edge", || facts.borrow().ready).await;
        }
        let wiring =
            Wiring { clock, nursery: nursery.clone(), output, register: Register::default(), places, edge: handle, inbox, heard, table };
        tasks.spawn(Supervisor::new(wiring).run());
        let scene = Self { supervisor, heard: heard_by_edge, table: table_out, nursery, dir, tasks };
        scene.apply(apps).await;
        scene
    }

    async fn apply(&self, apps: &[(&str, App)]) {
        let apps = apps.iter().map(|(app, spec)| {
            let mut spec = spec.clone();
            spec.dir = Some(self.dir.path().into());
            (name(app), spec)
        });
        self.supervisor.send(Message::Apps(apps.collect())).await.expect("it lives");
    }

    fn table(&self) -> AppTable {
        self.table.borrow().apps.clone()
    }

    fn row(&self, app: &str, n: u16) -> Option<Instance> {
        self.table().instances.into_iter().find(|row| row.id.app == name(app) && row.id.n == n)
    }

    async fn row_when(&self, app: &str, n: u16, condition: impl Fn(&Instance) -> bool) -> Instance {
        let mut row = None;
        until(&format!("{app}.{n} as wanted"), || {
            row = self.row(app, n).filter(&condition);
            row.is_some()
        })
        .await;
        row.expect("just seen")
    }

    async fn is(&self, app: &str, n: u16, state: InstanceState) -> Instance {
        self.row_when(app, n, |row| row.state == state).await
    }

    async fn order(&self, app: &str, order: Order) -> (Word, Vec<Word>) {
        let (tell, mut words) = mpsc::channel(64);
        self.supervisor.send(Message::Command { app: name(app), order, tell }).await.expect("it lives");
        let mut progress = Vec::new();
        loop {
            let word = tokio::time::timeout(Duration::from_secs(30), words.recv()).await.expect("in time").expect("an end");
            match word {
                Word::Progress(_) => progress.push(word),
                Word::Done(_) | Word::Failed(_) => return (word, progress),
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_killed_instance_is_back_with_another_pid_and_its_reason() {
    let scene = Scene::new(&[("web", app("exec sleep 1000"))], false).await;
    let first = scene.is("web", 0, InstanceState::Ready).await;
    let pid = first.pid.expect("it runs").cast_signed();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("killed");
    let second = scene.row_when("web", 0, |row| row.state == InstanceState::Ready && row.pid != first.pid).await;
    assert_eq!(second.restarts, 1);
    assert_eq!(second.last_exit.expect("ended").0, "signal 9 (KILL)");
    assert_eq!(scene.table().restarts[&name("web")], BTreeMap::from([("signal".to_owned(), 1)]));
}

#[tokio::test]
async fn an_app_that_exits_at_once_cools_down_and_others_are_not_touched() {
    let mut bad = app("echo no luck >&2; exit 1");
    bad.ready = Ready::Log { pattern: "up and running".into(), timeout: Duration::from_secs(30) };
    let scene = Scene::new(&[("bad", bad), ("good", app("exec sleep 1000"))], false).await;
    let good = scene.is("good", 0, InstanceState::Ready).await;
    let bad = scene.is("bad", 0, InstanceState::Cooldown).await;
    assert_eq!(bad.restarts, 3);
    assert!(bad.due_ms.is_some());
    assert_eq!(scene.is("good", 0, InstanceState::Ready).await.pid, good.pid);
    let (word, _) = scene.order("bad", Order::Start).await;
    // What it said last stands in the answer too where it has been read by then: the exit does not wait for that.
    assert!(matches!(&word, Word::Failed(why) if why.contains("exit 1")), "{word:?}");
    until("its output", || scene.text("logs/bad.log").contains("no luck")).await;
}

#[tokio::test]
async fn an_app_that_ignores_term_is_killed_with_its_grandchildren() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > inner; while :; do sleep 1; done' & while :; do sleep 1; done";
    let scene = Scene::new(&[("web", app(script))], false).await;
    until("the grandchild", || !pids(&scene.file("inner")).is_empty()).await;
    let (word, progress) = scene.order("web", Order::Stop).await;
    assert!(matches!(word, Word::Done(_)), "{word:?}");
    assert!(progress.iter().any(|word| matches!(word, Word::Progress(text) if text.contains("killed"))), "{progress:?}");
    let row = scene.is("web", 0, InstanceState::Stopped).await;
    assert_eq!((row.pid, row.last_exit.map(|(why, _)| why).as_deref()), (None, Some("signal 9 (KILL)")));
    assert!(!lives(pids(&scene.file("inner"))[0]));
}

#[tokio::test]
async fn an_app_that_closes_its_output_lives_on() {
    let scene = Scene::new(&[("web", app("exec >&- 2>&-; echo $$ > here; exec sleep 1000"))], false).await;
    until("it is past that", || !pids(&scene.file("here")).is_empty()).await;
    let row = scene.is("web", 0, InstanceState::Ready).await;
    assert_eq!(row.pid, Some(pids(&scene.file("here"))[0].cast_unsigned()));
}

#[tokio::test]
async fn a_double_fork_leaves_nothing_behind() {
    let script = "sh -c '(echo $$ > outer; sh -c \"echo \\$\\$ > inner; exec sleep 1000\") & wait' & sleep 0.2; exit 0";
    let scene = Scene::new(&[("web", app(script))], false).await;
    until("the grandchild", || !pids(&scene.file("inner")).is_empty()).await;
    let first = pids(&scene.file("inner"))[0];
    scene.row_when("web", 0, |row| row.restarts >= 1).await;
    assert!(!lives(first), "the next start never meets the last one's grandchildren");
}

#[tokio::test]
async fn a_flood_of_output_does_not_disturb_the_supervisor() {
    let scene = Scene::new(&[("loud", app("exec yes")), ("web", app("exec sleep 1000"))], false).await;
    scene.is("loud", 0, InstanceState::Ready).await;
    let (word, _) = scene.order("web", Order::Restart).await;
    assert!(matches!(word, Word::Done(_)), "{word:?}");
    until("output", || scene.text("logs/loud.log").len() > 1000).await;
    let (word, _) = scene.order("loud", Order::Stop).await;
    assert!(matches!(word, Word::Done(_)), "{word:?}");
}

#[tokio::test]
async fn an_app_is_ready_when_it_says_so_in_its_log() {
    let mut web = app("echo starting; while [ ! -e go ]; do sleep 0.01; done; echo now listening; exec sleep 1000");
    web.ready = Ready::Log { pattern: "listening$".into(), timeout: Duration::from_secs(30) };
    let scene = Scene::new(&[("web", web)], false).await;
    until("its first line", || scene.text("logs/web.log").contains("starting")).await;
    assert_eq!(scene.is("web", 0, InstanceState::Starting).await.restarts, 0);
    fs::write(scene.file("go"), "").expect("written");
    scene.is("web", 0, InstanceState::Ready).await;
}

#[tokio::test]
async fn an_app_is_ready_when_it_notifies() {
    let mut web = app("echo $NOTIFY_SOCKET > socket; exec sleep 1000");
    web.ready = Ready::Notify { timeout: Duration::from_secs(30) };
    let scene = Scene::new(&[("web", web)], false).await;
    until("the socket's name", || scene.text("socket").ends_with('\n')).await;
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    socket.send_to(b"STATUS=warming up", scene.text("socket").trim()).expect("sent");
    assert_eq!(scene.is("web", 0, InstanceState::Starting).await.restarts, 0);
    socket.send_to(b"MAINPID=1\nREADY=1\n", scene.text("socket").trim()).expect("sent");
    scene.is("web", 0, InstanceState::Ready).await;
    socket.send_to(b"STATUS=busy", scene.text("socket").trim()).expect("still open");
}

#[tokio::test]
async fn an_app_that_never_opens_its_port_is_started_again_as_unready() {
    let mut web = app("exec sleep 1000");
    web.port = AppPort::Allotted;
    web.ready = Ready::Tcp { timeout: SHORT };
    let scene = Scene::new(&[("web", web)], false).await;
    let row = scene.row_when("web", 0, |row| row.restarts >= 1).await;
    assert_eq!(row.last_exit.expect("ended").0, "not ready within 300ms");
    assert!(scene.table().restarts[&name("web")].contains_key("unready"));
}

#[tokio::test]
async fn an_app_that_is_found_dead_is_restarted() {
    let mut web = app("exec sleep 1000");
    web.port = AppPort::Allotted;
    web.ready = Ready::Tcp { timeout: Duration::from_secs(30) };
    let scene = Scene::new(&[("web", web)], true).await;
    let row = scene.is("web", 0, InstanceState::Ready).await;
    let health = Health::Dead { reason: "timeout".into() };
    scene.heard.send(Heard::Health { id: row.id, incarnation: row.incarnation, health }).await.expect("it lives");
    let row = scene.row_when("web", 0, |row| row.restarts == 1 && row.state == InstanceState::Ready).await;
    assert_eq!(row.last_exit.expect("ended").0, "unhealthy: timeout");
    assert_eq!(scene.tasks.len(), 3);
}

#[tokio::test]
async fn instances_know_their_number_port_socket_and_environment() {
    let mut ported = app("echo {n} {port} $PORT $GATEWAY_INSTANCE $SECRET $(pwd) > ported.{n}; exec sleep 1000");
    ported.port = AppPort::Allotted;
    ported.procs = NonZeroU16::new(2).expect("some");
    ported.ready = Ready::Tcp { timeout: Duration::from_secs(30) };
    ported.env.insert("SECRET".into(), Secret::new("hush".into()));
    let mut socket = app("touch {socket}; echo {socket} > socket; umask >> socket; exec sleep 1000");
    socket.port = AppPort::Socket;
    socket.ready = Ready::Tcp { timeout: Duration::from_secs(30) };
    let scene = Scene::new(&[("ported", ported), ("socket", socket)], true).await;
    let rows = [scene.is("ported", 0, InstanceState::Ready).await, scene.is("ported", 1, InstanceState::Ready).await];
    for (n, row) in rows.iter().enumerate() {
        let Some(ServerAddr::Tcp(addr)) = row.addr else { panic!("{row:?}") };
        let file = format!("ported.{n}");
        until("its words", || scene.text(&file).ends_with('\n')).await;
        let dir = scene.dir.path().canonicalize().expect("there");
        assert_eq!(scene.text(&file), format!("{n} {0} {0} {n} hush {1}\n", addr.port(), dir.display()));
    }
    assert_ne!(rows[0].addr, rows[1].addr);
    let row = scene.is("socket", 0, InstanceState::Ready).await;
    let path = scene.file("run/app/socket/0.sock");
    assert_eq!(row.addr, Some(ServerAddr::Unix(path.clone())));
    until("its words", || scene.text("socket").lines().count() == 2).await;
    assert_eq!(scene.text("socket"), format!("{}\n0007\n", path.display()));
}

#[tokio::test]
async fn a_restart_rolls_and_a_reload_touches_only_what_changed() {
    let mut web = app("exec sleep 1000");
    web.port = AppPort::Allotted;
    web.procs = NonZeroU16::new(2).expect("some");
    web.ready = Ready::Tcp { timeout: Duration::from_secs(30) };
    let other = app("exec sleep 1001");
    let scene = Scene::new(&[("web", web.clone()), ("other", other.clone())], true).await;
    let before = [scene.is("web", 0, InstanceState::Ready).await, scene.is("web", 1, InstanceState::Ready).await];
    let (word, _) = scene.order("web", Order::Restart).await;
    assert!(matches!(word, Word::Done(_)), "{word:?}");
    let after = [scene.is("web", 0, InstanceState::Ready).await, scene.is("web", 1, InstanceState::Ready).await];
    assert!(before.iter().zip(&after).all(|(old, new)| old.pid != new.pid));
    let untouched = scene.is("other", 0, InstanceState::Ready).await;

    scene.apply(&[("web", web.clone()), ("other", other.clone())]).await;
    let mut changed = web;
    changed.command = ["sh", "-c", "exec sleep 1002"].map(str::to_owned).to_vec();
    scene.apply(&[("web", changed), ("other", other)]).await;
    scene.row_when("web", 1, |row| row.state == InstanceState::Ready && row.pid != after[1].pid).await;
    assert_eq!(scene.table().restarts[&name("web")], BTreeMap::from([("command".to_owned(), 2), ("reload".to_owned(), 2)]));
    assert_eq!(scene.row("other", 0).expect("there").pid, untouched.pid);

    scene.apply(&[]).await;
    until("nothing is left", || scene.table().instances.is_empty()).await;
}

#[tokio::test]
async fn an_app_stops_after_those_that_need_it() {
    let script = |name: &str| app(&format!("trap 'echo {name} >> order; exit 0' TERM; echo {name} >> up; while :; do sleep 0.01; done"));
    let mut apps = [("a", script("a")), ("b", script("b")), ("c", script("c"))];
    for (_, app) in &mut apps {
        app.stop.timeout = Duration::from_secs(20);
    }
    apps[1].1.after = vec![name("a")];
    apps[2].1.after = vec![name("b")];
    let scene = Scene::new(&apps, false).await;
    until("all run", || scene.text("up").lines().count() == 3).await;
    let (done, stopped) = oneshot::channel();
    scene.supervisor.send(Message::StopAll { done }).await.expect("it lives");
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("in time").expect("done");
    assert_eq!(scene.text("order"), "c\nb\na\n");
    let (word, _) = scene.order("a", Order::Start).await;
    assert!(matches!(word, Word::Failed(_)), "{word:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_with_its_remedy() {
    let mut web = app("");
    web.command = vec!["no-such-program-at-all".into()];
    let scene = Scene::new(&[("web", web)], false).await;
    let row = scene.row_when("web", 0, |row| row.last_exit.is_some()).await;
    let (why, _) = row.last_exit.expect("failed");
    assert!(why.contains("no-such-program-at-all") && why.contains("full path"), "{why}");
    let (word, _) = scene.order("nobody-knows-me", Order::Start).await;
    assert!(matches!(word, Word::Failed(_)));
}
