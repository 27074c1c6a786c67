//! What is left of what happened: series, records, releases.

use http_body_util::Full;
use serde_json::Value;

use crate::harness::{Answer, Gateway, client::request, demo_app, eventually, get, h2raw, raw, send, tls::TlsClient, wait::secs};

/// A site with a filter and a zone, an app, an upstream with a dead server, a job.
fn everything() -> String {
    format!(
        r#"
[ban]
points = {{ bad-uri = 5, "401" = 2 }}
[zone.api]
rate = "10r/s"
[app.web]
command = "{}"
[app.nightly]
command = "true"
schedule = "0 2 * * *"
[upstream.api]
servers = ["127.0.0.1:9"]
[[site]]
host = "a.test"
tls = "off"
app = "web"
zone = "api"
[site.route."/api/"]
upstream = "api"
"#,
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_names_is_counted_from_zero_before_anything_happens() {
    let gateway = Gateway::start(&everything());
    gateway.wait_app("web", "ready");
    let series = gateway.metrics().await;
    for wanted in [
        r#"gateway_http_requests_total{site="a.test",code="502"} 0"#,
        r#"gateway_http_requests_total{site="a.test",code="200"} 0"#,
        r#"gateway_app_restarts_total{app="web",reason="exit"} 0"#,
        r#"gateway_app_restarts_total{app="web",reason="deploy"} 0"#,
        r#"gateway_app_runs_total{app="nightly",result="failed"} 0"#,
        r#"gateway_app_last_success_timestamp_seconds{app="nightly"} 0"#,
        r#"gateway_zone_requests_total{zone="api",result="rejected"} 0"#,
        r#"gateway_filter_hits_total{filter="bad-uri",site="a.test",result="rejected"} 0"#,
        r#"gateway_filter_families_total{family="sql",site="a.test",result="rejected"} 0"#,
        r#"gateway_bans_total{reason="bad-uri"} 0"#,
        r#"gateway_bans_total{reason="manual"} 0"#,
        r#"gateway_upstream_requests_total{upstream="api",server="127.0.0.1:9",code="502"} 0"#,
        r#"gateway_upstream_requests_total{upstream="web",server="web.0",code="200"} 0"#,
        r#"gateway_app_up{app="web",process="0"} 1"#,
        "gateway_access_log_dropped_total 0",
    ] {
        assert!(series.iter().any(|line| line == wanted), "{wanted} is not in\n{}", series.join("\n"));
    }
    assert!(!series.iter().any(|line| line.contains("instance=")), "a label of Prometheus' own");
    let mounts = |name: &str| series.iter().filter(|line| line.starts_with(name)).count();
    assert!(mounts("gateway_node_disk_total_bytes{") > 0);
    assert_eq!(mounts("gateway_node_disk_total_bytes{"), mounts("gateway_node_disk_free_bytes{"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_success_of_a_job_is_a_time_that_a_failure_does_not_move() {
    let gateway =
        Gateway::start("[app.nightly]\ncommand = [\"sh\", \"-c\", \"test ! -e broken\"]\ndir = \".\"\nschedule = \"0 2 * * *\"\n");
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!(gateway.cli(&["start", "nightly"]).status.success());
    gateway.counts("gateway_app_runs_total", &["nightly", "succeeded"], 1.0).await;
    let at = gateway.metric("gateway_app_last_success_timestamp_seconds", &["nightly"]).await;
    assert!(at >= began - 1.0 && at <= began + secs(60).as_secs_f64(), "{at} {began}");
    std::fs::write(gateway.dir().join("broken"), "").expect("written");
    gateway.cli(&["start", "nightly"]);
    gateway.counts("gateway_app_runs_total", &["nightly", "failed"], 1.0).await;
    assert_eq!(gateway.metric("gateway_app_last_success_timestamp_seconds", &["nightly"]).await, at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_records_that_a_full_disk_swallows_are_counted() {
    let logs = crate::harness::gateway::workdir();
    std::os::unix::fs::symlink("/dev/full", logs.path().join("access.log")).expect("a disk that is full");
    let gateway = Gateway::start(&format!(
        "[log]\ndir = {:?}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"ok\" }}\n",
        logs.path()
    ));
    for _ in 0..3 {
        assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
    }
    gateway.counts("gateway_access_log_dropped_total", &[], 3.0).await;
}

/// A rule of every kind, each at a path of its own.
const RULES: &str = r#"
[log]
dir = "logs"
access = { format = "json" }
[limits]
body = "1KB"
uri = "1KB"
headers = "4KB"
[timeouts]
header = "1s"
body = "1s"
[zone.api]
rate = "1r/h"
burst = 0
[[site]]
host = "localhost"
tls = "internal"
app = "web"
[[site]]
host = "closed.test"
tls = "off"
maintenance = { on = true }
[site.route."/"]
respond = { status = 200, body = "ok" }
[[site]]
host = "a.test"
tls = "off"
filters = ["bad-uri", "bad-method", "scanner-ua"]
[site.route."/"]
respond = { status = 200, body = "ok" }
[site.route."/told"]
respond = { status = 503, body = "as told" }
[site.route."/api"]
respond = { status = 200, body = "ok" }
zone = "api"
[site.route."/denied"]
respond = { status = 200, body = "ok" }
deny = ["127.0.0.0/8"]
[site.route."/few"]
respond = { status = 200, body = "ok" }
allow = ["203.0.113.0/24"]
[site.route."/get"]
respond = { status = 200, body = "ok" }
methods = ["GET"]
[site.route."/secret"]
respond = { status = 200, body = "ok" }
auth = { basic = "users", realm = "x" }
[app.web]
command = ["python3", "unwell.py", "{port}"]
dir = "."
ready = { tcp = true }
timeouts = { send = "1s" }
"#;

/// It is there, and says of itself that it cannot.
const UNWELL: &str = r#"
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        self.send_response(503); self.send_header('Content-Length', '0'); self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        self.do_GET()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
"#;

const USERS: &str = "alice:$2y$04$CkBbF7bMdpwuSSQyFmmdXeZ4uf/Swi0BCocSc0sRshxdHAoxc6rHq\n";

fn rules() -> Gateway {
    Gateway::start_beside(&[("unwell.py", UNWELL), ("users", USERS)], RULES)
}

/// The access record of this id.
fn record(gateway: &Gateway, id: &str) -> Value {
    let log = gateway.dir().join("logs/access.log");
    eventually(&format!("a record of {id}"), secs(10), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["id"] == id).ok_or(text)
    })
}

fn why(gateway: &Gateway, id: &str) -> String {
    let told = gateway.cli(&["why", id]);
    format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr))
}

async fn ask(gateway: &Gateway, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let asked = fields.iter().fold(request(method, host, path), |asked, (name, value)| asked.header(*name, *value));
    send(gateway.http(), asked.body(Full::default()).expect("a request")).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_refuses_a_request_is_named_in_its_access_record_and_by_why() {
    let gateway = rules();
    assert_eq!(ask(&gateway, "GET", "a.test", "/api", &[]).await.status, 200);
    let long = format!("/{}", "a".repeat(900));
    let body = "9999999";
    for (method, host, path, fields, status, refused, words) in [
        ("GET", "a.test", "/api", &[][..], 429, "zone:api", "zone api had let as many pass"),
        ("GET", "a.test", "/?q=1'%20OR%20'1'='1'%20--%20", &[], 403, "filter:bad-uri/sql", "family sql"),
        ("GET", "a.test", "/", &[("user-agent", "sqlmap/1.7")], 403, "filter:scanner-ua", "filter scanner-ua"),
        ("TRACE", "a.test", "/", &[], 405, "filter:bad-method", "filter bad-method"),
        ("GET", "a.test", "/denied", &[], 403, "deny", "in `deny`"),
        ("GET", "a.test", "/few", &[], 403, "allow", "not in `allow`"),
        ("POST", "a.test", "/get", &[], 405, "methods", "`methods`"),
        ("GET", "a.test", "/secret", &[], 401, "auth", "`auth`"),
        ("GET", "closed.test", "/", &[], 503, "maintenance", "maintenance"),
        ("GET", "nobody.test", &long, &[], 404, "no-site", "no site is for the host"),
        ("POST", "a.test", "/", &[("content-length", body)], 413, "limit:body", "`body` of [limits]"),
    ] {
        let answer = ask(&gateway, method, host, path, fields).await;
        assert_eq!(answer.status, status, "{method} {host} {path}");
        let id = answer.header("x-request-id");
        let line = record(&gateway, id);
        assert_eq!((&line["refused"], &line["status"]), (&refused.into(), &status.into()), "{line}");
        let told = why(&gateway, id);
        assert!(told.contains(words) && told.contains(&format!("{status} for {method}")) && told.contains("next:"), "{words}: {told}");
    }
    // What a route is told to answer is no failure.
    let answer = ask(&gateway, "GET", "a.test", "/told", &[]).await;
    assert_eq!(answer.status, 503);
    let id = answer.header("x-request-id");
    assert!(record(&gateway, id)["refused"].is_null());
    assert!(why(&gateway, id).contains("no failed request of this id"), "{}", why(&gateway, id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_before_it_is_a_request_has_its_id_its_record_and_its_why() {
    let gateway = rules();
    let uri = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(2000));
    let fields = format!("GET /fields HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "a".repeat(8000));
    for (bytes, status, refused, target) in [
        ("GET /two words HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "malformed", "/two"),
        ("\x16\x03\x01\0\0", 400, "malformed", ""),
        ("GET /half HTTP/1.1\r\nHost: a", 408, "deadline:header", "/half"),
        (&uri, 414, "limit:uri", "/aaaa"),
        (&fields, 431, "limit:headers", "/fields"),
        ("GET /twice HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400, "malformed", "/twice"),
    ] {
        let answer = raw::speak(gateway.http(), bytes.as_bytes()).await;
        assert_eq!(raw::status(&answer), status, "{bytes:?}: {answer}");
        let head = answer.to_ascii_lowercase();
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id").to_owned();
        assert!(answer.contains(&format!("Request id: {id}")), "the page has it too: {answer}");
        let line = record(&gateway, &id);
        assert_eq!((&line["refused"], &line["status"]), (&refused.into(), &status.into()), "{line}");
        assert!(line["path"].as_str().is_some_and(|path| path.starts_with(target)) && line["client"] == "127.0.0.1", "{target}: {line}");
        let told = why(&gateway, &id);
        assert!(told.contains(&format!("refused={refused}")), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_at_a_deadline_has_its_record() {
    let gateway = rules();
    gateway.wait_app("web", "ready");
    let tls = TlsClient::internal(&gateway);
    let mut connection = h2raw::H2::connect(gateway.https(), &tls, "localhost").await;
    let fields: [(&[u8], &[u8]); 5] =
        [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/slow"), (b"content-length", b"10")];
    // END_HEADERS, and never a byte of the body.
    connection.send(&h2raw::headers(1, 4, &fields)).await.expect("sent");
    let log = gateway.dir().join("logs/access.log");
    let line = eventually("a record of the cut", secs(20), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["path"] == "/slow").ok_or(text)
    });
    assert_eq!((&line["status"], &line["refused"], &line["site"]), (&408.into(), &"deadline:body".into(), &"localhost".into()), "{line}");
    let told = why(&gateway, line["id"].as_str().expect("an id"));
    assert!(told.contains("408 for POST /slow") && told.contains("slower than `body`"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_says_that_the_app_itself_answered_so() {
    let gateway = rules();
    gateway.wait_app("web", "ready");
    let tls = TlsClient::internal(&gateway);
    let mut connection = crate::harness::Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let answer = connection.send(request("GET", "localhost", "/x").body(Full::default()).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 503);
    let id = answer.header("x-request-id");
    assert!(record(&gateway, id)["refused"].is_null());
    let told = why(&gateway, id);
    let pid = format!("pid {}", gateway.pids("web")[0]);
    for words in ["the app itself answered 503", "web.0", &pid, "gateway logs web"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_access_log_a_refusal_by_a_filter_is_a_line_and_a_flood_of_them_few() {
    let gateway =
        Gateway::start("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n");
    let began = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(get(gateway.http(), "a.test", "/?q=1'%20OR%20'1'='1'%20--%20").await.expect("an answer").status, 403);
    }
    let lines = eventually("a line about it", secs(10), || {
        let output = gateway.output();
        let lines: Vec<_> = output.lines().filter(|line| line.contains("refused by a filter")).map(str::to_owned).collect();
        if lines.is_empty() { Err(output) } else { Ok(lines) }
    });
    assert!(lines[0].contains("filter:bad-uri/sql") && lines[0].contains("a.test") && !lines[0].contains("OR"), "{lines:?}");
    assert!(lines.len() as u64 <= began.elapsed().as_secs() + 2, "{}: {lines:?}", lines.len());
}

/// An app of which a directory with `broken` in it does not come up, and says why.
const SHOP: &str = r#"
import http.server, os, sys
if os.path.exists('broken'):
    print('booting', file=sys.stderr)
    sys.exit('FATAL: no table "orders"')
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        body = os.path.basename(os.getcwd()).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
"#;

fn shop() -> Gateway {
    let dir = crate::harness::gateway::workdir();
    let home = dir.keep();
    for release in ["one", "two", "three"] {
        std::fs::create_dir(home.join(release)).expect("a directory");
    }
    std::fs::write(home.join("shop.py"), SHOP).expect("written");
    std::fs::write(home.join("three/broken"), "").expect("written");
    let config = format!(
        "[app.web]\ncommand = [\"python3\", \"{0}/shop.py\", \"{{port}}\"]\ndir = \"{0}/one\"\nprocs = 2\nready = {{ tcp = true }}\ndeploy = {{ guard = \"1s\" }}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        home.display()
    );
    let gateway = Gateway::start(&config);
    gateway.wait_app("web", "ready");
    gateway
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// As `gateway releases web --json` has them: number, directory, state.
fn releases(gateway: &Gateway) -> Vec<(u64, String, String)> {
    let told = gateway.cli(&["releases", "web", "--json"]);
    let rows: Vec<Value> = serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&told)));
    let row = |row: &Value| {
        let dir = row["dir"].as_str().expect("a path").rsplit('/').next().expect("a name").to_owned();
        (row["n"].as_u64().expect("a number"), dir, row["state"].as_str().expect("a word").to_owned())
    };
    rows.iter().map(row).collect()
}

fn row(n: u64, dir: &str, state: &str) -> (u64, String, String) {
    (n, dir.to_owned(), state.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_are_listed_and_returned_to_and_a_directory_is_one_however_often_it_is_deployed() {
    let gateway = shop();
    assert_eq!(said(&gateway.cli(&["releases", "web"])), "nothing was deployed: it runs from its `dir`\n");
    let home = std::fs::read_link(format!("/proc/{}/cwd", gateway.pids("web")[0])).expect("a directory").parent().expect("one").to_owned();
    let dir = |name: &str| home.join(name).display().to_string();
    for _ in 0..2 {
        let ended = |gateway: &Gateway| gateway.instances().iter().map(|one| one.last_exit.clone()).collect::<Vec<_>>();
        let earlier = ended(&gateway);
        let done = gateway.cli(&["deploy", "web", "--dir", &dir("two")]);
        assert!(done.status.success(), "{}", said(&done));
        // The deploy is done when the new ones serve; the old ones end a moment later.
        eventually("the old ones have ended", secs(20), || {
            let now = ended(&gateway);
            if now.iter().zip(&earlier).all(|(now, earlier)| now != earlier) { Ok(()) } else { Err(now) }
        });
    }
    assert_eq!(releases(&gateway), [row(1, "two", "current"), row(2, "one", "previous")]);

    // One that does not come up says what it said, and nothing of it sticks to those that serve.
    let before: Vec<_> = gateway.instances().iter().map(|one| (one.pid, one.restarts, one.last_exit.clone())).collect();
    let failed = gateway.cli(&["deploy", "web", "--dir", &dir("three")]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("FATAL: no table \"orders\""), "{}", said(&failed));
    eventually("nothing is left of it", secs(20), || {
        let now: Vec<_> = gateway.instances().iter().map(|one| (one.pid, one.restarts, one.last_exit.clone())).collect();
        if now == before { Ok(()) } else { Err(now) }
    });
    assert_eq!(releases(&gateway), [row(1, "three", "failed"), row(2, "two", "current"), row(3, "one", "previous")]);
    let people = said(&gateway.cli(&["releases", "web"]));
    for word in ["DEPLOYED", "REASON", "FATAL: no table", "current", &dir("one")] {
        assert!(people.contains(word), "{word}: {people}");
    }

    let serves = async || get(gateway.http(), "a.test", "/").await.expect("an answer").text();
    for (to, wanted) in [("3", "one"), (&*dir("two"), "two")] {
        let done = gateway.cli(&["rollback", "web", "--to", to]);
        assert!(done.status.success(), "{}", said(&done));
        assert_eq!(serves().await, wanted);
    }
    for (to, why) in [("1", "never served"), ("9", "no release is called"), ("2", "serves already")] {
        let refused = gateway.cli(&["rollback", "web", "--to", to]);
        assert!(refused.status.code() == Some(1) && said(&refused).contains(why), "{to}: {}", said(&refused));
    }
    assert_eq!(gateway.cli(&["releases", "nobody"]).status.code(), Some(1));
    drop(gateway);
    std::fs::remove_dir_all(home).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_on_trial_leaves_restarts_and_last_exit_as_they_were() {
    let gateway = Gateway::start(&format!(
        "[app.web]\ncommand = \"{}\"\ndir = \".\"\nhealth = \"/healthz\"\ndeploy = {{ guard = \"30s\" }}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    let seen = |gateway: &Gateway| gateway.instances().iter().map(|one| (one.pid, one.restarts, one.last_exit.clone())).collect::<Vec<_>>();
    gateway.wait_app("web", "ready");
    let before = seen(&gateway);
    std::fs::create_dir(gateway.dir().join("next")).expect("a directory");
    let next = gateway.dir().join("next");
    std::thread::scope(|scope| {
        let deploy = scope.spawn(|| gateway.cli(&["deploy", "web", "--dir", &next.display().to_string()]));
        // On trial: it is killed.
        let new = eventually("the new one serves", secs(30), || {
            let rows = gateway.instances();
            let ready: Vec<_> = rows.iter().filter(|row| row.state == "ready").filter_map(|row| row.pid).collect();
            ready.iter().copied().find(|pid| Some(*pid) != before[0].0).filter(|_| ready.len() == 2).ok_or(rows)
        });
        crate::harness::proc::kill(new, nix::sys::signal::Signal::SIGKILL);
        let failed = deploy.join().expect("no panic");
        assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    });
    assert_eq!(seen(&gateway), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_as_json_have_the_shape_that_status_has_and_status_says_no_where_nothing_is_served() {
    let gateway = Gateway::start(&format!(
        "[app.web]\ncommand = \"{}\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    eventually("healthy", secs(20), || {
        let told = gateway.cli(&["status"]);
        if told.status.success() { Ok(()) } else { Err(said(&told)) }
    });
    let json = |words: &[&str]| serde_json::from_slice::<Value>(&gateway.cli(words).stdout).expect("json");
    let (apps, status) = (json(&["apps", "--json"]), json(&["status", "--json"]));
    let keys = |value: &Value| value.as_object().expect("a table").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&apps[0]), keys(&status["apps"][0]));
    assert_eq!(keys(&apps[0]["instances"][0]), keys(&status["apps"][0]["instances"][0]));
    assert_eq!((&apps[0]["name"], &apps[0]["instances"][0]["id"]), (&"web".into(), &"web.0".into()));
    assert!(gateway.cli(&["stop", "web"]).status.success());
    eventually("unhealthy", secs(20), || {
        let told = gateway.cli(&["status", "--json"]);
        let verdict = serde_json::from_slice::<Value>(&told.stdout).expect("json")["status"].clone();
        if told.status.code() == Some(1) && verdict == "unhealthy" { Ok(()) } else { Err((told.status.code(), verdict)) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_and_run_are_commands_and_what_is_not_permitted_is_77() {
    let gateway = Gateway::start("");
    let help = gateway.cli(&["help"]);
    assert!(help.status.success() && said(&help).contains("Exit codes:"), "{}", said(&help));
    assert!(said(&gateway.cli(&["help", "rollback"])).contains("--to"));
    // It would run, and another one has the state already.
    let second = gateway.cli(&["run"]);
    assert!(!second.status.success() && said(&second).contains("could not"), "{}", said(&second));
    if nix::unistd::Uid::effective().is_root() {
        use std::os::unix::process::CommandExt as _;
        let as_nobody = |words: &[&str]| {
            let config = gateway.dir().join("gateway.toml");
            let mut command = std::process::Command::new(crate::harness::binary());
            command.arg("-c").arg(config).args(words).env("NO_COLOR", "1").current_dir("/").uid(65534).gid(65534);
            command.output().expect("the binary runs")
        };
        let asked = as_nobody(&["status"]);
        assert_eq!(asked.status.code(), Some(77), "{}", said(&asked));
        let run = as_nobody(&["run"]);
        assert_eq!(run.status.code(), Some(77), "{}", said(&run));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_that_cannot_be_kept_is_said_and_in_force() {
    let gateway =
        Gateway::start("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n");
    // A directory in the place of the file: no disk takes it.
    let bans = gateway.state().join("edge/bans");
    std::fs::create_dir_all(bans.join("full")).expect("a directory");
    let told = gateway.cli(&["ban", "203.0.113.9"]);
    assert!(told.status.code() == Some(1) && said(&told).contains("could not be kept"), "{}", said(&told));
    assert!(said(&gateway.cli(&["bans"])).contains("203.0.113.9"));
    std::fs::remove_dir_all(&bans).expect("removed");
    let told = gateway.cli(&["ban", "203.0.113.10"]);
    assert!(told.status.success() && bans.is_file(), "{}", said(&told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_waits_for_no_deploy_of_an_app_that_it_leaves_alone() {
    let config = |guard: &str, body: &str, env: &str| {
        format!(
            "[app.web]\ncommand = \"{}\"\ndir = \".\"\nhealth = \"/healthz\"\nenv = {{ COLOUR = \"{env}\" }}\ndeploy = {{ guard = \"{guard}\" }}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[site.route.\"/said\"]\nrespond = {{ status = 200, body = \"{body}\" }}\n",
            demo_app("--port {port}")
        )
    };
    let gateway = Gateway::start(&config("6s", "one", "red"));
    gateway.wait_app("web", "ready");
    let old = gateway.pids("web");
    let next = gateway.dir().join("next");
    std::fs::create_dir(&next).expect("a directory");
    let environment = |pid: u32| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned();
    for (body, env, waits) in [("two", "red", false), ("three", "blue", true)] {
        let (deployed, reloaded) = std::thread::scope(|scope| {
            let deploy = scope.spawn(|| (gateway.cli(&["deploy", "web", "--dir", &next.display().to_string()]), std::time::Instant::now()));
            eventually("the new one is on trial", secs(30), || {
                let rows = gateway.instances();
                if rows.iter().filter(|row| row.state == "ready").count() == 2 { Ok(()) } else { Err(rows) }
            });
            gateway.reload(&config("6s", body, env)).expect("in force");
            let reloaded = std::time::Instant::now();
            let (said_of_it, deployed) = deploy.join().expect("no panic");
            assert!(said_of_it.status.success(), "{}", said(&said_of_it));
            (deployed, reloaded)
        });
        assert_eq!(reloaded > deployed, waits, "{body}");
        assert_eq!(get(gateway.http(), "a.test", "/said").await.expect("an answer").text(), body);
        // The release that was deployed serves, with the block that is in force.
        eventually("the new release, with the new block", secs(40), || {
            let rows = gateway.instances();
            let pids: Vec<_> = rows.iter().filter_map(|row| row.pid).collect();
            let cwd = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
            let good = pids.len() == 1 && !old.contains(&pids[0]) && cwd(pids[0]).as_ref() == Some(&next);
            if good && environment(pids[0]).contains(&format!("COLOUR={env}")) { Ok(()) } else { Err(rows) }
        });
    }
    assert_eq!(releases(&gateway)[0].1, "next");
}
