//! Somebody else on an app's port: he is never taken for the app, and is named.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::harness::{
    Gateway, demo_app, eventually, get,
    pebble::free,
    proc, upstream,
    wait::{eventually_async, secs},
};

const QUICK: &str = "restart = { delay = \"200ms\", max_delay = \"1s\", budget = \"100/1m\" }\nstop = { timeout = \"2s\", drain = \"1s\" }";

fn site(command: &str, more: &str) -> String {
    format!(
        "[app.web]\ncommand = {command}\n{more}\n{QUICK}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\nheaders = \"off\"\n"
    )
}

fn quoted(command: &str) -> String {
    format!("\"{command}\"")
}

/// What the table says of the one process of the app.
fn row(gateway: &Gateway) -> serde_json::Value {
    let status = gateway.status();
    status["apps"].as_array().expect("apps").iter().find(|app| app["name"] == "web").expect("web")["instances"][0].clone()
}

fn wait_row(gateway: &Gateway, what: &str, good: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    eventually(what, secs(40), || {
        let row = row(gateway);
        if good(&row) { Ok(row) } else { Err((row, gateway.output())) }
    })
}

fn says(row: &serde_json::Value, word: &str) -> bool {
    row["note"].as_str().is_some_and(|note| note.contains(word))
}

/// The page, whose body tells who answered.
async fn body(gateway: &Gateway) -> String {
    get(gateway.http(), "a.test", "/")
        .await
        .map(|answer| format!("{} {}", answer.status.as_u16(), answer.text()))
        .unwrap_or_else(|error| format!("{error:?}"))
}

async fn app_serves(gateway: &Gateway) {
    eventually_async("the app serves", secs(40), || async {
        match get(gateway.http(), "a.test", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// A program that listens for nobody in particular, until it is dropped.
struct Stranger(Child);

impl Stranger {
    /// Python's own web server.
    fn web(port: u16, bind: &str) -> Self {
        let args = ["-m", "http.server", &port.to_string(), "--bind", bind, "--directory", "/var/empty"];
        let child =
            Command::new("python3").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python3");
        let addr = SocketAddr::new(if bind == "::1" { "::1" } else { "127.0.0.1" }.parse().expect("valid"), port);
        eventually("the stranger listens", secs(20), || std::net::TcpStream::connect(addr).map(drop));
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_on_a_fixed_port_is_named_and_not_taken_for_the_app() {
    let [port] = free();
    for bind in ["127.0.0.1", "0.0.0.0"] {
        let stranger = Stranger::web(port, bind);
        let config = site(&quoted(&demo_app("--port {port}")), &format!("port = {port}"));
        let gateway = Gateway::start(&config);
        let row = wait_row(&gateway, "the port is seen to be taken", |row| row["state"] == "taken");
        assert!(says(&row, &format!("port {port} is taken by pid {} (python3", stranger.0.id())), "{row}");
        assert_eq!(row["pid"], serde_json::Value::Null, "nothing was started");
        gateway.counts("gateway_app_state", &["app=\"web\"", "state=\"taken\""], 1.0).await;
        gateway.counts("gateway_app_state", &["app=\"web\"", "state=\"ready\""], 0.0).await;
        let restart = gateway.cli(&["restart", "web"]);
        let said = String::from_utf8_lossy(&restart.stderr).into_owned();
        assert!(!restart.status.success() && said.contains(&format!("taken by pid {}", stranger.0.id())), "{said}");
        let start = gateway.cli(&["start", "web"]);
        let said = String::from_utf8_lossy(&start.stderr).into_owned();
        assert!(!start.status.success() && said.contains("is taken by pid"), "{said}");
        assert!(!body(&gateway).await.contains("Directory listing"));
        drop(stranger);
        gateway.wait_app("web", "ready");
        app_serves(&gateway).await;
        assert_eq!(self::row(&gateway)["last_exit"], serde_json::Value::Null, "no process has ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_on_one_port_of_a_range_costs_that_one_process_alone() {
    let ports = loop {
        let [port] = free();
        if std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            break port;
        }
    };
    let stranger = Stranger::web(ports + 1, "127.0.0.1");
    let gateway = Gateway::start(&site(&quoted(&demo_app("--port {port}")), &format!("port = {ports}\nprocs = 2")));
    let states = || gateway.instances().into_iter().map(|instance| instance.state).collect::<Vec<_>>();
    let wait = |wanted: [&str; 2]| eventually("their states", secs(30), || if states() == wanted { Ok(()) } else { Err(states()) });
    wait(["ready", "taken"]);
    app_serves(&gateway).await;
    let said = String::from_utf8_lossy(&gateway.cli(&["restart", "web"]).stderr).into_owned();
    assert!(said.contains(&format!("port {} is taken by pid {}", ports + 1, stranger.0.id())), "{said}");
    wait(["ready", "taken"]);
    app_serves(&gateway).await;
    drop(stranger);
    wait(["ready", "ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_comes_between_two_starts_is_not_taken_for_the_app() {
    let [port] = free();
    let config = site(&quoted(&demo_app("--port {port}")), &format!("port = {port}")).replace("\"200ms\"", "\"1s\"");
    let gateway = Gateway::start(&config);
    let pid = gateway.wait_app("web", "ready")[0].pid.expect("a process");
    proc::kill(pid, Signal::SIGKILL);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("the port is free", secs(5), || if std::net::TcpListener::bind(addr).is_ok() { Ok(()) } else { Err(()) });
    let stranger = upstream::says_at(addr, "stranger").await;
    let row = wait_row(&gateway, "the port is seen to be taken", |row| row["state"] == "taken");
    assert!(says(&row, &format!("pid {}", std::process::id())), "{row}");
    assert!(!body(&gateway).await.contains("stranger"));
    assert_eq!(stranger.hits(), 0, "no probe and no request has reached him");
    drop(stranger);
    gateway.wait_app("web", "ready");
    app_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allotted_port_that_a_stranger_takes_is_left_to_him() {
    let config = site(&quoted(&demo_app("--port {port}")), "").replace("\"200ms\"", "\"1s\"");
    let gateway = Gateway::start(&config);
    let pid = gateway.wait_app("web", "ready")[0].pid.expect("a process");
    let addr: SocketAddr = row(&gateway)["address"].as_str().expect("an address").parse().expect("an address");
    proc::kill(pid, Signal::SIGKILL);
    eventually("the port is free", secs(5), || if std::net::TcpListener::bind(addr).is_ok() { Ok(()) } else { Err(()) });
    let stranger = upstream::says_at(addr, "stranger").await;
    let now = wait_row(&gateway, "it is back", |row| row["state"] == "ready" && row["pid"] != pid);
    assert_ne!(now["address"], addr.to_string());
    app_serves(&gateway).await;
    assert_eq!(stranger.hits(), 0);
}

/// The port is free when it is started, and taken when it gets there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_is_quicker_than_the_app_blocks_ready() {
    for more in ["ready = { tcp = true, timeout = \"30s\" }", "ready = \"/\"", "ready = { log = \"about to listen\" }"] {
        let [port] = free();
        let script = format!(
            "[\"sh\", \"-c\", '''while [ ! -e there ]; do sleep 0.05; done; echo about to listen; while [ ! -e go ]; do sleep 0.1; done; exec {}''']",
            demo_app("--port {port}")
        );
        let gateway = Gateway::start(&site(&script, &format!("port = {port}\n{more}")));
        let stranger = upstream::says_at(SocketAddr::from(([127, 0, 0, 1], port)), "stranger").await;
        // Where the app's own word is the proof, he is there before the word.
        fs::write(gateway.dir().join("there"), "").expect("written");
        let row =
            wait_row(&gateway, "he is seen", |row| matches!(row["state"].as_str(), Some("starting" | "taken")) && row["note"].is_string());
        assert!(says(&row, &format!("is taken by pid {} (", std::process::id())), "{more}: {row}");
        assert!(!body(&gateway).await.contains("stranger"), "{more}");
        fs::write(gateway.dir().join("go"), "").expect("written");
        // The app finds the port in use, ends, and is not started until the stranger is gone.
        wait_row(&gateway, "nothing is started", |row| row["state"] == "taken");
        drop(stranger);
        gateway.wait_app("web", "ready");
        app_serves(&gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_started_listens_for_it() {
    let app = demo_app("--port {port}");
    // The leader waits; who listens is its grandchild, in a session of his own.
    let script = format!("[\"sh\", \"-c\", '''sh -c \"setsid {app} & wait\" & trap \"kill 0\" TERM; wait''']");
    let [port] = free();
    let gateway = Gateway::start(&site(&script, &format!("port = {port}")));
    gateway.wait_app("web", "ready");
    app_serves(&gateway).await;
    assert_eq!(row(&gateway)["note"], serde_json::Value::Null);
    for pid in proc::marked("demo-app", gateway.dir()) {
        // It may have gone with its leader.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

/// A client that stays in front while its engine, who is no child of his, listens for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_an_engine_publishes_for_its_client_is_trusted_and_said_so() {
    let [port] = free();
    // A program of that name; the engine's part is played by the test.
    let client = "[\"sh\", \"-c\", '''cp \"$(command -v sleep)\" docker; touch asked; exec ./docker 1000''']";
    let gateway = Gateway::start(&site(client, &format!("port = {port}")));
    eventually("the client has asked", secs(10), || fs::metadata(gateway.dir().join("asked")).map(drop));
    let engine = upstream::says_at(SocketAddr::from(([127, 0, 0, 1], port)), "contained").await;
    gateway.wait_app("web", "ready");
    let row = row(&gateway);
    assert!(says(&row, "docker has it opened by another process"), "{row}");
    assert!(body(&gateway).await.contains("contained"));
    drop(engine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_listens_on_the_loopback_of_ipv6_alone_is_found() {
    let program = "import http.server, socket, sys, os\nclass S(http.server.ThreadingHTTPServer):\n    address_family = socket.AF_INET6\n    def server_bind(self):\n        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n        super().server_bind()\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200); self.end_headers(); self.wfile.write(b'six')\nS((sys.argv[1], int(os.environ['PORT'])), H).serve_forever()\n";
    for bind in ["::1", "::"] {
        let config = site(&quoted(&format!("python3 app.py {bind} {{port}}")), "");
        let gateway = Gateway::start_beside(&[("app.py", program)], &config);
        gateway.wait_app("web", "ready");
        let row = row(&gateway);
        assert!(row["address"].as_str().is_some_and(|addr| addr.starts_with("[::1]:")), "{row}");
        eventually_async("the app serves", secs(20), || async {
            let body = body(&gateway).await;
            if body == "200 six" { Ok(()) } else { Err(body) }
        })
        .await;
        assert!(gateway.cli(&["restart", "web"]).status.success());
        assert_eq!(body(&gateway).await, "200 six");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_listens_elsewhere_is_told_where() {
    let [port, other] = free();
    let config =
        site(&quoted(&demo_app(&format!("--port {other}"))), &format!("port = {port}\nready = {{ tcp = true, timeout = \"8s\" }}"));
    let gateway = Gateway::start(&config);
    let row = wait_row(&gateway, "the hint", |row| row["note"].is_string());
    assert!(says(&row, &format!("listens on 127.0.0.1:{other}, not on 127.0.0.1:{port}")), "{row}");
    assert_eq!(row["state"], "starting");
}
