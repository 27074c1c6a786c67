//! `gateway why ID`: a request that failed, told to the one who runs the gateway and to nobody else.

use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Answer, Gateway,
    client::request,
    demo_app, eventually, get, proc, send, upstream,
    wait::{eventually_async, secs},
};

/// An app that dies of a POST with a stack trace, and hangs on /hang.
const FRAGILE: &str = r#"
import http.server, sys, time
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path == '/hang': time.sleep(60)
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def do_POST(self):
        import os, traceback
        try:
            raise KeyError('order \x1b[31m id')
        except KeyError:
            print('-- a secret cause', file=sys.stderr)
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
class S(http.server.ThreadingHTTPServer):
    daemon_threads = True
S(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
"#;

fn fragile() -> Gateway {
    Gateway::start_beside(
        &[("fragile.py", FRAGILE)],
        r#"
[app.web]
command = ["python3", "fragile.py", "{port}"]
dir = "."
health = "/healthz"
timeouts = { read = "1s" }
restart = { delay = "100ms", budget = "100/1m" }
[[site]]
host = "a.test"
tls = "off"
app = "web"
"#,
    )
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is known of the answer's request, once `enough` of it is.
fn why(gateway: &Gateway, answer: &Answer, enough: impl Fn(&Value) -> bool) -> Value {
    let id = answer.header("x-request-id");
    eventually("it is told", secs(20), || {
        let told = gateway.cli(&["why", id, "--json"]);
        match serde_json::from_slice::<Value>(&told.stdout) {
            Ok(account) if enough(&account) => Ok(account),
            Ok(_) | Err(_) => Err(text(&told)),
        }
    })
}

/// The page names the request and nothing of the cause.
fn tells_the_id_alone(answer: &Answer) {
    let id = answer.header("x-request-id");
    let page = answer.text();
    assert!(!id.is_empty() && page.contains(id), "{page}");
    for secret in ["web", "secret", "exit", "python", "127.0.0.1", "refused", "Traceback"] {
        assert!(!page.contains(secret), "{secret}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_of_a_post_is_named_with_its_exit_and_its_last_words() {
    let gateway = fragile();
    for round in 0..2 {
        let pid = gateway.wait_app("web", "ready")[0].pid.expect("alive");
        let asked = request("POST", "a.test", "/orders?token=secret").body(Full::from("{}")).expect("a request");
        let answer = send(gateway.http(), asked).await.expect("an answer");
        assert_eq!(answer.status, 502);
        tells_the_id_alone(&answer);
        let account = why(&gateway, &answer, |account| {
            account["process"]["end"].is_object() && account["process"]["stderr"].as_array().is_some_and(|lines| lines.len() >= 4)
        });
        let (asked, process) = (&account["request"], &account["process"]);
        assert_eq!((&asked["status"], &asked["method"], &asked["path"]), (&502.into(), &"POST".into(), &"/orders".into()), "{account}");
        assert_eq!((&asked["app"], &asked["server"], &asked["n"]), (&"web".into(), &"web.0".into(), &0.into()), "{account}");
        assert_eq!((&asked["site"], &asked["fault"], &asked["tries"]), (&"a.test".into(), &"reset".into(), &1.into()), "{account}");
        assert_eq!((&process["instance"], &process["pid"]), (&"web.0".into(), &pid.into()), "{account}");
        assert_eq!((&process["restart"], &process["end"]["code"]), (&round.into(), &3.into()), "{account}");
        assert_eq!((&process["end"]["how"], &process["end"]["oom"]), (&"exit 3".into(), &false.into()), "{account}");

        let people = gateway.cli(&["why", answer.header("x-request-id")]);
        assert!(people.status.success(), "{people:?}");
        let people = text(&people);
        for word in ["502 for POST /orders", "web.0", &format!("pid {pid}"), "exit 3", "Traceback", "KeyError", "next:", "gateway logs web"]
        {
            assert!(people.contains(word), "{word}: {people}");
        }
        assert!(!people.contains('\u{1b}') && !people.contains("token"), "{people:?}");
        let restart = if round == 0 { "its first start" } else { "restart 1" };
        assert!(people.contains(restart), "{people}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_hangs_a_process_that_is_killed_and_an_app_that_is_stopped() {
    let gateway = fragile();
    let pid = gateway.wait_app("web", "ready")[0].pid.expect("alive");
    let answer = get(gateway.http(), "a.test", "/hang").await.expect("an answer");
    assert_eq!(answer.status, 504);
    tells_the_id_alone(&answer);
    let account = why(&gateway, &answer, |account| account["request"].is_object());
    let asked = &account["request"];
    assert_eq!((&asked["fault"], &asked["deadline_ms"]), (&"read_timeout".into(), &1000.into()), "{account}");
    assert!(asked["upstream_ms"].as_u64() >= Some(900) && asked["connect_ms"].is_u64(), "{account}");
    assert_eq!((&account["process"]["end"], &account["process"]["pid"]), (&Value::Null, &pid.into()), "it lives: {account}");
    let people = text(&gateway.cli(&["why", answer.header("x-request-id")]));
    assert!(people.contains("did not begin to answer within 1000 ms") && people.contains("it still runs"), "{people}");

    let addr = gateway.http();
    proc::kill(pid, Signal::SIGKILL);
    let next = eventually("another one", secs(20), || {
        let now = gateway.instance("web", 0);
        if now.state == "ready" && now.pid != Some(pid) { Ok(now) } else { Err(now) }
    });
    assert!(next.last_exit.contains("signal 9"), "{next:?}");
    // Asked of again, the hung request's process is known to have died since.
    let account = why(&gateway, &answer, |account| account["process"]["end"].is_object());
    assert_eq!(account["process"]["end"]["signal"], 9, "{account}");

    assert!(gateway.cli(&["stop", "web"]).status.success());
    let answer = eventually_async("503", secs(10), || async {
        let answer = get(addr, "a.test", "/healthz").await.expect("an answer");
        if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
    })
    .await;
    tells_the_id_alone(&answer);
    let account = why(&gateway, &answer, |account| account["now"][0]["state"] == "stopped");
    assert_eq!((&account["request"]["fault"], &account["request"]["tries"]), (&"no_server".into(), &0.into()), "{account}");
    assert!(account["process"]["end"].is_object(), "the one that ended before is told: {account}");
    let people = text(&gateway.cli(&["why", answer.header("x-request-id")]));
    assert!(people.contains("nothing of web was up") && people.contains("gateway start web"), "{people}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_route_is_told_to_answer_is_no_failure_and_an_edge_that_is_new_says_since_when() {
    let (bad, nobody) = (upstream::fails_with(503).await, upstream::refuses().await);
    let gateway = Gateway::start(&format!(
        r#"
[app.web]
command = "{}"
health = "/healthz"
[upstream.bad]
servers = ["{}"]
[upstream.gone]
servers = ["{nobody}"]
[[site]]
host = "a.test"
tls = "off"
app = "web"
[site.route."/bad"]
upstream = "bad"
[site.route."/gone"]
upstream = "gone"
[site.route."/told"]
respond = {{ status = 503, body = "closed" }}
"#,
        demo_app("--port {port}"),
        bad.addr
    ));
    gateway.wait_app("web", "ready");
    let unknown = |id: &str| {
        let told = gateway.cli(&["why", id]);
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        assert!(
            text(&told).contains("no failed request of this id is remembered: the last 4096 are, since the edge was started at 2"),
            "{told:?}"
        );
    };
    for path in ["/told", "/healthz"] {
        let answer = get(gateway.http(), "a.test", path).await.expect("an answer");
        unknown(answer.header("x-request-id"));
    }
    for (path, server) in [("/bad", bad.addr.to_string()), ("/status/502", "web.0".to_owned())] {
        let answer = get(gateway.http(), "a.test", path).await.expect("an answer");
        let account = why(&gateway, &answer, |account| account["request"].is_object());
        assert_eq!((&account["request"]["fault"], &account["request"]["server"]), (&"answered".into(), &server.into()), "{account}");
    }
    unknown("4bf92f3577b34da6a3ce929d0e0e4736");
    for id in ["two words", "\u{1b}[31m", &"x".repeat(129), ""] {
        assert_eq!(gateway.cli(&["why", id]).status.code(), Some(64), "{id:?}");
    }

    let answer = get(gateway.http(), "a.test", "/gone/a%20b?q=1").await.expect("an answer");
    assert_eq!(answer.status, 502);
    let account = why(&gateway, &answer, |account| account["request"].is_object());
    let asked = &account["request"];
    assert_eq!((&asked["fault"], &asked["server"]), (&"connect_refused".into(), &nobody.to_string().into()), "{account}");
    assert_eq!((&asked["app"], &account["process"], &asked["path"]), (&Value::Null, &Value::Null, &"/gone/a%20b".into()), "{account}");

    let edge = gateway.edge();
    proc::kill(edge, Signal::SIGKILL);
    eventually_async("the next edge answers", secs(20), || async {
        let answer = get(gateway.http(), "a.test", "/healthz").await.map(|answer| answer.status.as_u16());
        if gateway.edge_pid().is_some_and(|pid| pid != edge) && answer.as_ref().is_ok_and(|status| *status == 200) {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    unknown(answer.header("x-request-id"));
}
