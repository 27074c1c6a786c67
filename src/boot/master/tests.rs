//! The whole master as a process of its own, with an edge that is played by this test binary: signals, control socket, reload, death.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::master::tests::{fake_edge, lives};

const CONFIG: &str = "GATEWAY_TEST_CONFIG";

/// Not a test of its own: the master of others.
#[test]
fn act() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let code = match super::run_with(Path::new(&config), fake_edge::program("good")) {
        Ok(()) => 0,
        Err(fatal) => {
            eprintln!("{}", fatal.story());
            fatal.exit_code()
        }
    };
    std::process::exit(i32::from(code));
}

struct Gateway {
    dir: tempfile::TempDir,
    process: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const APPS: &str = r#"
[app.alpha]
command = ["sh", "-c", "trap 'echo alpha >> order; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.01; done"]
[app.beta]
command = ["sh", "-c", "trap 'echo beta >> order; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.01; done"]
"#;

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("us"))
        .args(["boot::master::tests::act", "--exact", "--nocapture"])
        .current_dir(dir)
        .env(CONFIG, dir.join("gateway.toml"))
        .stdout(Stdio::null())
        .stderr(fs::OpenOptions::new().create(true).append(true).open(dir.join("stderr")).expect("file"))
        .spawn()
        .expect("started")
}

impl Gateway {
    fn with(apps: &str) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        write(dir.path(), apps);
        let process = start(dir.path());
        let gateway = Self { dir, process };
        gateway.until("the announcement", |g| g.text("stderr").contains(" serves http://127.0.0.1:"));
        gateway
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < deadline, "never came: {what}\n{}\n{}", self.text("stderr"), self.text("logs/gateway.log"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("it lives");
    }

    fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process.try_wait().expect("ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.text("logs/gateway.log"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All answers to one request.
    fn say(&self, request: &Value) -> Vec<Value> {
        let mut socket = UnixStream::connect(self.path("state/run/gateway.sock")).expect("control socket");
        writeln!(socket, "{request}").expect("sent");
        BufReader::new(socket).lines().map(|line| serde_json::from_str(&line.expect("line")).expect("json")).collect()
    }

    fn ask(&self, request: &Value) -> Value {
        self.say(request).pop().expect("an answer")
    }

    /// Pids of the instances of an app as status.json has them.
    fn status(&self) -> Value {
        serde_json::from_str(&self.text("state/status.json")).unwrap_or_default()
    }

    fn apps_ready(&self) {
        self.until("ready apps", |g| {
            let status = g.status();
            let state = |app: &str| status["apps"][app]["instances"][0]["state"] == "ready";
            state("alpha") && state("beta") && g.text("pids").lines().count() >= 2
        });
    }

    fn pids(&self) -> Vec<i32> {
        self.text("pids").lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

fn write(dir: &Path, apps: &str) {
    let head = "state = \"state\"\nrun = \"state/run\"\n[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = []\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\ndir = \"logs\"\n[timeouts]\ndrain = \"5s\"\n";
    let apps: String =
        apps.lines().map(|line| format!("{line}\n{}", if line.starts_with("[app.") { as_ourselves() } else { "" })).collect();
    fs::write(dir.join("gateway.toml"), format!("{head}{apps}")).expect("written");
}

/// As root every app must say who it runs as.
fn as_ourselves() -> &'static str {
    if nix::unistd::Uid::effective().is_root() { "user = \"root\"\n" } else { "" }
}

#[test]
fn term_stops_everything_in_order_and_ends_with_0() {
    let mut gateway = Gateway::with(&format!("{APPS}after = [\"alpha\"]\n"));
    gateway.apps_ready();
    let pids = gateway.pids();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(), Some(0));
    assert_eq!(gateway.text("order"), "beta\nalpha\n");
    assert!(!pids.into_iter().any(lives));
    assert_eq!(gateway.status()["apps"]["alpha"]["instances"][0]["state"], "stopped");
    assert!(!gateway.path("state/run/gateway.sock").exists());
}

#[test]
fn a_second_signal_stops_at_once() {
    let stubborn = r#"
[app.alpha]
command = ["sh", "-c", "trap '' TERM; echo $$ >> pids; while :; do sleep 0.01; done"]
stop = { timeout = "60s" }
"#;
    let mut gateway = Gateway::with(stubborn);
    gateway.until("its pid", |g| g.pids().len() == 1);
    gateway.signal(Signal::SIGTERM);
    gateway.until("a stopping app", |g| g.status()["apps"]["alpha"]["instances"][0]["state"] == "stopping");
    let told = Instant::now();
    gateway.signal(Signal::SIGINT);
    assert_eq!(gateway.ends(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5));
    assert!(!lives(gateway.pids()[0]));
}

#[test]
fn a_killed_master_leaves_nothing_alive() {
    let mut gateway = Gateway::with(&format!(
        "{APPS}\n[app.stubborn]\ncommand = [\"sh\", \"-c\", \"trap '' TERM; echo $$ >> pids; while :; do sleep 0.01; done\"]\n"
    ));
    gateway.until("three pids", |g| g.pids().len() == 3 && g.status()["edge"]["ready"] == true);
    let mut all = gateway.pids();
    all.push(i32::try_from(gateway.status()["edge"]["pid"].as_i64().expect("pid")).expect("pid"));
    gateway.signal(Signal::SIGKILL);
    let killed = Instant::now();
    gateway.ends();
    gateway.until("their end", |_| !all.iter().any(|pid| lives(*pid)));
    assert!(killed.elapsed() < Duration::from_secs(2), "took {:?}", killed.elapsed());
}

#[test]
fn a_killed_edge_is_replaced_and_no_app_notices() {
    let gateway = Gateway::with(APPS);
    gateway.apps_ready();
    let before = gateway.status();
    let pid = i32::try_from(before["edge"]["pid"].as_i64().expect("pid")).expect("pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    let killed = Instant::now();
    gateway.until("another edge", |g| g.status()["edge"]["restarts"] == 1 && g.status()["edge"]["ready"] == true);
    assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
    let after = gateway.status();
    assert_eq!(after["listeners"], before["listeners"]);
    assert_eq!(after["apps"]["alpha"]["instances"][0]["pid"], before["apps"]["alpha"]["instances"][0]["pid"]);
    assert_eq!(gateway.ask(&json!({ "command": "apps" }))["result"]["edge_restarts"], 1);
}

#[test]
fn a_reload_touches_only_what_changed_and_a_broken_file_changes_nothing() {
    let gateway = Gateway::with(APPS);
    gateway.apps_ready();
    let before = gateway.status();
    write(gateway.dir.path(), &APPS.replace("echo beta", "echo BETA"));
    assert_eq!(gateway.ask(&json!({ "command": "reload" }))["result"]["generation"], 2);
    gateway.until("a new beta", |g| g.status()["apps"]["beta"]["restarts"]["reload"] == 1);
    let after = gateway.status();
    assert_eq!(after["apps"]["alpha"]["instances"], before["apps"]["alpha"]["instances"]);
    assert_eq!(after["listeners"], before["listeners"]);

    write(gateway.dir.path(), "[app.alpha]\ncomand = \"x\"\n");
    let answer = gateway.ask(&json!({ "command": "reload" }));
    assert_eq!((&answer["answer"], &answer["kind"]), (&"failed".into(), &"configuration".into()), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("comand") && e.contains("nothing was changed")), "{answer}");
    write(gateway.dir.path(), "workers = 7\n");
    let key = fs::read_to_string(gateway.path("gateway.toml")).expect("there");
    fs::write(gateway.path("gateway.toml"), format!("workers = 7\n{}", key.replace("workers = 7\n", ""))).expect("written");
    let answer = gateway.ask(&json!({ "command": "reload" }));
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("workers cannot change")), "{answer}");
    assert_eq!(gateway.ask(&json!({ "command": "status" }))["result"]["master"]["gateway"]["generation"], 2);

    write(gateway.dir.path(), &APPS.replace("[app.beta]", "[app.gamma]"));
    gateway.signal(Signal::SIGHUP);
    gateway.until("beta gone, gamma there", |g| {
        let apps = &g.status()["apps"];
        apps["beta"].is_null() && apps["gamma"]["instances"][0]["state"] == "ready"
    });
}

#[test]
fn orders_are_answered_when_they_are_carried_out() {
    let gateway = Gateway::with(APPS);
    gateway.apps_ready();
    let state = |app: &str| {
        gateway.ask(&json!({ "command": "apps" }))["result"]["instances"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["id"]["app"] == app).map(|row| row["state"].clone()))
    };
    assert_eq!(gateway.ask(&json!({ "command": "stop", "app": "alpha" }))["answer"], "done");
    assert_eq!(state("alpha"), Some("stopped".into()));
    assert_eq!(gateway.ask(&json!({ "command": "start", "app": "alpha" }))["answer"], "done");
    assert_eq!(state("alpha"), Some("ready".into()));
    let words = gateway.say(&json!({ "command": "restart", "app": "beta" }));
    assert_eq!(words.last().expect("an end")["answer"], "done");
    assert!(words.iter().any(|word| word["answer"] == "progress"), "{words:?}");
    assert_eq!(gateway.ask(&json!({ "command": "stop", "app": "nobody" }))["kind"], "refused");
    assert_eq!(gateway.ask(&json!({ "command": "zones" }))["result"]["asked"], "Zones");
    assert_eq!(gateway.ask(&json!({ "command": "certs" }))["result"]["asked"], "Certificates");
    let refused = gateway.ask(&json!({ "command": "renew_cert", "host": "A.example" }));
    assert_eq!((&refused["kind"], &refused["error"]), (&"refused".into(), &"nothing renews a.example".into()));
    assert_eq!(gateway.ask(&json!({ "command": "renew_cert", "host": "a.example/../x" }))["kind"], "refused");
}

#[test]
fn nonsense_on_the_control_socket_is_answered_and_harmless() {
    let gateway = Gateway::with(APPS);
    for nonsense in ["", "{}", "[]", "{\"command\":\"explode\"}", "\u{0}\u{1}", "{\"command\":\"start\",\"app\":\"../x\"}"] {
        let mut socket = UnixStream::connect(gateway.path("state/run/gateway.sock")).expect("control socket");
        writeln!(socket, "{nonsense}").expect("sent");
        let answer: Value = serde_json::from_reader(socket).expect("an answer");
        assert_eq!(answer["answer"], "failed", "{nonsense:?}");
    }
    let mut socket = UnixStream::connect(gateway.path("state/run/gateway.sock")).expect("control socket");
    let _ = socket.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(gateway.ask(&json!({ "command": "status" }))["answer"], "done");
}

#[test]
fn a_second_master_on_the_same_state_says_so_and_ends_with_1() {
    let gateway = Gateway::with(APPS);
    let mut second = Gateway { process: start(gateway.dir.path()), dir: tempfile::tempdir().expect("dir") };
    assert_eq!(second.ends(), Some(1));
    assert!(gateway.text("stderr").contains("another gateway"), "{}", gateway.text("stderr"));
    assert_eq!(gateway.ask(&json!({ "command": "status" }))["answer"], "done");
}

#[test]
fn a_taken_port_is_told_with_advice() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let dir = tempfile::tempdir().expect("dir");
    write(dir.path(), "");
    let text = fs::read_to_string(dir.path().join("gateway.toml")).expect("there");
    let addr = taken.local_addr().expect("address").to_string();
    fs::write(dir.path().join("gateway.toml"), text.replacen("127.0.0.1:0", &addr, 1)).expect("written");
    let mut gateway = Gateway { process: start(dir.path()), dir };
    assert_eq!(gateway.ends(), Some(1));
    assert!(gateway.text("stderr").contains("the port is taken"), "{}", gateway.text("stderr"));
}

#[test]
fn logs_are_opened_again_and_a_program_that_is_no_gateway_is_not_upgraded_to() {
    let gateway = Gateway::with(APPS);
    gateway.apps_ready();
    gateway.until("a log", |g| g.text("logs/gateway.log").contains("edge is ready"));
    fs::rename(gateway.path("logs/gateway.log"), gateway.path("logs/moved")).expect("moved");
    gateway.signal(Signal::SIGUSR1);
    gateway.until("a new log", |g| g.path("logs/gateway.log").exists());
    gateway.signal(Signal::SIGUSR2);
    // This test binary knows of no self-check.
    gateway.until("the refusal", |g| g.text("logs/gateway.log").contains("upgrade refused"));
    gateway.until("the refusal among the errors", |g| g.text("logs/error.log").contains("is not a gateway"));
    assert_eq!(gateway.ask(&json!({ "command": "status" }))["answer"], "done");
}
