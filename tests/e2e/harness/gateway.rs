//! The real binary, running in a directory of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    proc,
    wait::{eventually, eventually_async, ms, secs},
};

/// The program under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_gateway")
}

/// The command of an app that is built into the binary, listening where `at` says: `--port {port}` or `--socket {socket}`.
pub fn demo_app(at: &str) -> String {
    format!("{} demo-app {at}", binary())
}

/// A gateway that runs. Dropped: it is stopped, and the test fails if it left a process behind.
pub struct Gateway {
    dir: TempDir,
    child: Child,
    mark: String,
    start: Start,
    listeners: BTreeMap<String, SocketAddr>,
    /// The test has ended it on purpose.
    ended: bool,
}

/// How it is started.
struct Start {
    program: Program,
    env: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Program {
    Built,
    /// DIR/gateway
    Copy,
}

/// Puts a program in the place of another as a package manager does: a new file under the old name.
pub fn install(from: &Path, to: &Path) {
    // There may be none yet.
    let _ = fs::remove_file(to);
    // A build for tests is large: where that can be, one file by two names.
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).expect("the program is copied");
    }
}

/// One process of an app, as `gateway apps --json` shows it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub app: String,
    pub n: u64,
    pub state: String,
    pub pid: Option<u32>,
    pub restarts: u64,
    pub last_exit: String,
}

impl Gateway {
    /// Starts it on this configuration and waits until it serves.
    ///
    /// Shape: `state`, `run`, `[listen]` and `[admin]` are filled in with directories and free ports of its own where the text says nothing of them.
    pub fn start(config: &str) -> Self {
        let mut gateway = Self::launch(config);
        gateway.wait_ready();
        gateway
    }

    /// As [`Gateway::start`], with these files beside the configuration.
    pub fn start_beside(files: &[(&str, &str)], config: &str) -> Self {
        let mut gateway = Self::launch_beside(files, config);
        gateway.wait_ready();
        gateway
    }

    /// Starts it and does not wait.
    pub fn launch(config: &str) -> Self {
        Self::launch_beside(&[], config)
    }

    /// As [`Gateway::start`], from a copy of the binary that the test may replace, and with these variables.
    pub fn start_copy(config: &str, env: &[(&str, &str)]) -> Self {
        let dir = workdir();
        install(Path::new(binary()), &dir.path().join("gateway"));
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut gateway = Self::launch_in(dir, config, Start { program: Program::Copy, env });
        gateway.wait_ready();
        gateway
    }

    /// Where the copy is that [`Gateway::start_copy`] runs.
    pub fn program(&self) -> PathBuf {
        self.dir.path().join("gateway")
    }

    fn launch_beside(files: &[(&str, &str)], config: &str) -> Self {
        let dir = workdir();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory is made");
            fs::write(path, text).expect("a file is written");
        }
        Self::launch_in(dir, config, Start { program: Program::Built, env: Vec::new() })
    }

    fn launch_in(dir: TempDir, config: &str, start: Start) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("GATEWAY_TEST_ID={}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        fs::write(dir.path().join("gateway.toml"), complete(config)).expect("the configuration is written");
        let child = spawn(dir.path(), &mark, &start);
        Self { dir, child, mark, start, listeners: BTreeMap::new(), ended: false }
    }

    /// Kills every process of it at once, as a power cut does.
    pub fn kill_whole(&mut self) {
        proc::kill(self.pid(), Signal::SIGKILL);
        for pid in self.processes() {
            // Its master's death may have ended it already.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL);
        }
        self.wait_end(secs(5));
        eventually("no process is left", secs(5), || Some(self.processes()).filter(Vec::is_empty).ok_or("some are"));
    }

    /// Starts it again where it ended, on what is there, and waits until it serves.
    pub fn start_again(&mut self) {
        assert!(self.ended, "it runs still");
        self.child = spawn(self.dir.path(), &self.mark, &self.start);
        self.ended = false;
        self.wait_ready();
    }

    pub fn wait_ready(&mut self) {
        let listeners = eventually("the gateway is ready", secs(40), || {
            if let Some(status) = self.child.try_wait().expect("our child") {
                self.ended = true;
                panic!("the gateway ended with {status} before it was ready; it said:\n{}", self.output());
            }
            let status = self.ask(&json!({ "command": "status" }))?;
            let found = bound(&status);
            if found.is_empty() || !settled(&status) { Err(format!("not ready: {status}")) } else { Ok(found) }
        });
        self.listeners = listeners;
    }

    pub fn http(&self) -> SocketAddr {
        self.listener("http")
    }

    pub fn https(&self) -> SocketAddr {
        self.listener("https")
    }

    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    fn listener(&self, role: &str) -> SocketAddr {
        *self.listeners.get(role).unwrap_or_else(|| panic!("no listener for {role}: {:?}", self.listeners))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file that it runs.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The edge: the master's child that was started as `edge`.
    pub fn edge_pid(&self) -> Option<u32> {
        proc::children(self.pid())
            .into_iter()
            .find(|pid| proc::command(*pid).get(1).is_some_and(|word| word == "edge") && proc::alive(*pid))
    }

    pub fn edge(&self) -> u32 {
        eventually("there is an edge", secs(10), || self.edge_pid().ok_or("no child of the master is an edge"))
    }

    /// One question over the control socket.
    ///
    /// Errors: what the gateway said, or why it could not be asked.
    pub fn ask(&self, request: &Value) -> Result<Value, String> {
        let mut stream = UnixStream::connect(self.dir.path().join("r/gateway.sock")).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(secs(60))).expect("a timeout");
        writeln!(stream, "{request}").map_err(|error| format!("write: {error}"))?;
        for line in BufReader::new(stream).lines() {
            let line = line.map_err(|error| format!("read: {error}"))?;
            let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            match answer["answer"].as_str() {
                Some("progress") => {}
                Some("done") => return Ok(answer["result"].clone()),
                _ => return Err(answer["error"].as_str().unwrap_or(&line).to_owned()),
            }
        }
        Err("the gateway closed the connection without an answer".into())
    }

    pub fn status(&self) -> Value {
        self.ask(&json!({ "command": "status" })).expect("status answers")
    }

    pub fn instances(&self) -> Vec<Instance> {
        let mut out = Vec::new();
        let apps = self.ask(&json!({ "command": "apps" })).expect("apps answers");
        collect_instances(&apps, &mut out);
        out.sort_by(|a, b| (&a.app, a.n).cmp(&(&b.app, b.n)));
        out
    }

    pub fn instance(&self, app: &str, n: u64) -> Instance {
        let all = self.instances();
        all.iter().find(|i| i.app == app && i.n == n).cloned().unwrap_or_else(|| panic!("no instance {app}.{n} in {all:?}"))
    }

    pub fn pids(&self, app: &str) -> Vec<u32> {
        self.instances().into_iter().filter(|i| i.app == app).filter_map(|i| i.pid).collect()
    }

    /// Waits until every instance of the app is in this state.
    pub fn wait_app(&self, app: &str, state: &str) -> Vec<Instance> {
        self.wait_app_for(app, state, secs(30))
    }

    pub fn wait_app_for(&self, app: &str, state: &str, deadline: Duration) -> Vec<Instance> {
        eventually(&format!("app {app} is {state}"), deadline, || {
            let of_app: Vec<Instance> = self.instances().into_iter().filter(|i| i.app == app).collect();
            let there = !of_app.is_empty() && of_app.iter().all(|i| i.state == state);
            if there && (state != "ready" || self.backends_up(app)) { Ok(of_app) } else { Err(of_app) }
        })
    }

    /// The edge has taken in that they are ready; an app without a port has no backends.
    fn backends_up(&self, app: &str) -> bool {
        let status = self.status();
        let of_app = status["upstreams"].as_array().into_iter().flatten().filter(|upstream| upstream["name"] == app);
        of_app.flat_map(|upstream| upstream["servers"].as_array().into_iter().flatten()).all(|server| server["up"] == true)
    }

    /// Writes the configuration and asks for a reload.
    pub fn reload(&self, config: &str) -> Result<Value, String> {
        self.write_config(config);
        self.ask(&json!({ "command": "reload" }))
    }

    pub fn write_config(&self, config: &str) {
        let to = self.dir.path().join("gateway.toml");
        let aside = self.dir.path().join("gateway.toml.new");
        fs::write(&aside, complete(config)).expect("the configuration is written");
        fs::rename(aside, to).expect("the configuration is replaced");
    }

    /// Runs `gateway -c FILE WORDS…`.
    pub fn cli(&self, words: &[&str]) -> Output {
        Command::new(binary())
            .arg("-c")
            .arg(self.dir.path().join("gateway.toml"))
            .args(words)
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    pub fn signal(&self, signal: Signal) {
        proc::kill(self.pid(), signal);
    }

    /// Waits for its end and gives how it ended.
    pub fn wait_end(&mut self, deadline: Duration) -> ExitStatus {
        let status = eventually("the gateway ends", deadline, || self.child.try_wait().expect("our child").ok_or("still running"));
        self.ended = true;
        status
    }

    /// Everything it wrote to stdout and stderr.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("output")).unwrap_or_default()).into_owned()
    }

    /// Processes that carry this test's mark, the master included.
    pub fn processes(&self) -> Vec<u32> {
        proc::marked(&self.mark, self.dir.path())
    }

    /// `/metrics`, one series a line, comments left out.
    pub async fn metrics(&self) -> Vec<String> {
        let answer = super::get(self.admin(), "localhost", "/metrics").await.expect("metrics answer");
        assert_eq!(answer.status, 200);
        answer.text().lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    }

    /// Waits until [`Gateway::metric`] is this: a request is counted when it is over, a moment after its answer.
    pub async fn counts(&self, name: &str, labels: &[&str], wanted: f64) {
        eventually_async(&format!("{name} {labels:?} is {wanted}"), secs(10), || async {
            let counted = self.metric(name, labels).await;
            if counted == wanted { Ok(()) } else { Err(counted) }
        })
        .await;
    }

    /// The sum of every series of this name whose labels contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.metrics().await;
        let fits = |line: &&String| {
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            &line[..end] == name && labels.iter().all(|label| line.contains(label))
        };
        series.iter().filter(fits).map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for (signal, patience) in [(Signal::SIGTERM, secs(8)), (Signal::SIGTERM, secs(5)), (Signal::SIGKILL, secs(5))] {
            if self.ended {
                break;
            }
            if proc::alive(self.pid()) {
                proc::kill(self.pid(), signal);
            }
            let end = std::time::Instant::now() + patience;
            while std::time::Instant::now() < end && !self.ended {
                self.ended = !matches!(self.child.try_wait(), Ok(None));
                std::thread::sleep(ms(10));
            }
        }
        let end = std::time::Instant::now() + secs(2);
        let mut left = self.processes();
        while !left.is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(ms(20));
            left = self.processes();
        }
        let leaked = proc::describe(&left);
        for pid in &left {
            proc::kill(*pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway in {} said:\n{}\n--- end of what it said", self.dir.path().display(), tail(&self.output(), 120));
        } else {
            assert!(left.is_empty(), "processes were left behind: {leaked}; the gateway said:\n{}", tail(&self.output(), 120));
        }
    }
}

fn spawn(dir: &Path, mark: &str, start: &Start) -> Child {
    let log = File::options().append(true).create(true).open(dir.join("output")).expect("the output file");
    let (name, value) = mark.split_once('=').expect("built with one");
    let program = match start.program {
        Program::Built => PathBuf::from(binary()),
        Program::Copy => dir.join("gateway"),
    };
    Command::new(program)
        .arg("-c")
        .arg(dir.join("gateway.toml"))
        .current_dir(dir)
        .env(name, value)
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("the binary starts")
}

/// A short directory that the edge's user may enter: a unix socket's path has room for 107 bytes.
pub fn workdir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("gw-").tempdir_in("/tmp").expect("a directory under /tmp");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    dir
}

/// The text with what every test needs and no test is about.
pub fn complete(config: &str) -> String {
    let mut text = String::new();
    let top = config.split("\n[").next().unwrap_or_default();
    let says = |key: &str| top.lines().any(|line| line.trim_start().starts_with(key));
    if !says("state") {
        text.push_str("state = \"s\"\n");
    }
    if !says("run ") {
        text.push_str("run = \"r\"\n");
    }
    text.push_str(&with_user(config));
    for (table, lines) in [("[listen]", "http = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n"), ("[admin]", "listen = \"127.0.0.1:0\"\n")]
    {
        if !config.lines().any(|line| line.trim() == table) {
            text.push_str(&format!("\n{table}\n{lines}"));
        }
    }
    text
}

/// As root every app must say who it runs as.
fn with_user(config: &str) -> String {
    if !nix::unistd::Uid::effective().is_root() {
        return config.to_owned();
    }
    let is_app = |line: &str| line.trim().strip_prefix("[app.").is_some_and(|rest| !rest.contains('.'));
    let mut text = String::new();
    let lines: Vec<&str> = config.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        text.push_str(line);
        text.push('\n');
        let mut block = lines[at + 1..].iter().take_while(|line| !line.trim_start().starts_with('['));
        if is_app(line) && !block.any(|line| line.trim_start().starts_with("user")) {
            text.push_str("user = \"root\"\n");
        }
    }
    text
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Role → the address the kernel gave.
fn bound(status: &Value) -> BTreeMap<String, SocketAddr> {
    let mut out = BTreeMap::new();
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let role = listener["role"].as_str().unwrap_or_default().to_lowercase();
        if let Some(addr) = listener["bound"].as_str().and_then(|text| text.parse().ok()) {
            out.entry(role).or_insert(addr);
        }
    }
    out
}

/// Every listener accepts.
fn settled(status: &Value) -> bool {
    status["listeners"].as_array().is_some_and(|all| all.iter().all(|listener| listener["accepting"] == true))
}

fn collect_instances(value: &Value, out: &mut Vec<Instance>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_instances(item, out)),
        Value::Object(map) => {
            let state = map.get("state").and_then(Value::as_str);
            if let (Some(app), Some(n), Some(state)) = (value["id"]["app"].as_str(), value["id"]["n"].as_u64(), state) {
                out.push(Instance {
                    app: app.into(),
                    n,
                    state: state.into(),
                    pid: map.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()),
                    restarts: map.get("restarts").and_then(Value::as_u64).unwrap_or_default(),
                    last_exit: map.get("last_exit").map(Value::to_string).unwrap_or_default(),
                });
                return;
            }
            map.values().for_each(|item| collect_instances(item, out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
