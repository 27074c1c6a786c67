//! Commands that are real processes.

use std::{fs, path::Path};

use super::*;
use crate::{
    master::{
        nursery::Strangers,
        output::Files,
        tests::{lives, pids, plan, supervise, until},
    },
    vocab::Secret,
};

struct Scene {
    bench: Bench,
    dir: tempfile::TempDir,
    stop: (watch::Sender<bool>, watch::Receiver<bool>),
    _reaper: tokio::task::JoinSet<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.bench.nursery.kill_all();
    }
}

impl Scene {
    fn new() -> Self {
        let nursery = Nursery::new(Strangers::Leave).expect("guard");
        let dir = tempfile::tempdir().expect("dir");
        let mut plan = plan();
        plan.log.dir = Some(dir.path().join("logs"));
        let output = Output::start(&Files::of(&plan)).expect("output");
        let mut reaper = tokio::task::JoinSet::new();
        let children = nursery.clone();
        reaper.spawn(async move { children.run().await.expect("signals") });
        let bench = Bench { nursery, output, nofile: None, exe: "/the/gateway".into() };
        Self { bench, dir, stop: watch::channel(false), _reaper: reaper }
    }

    fn app(&self) -> App {
        let mut app = supervise::app("exit 0");
        app.dir = Some(self.dir.path().into());
        app.deploy.before_timeout = Duration::from_secs(20);
        app.stop.timeout = Duration::from_millis(200);
        app
    }

    async fn run(&mut self, app: &App, script: &str) -> Result<Duration, BeforeError> {
        let words = ["sh", "-c", script].map(str::to_owned);
        self.bench.run(errand(&AppName::parse("web").expect("valid"), app, &words), &mut self.stop.1).await
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

fn errand<'a>(app: &'a AppName, spec: &'a App, words: &'a [String]) -> Errand<'a> {
    Errand { app, spec, n: None, words, within: spec.deploy.before_timeout }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_command_runs_in_the_new_directory_with_the_environment_of_the_app() {
    let mut scene = Scene::new();
    let mut app = scene.app();
    app.env.insert("MODE".into(), Secret::new("{exe} {n}".into()));
    scene.run(&app, "pwd >where; echo \"$MODE\" >mode; echo from stdout; echo from stderr >&2").await.expect("ends well");
    assert_eq!(Path::new(text(&scene.file("where")).trim()), scene.dir.path().canonicalize().expect("there"));
    assert_eq!(text(&scene.file("mode")), "/the/gateway {n}\n");
    let log = scene.file("logs/web.log");
    until("its output in the log", || text(&log).contains("from stdout") && text(&log).contains("from stderr")).await;
}

#[tokio::test]
async fn one_that_fails_shows_its_last_lines_of_both_kinds() {
    let mut scene = Scene::new();
    let app = scene.app();
    let error = scene.run(&app, "for i in $(seq 30); do echo line $i; done; echo no such table >&2; exit 3").await.expect_err("fails");
    assert!(matches!(&error, BeforeError::Failed { exit: Exit::Code(3), .. }), "{error:?}");
    assert_eq!(error.last().len(), 20);
    assert!(error.last().iter().any(|line| line == "no such table") && error.last().iter().any(|line| line == "line 30"), "{error:?}");
    assert!(matches!(scene.run(&app, "kill -9 $$").await, Err(BeforeError::Failed { exit: Exit::Signal(9), .. })));
    let missing = ["/no/such/program".to_owned()];
    let error = scene.bench.run(errand(&AppName::parse("web").expect("valid"), &app, &missing), &mut scene.stop.1).await;
    assert!(matches!(error, Err(BeforeError::Spawn(SpawnError::NoFile { .. }))));
}

#[tokio::test]
async fn a_late_one_is_ended_with_its_whole_group() {
    let mut scene = Scene::new();
    let mut app = scene.app();
    app.deploy.before_timeout = Duration::from_millis(600);
    let script = "trap '' TERM; (trap '' TERM; echo $$ >>pids; while :; do sleep 0.1; done) & echo $! >>pids; echo waiting; while :; do sleep 0.1; done";
    let error = scene.run(&app, script).await.expect_err("late");
    assert!(matches!(&error, BeforeError::Late { last, .. } if last == &["waiting"]), "{error:?}");
    let file = scene.file("pids");
    until("nobody is left", || pids(&file).iter().all(|pid| !lives(*pid))).await;
    assert!(scene.bench.nursery.is_empty());
}

#[tokio::test]
async fn one_that_leaves_its_pipes_to_a_daemon_does_not_hold_up_the_deploy() {
    let mut scene = Scene::new();
    let app = scene.app();
    let script = "setsid sh -c 'echo $$ >pids; exec sleep 30' & until test -s pids; do sleep 0.05; done; echo broken; exit 1";
    let error = scene.run(&app, script).await.expect_err("fails");
    assert_eq!(error.last(), ["broken"]);
    for pid in pids(&scene.file("pids")) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[tokio::test]
async fn it_is_ended_when_gateway_stops() {
    let mut scene = Scene::new();
    let app = scene.app();
    let stopper = scene.stop.0.clone();
    let begun = scene.file("begun");
    let (result, ()) = tokio::join!(scene.run(&app, "echo >begun; exec sleep 60"), async move {
        until("it runs", || begun.exists()).await;
        stopper.send_replace(true);
    });
    assert!(matches!(result, Err(BeforeError::Stopping)));
    assert!(scene.bench.nursery.is_empty());
}
