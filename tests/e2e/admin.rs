//! Health endpoints, metrics and the status page.

use http_body_util::Full;

use crate::harness::{
    Gateway,
    client::request,
    demo_app, get, send, upstream,
    wait::{eventually, eventually_async, secs},
};

fn config(more: &str) -> String {
    format!(
        "[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n{more}",
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_endpoints_have_the_shapes_that_monitors_expect() {
    let gateway = Gateway::start(&config(""));
    gateway.wait_app("web", "ready");
    let admin = gateway.admin();
    for _ in 0..3 {
        get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
    }
    let ask = async |path: &str| get(admin, "localhost", path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    eventually_async("healthy", secs(10), || async {
        let health = ask("/health").await;
        if health.status == 200 && health.json()["status"] == "healthy" { Ok(()) } else { Err(health.text()) }
    })
    .await;
    let health = ask("/health").await.json();
    assert!(
        health["message"].is_string() && health["timestamp"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')),
        "{health}"
    );
    assert_eq!(ask("/health/live").await.status, 200);
    assert_eq!(ask("/health/ready").await.status, 200);
    let detailed = ask("/health/detailed").await.json().to_string();
    for word in ["apps", "upstreams", "certificates", "disk", "uptime", "error_rate"] {
        assert!(detailed.contains(word), "{word}: {detailed}");
    }
    let figures = ask("/health/metrics").await.json().to_string();
    for word in ["cpu", "memory", "disk", "uptime", "requests", "errors", "error_rate"] {
        assert!(figures.contains(word), "{word}: {figures}");
    }
    assert_eq!(ask("/api/status").await.status, 200);
    assert!(ask("/api/status").await.json().is_object());
    let page = ask("/").await;
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"), "{page:?}");
    assert_eq!(ask("/nothing").await.status, 404);

    // Nothing serves the site: not ready, and unhealthy says so.
    assert!(gateway.cli(&["stop", "web"]).status.success());
    eventually_async("not ready", secs(20), || async {
        let ready = ask("/health/ready").await.status;
        let health = ask("/health").await.status;
        if ready == 503 && health == 503 { Ok(()) } else { Err((ready, health)) }
    })
    .await;
    assert_eq!(ask("/health/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_parse_and_hold_every_family_of_the_contract() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&config(&format!(
        "zone = \"api\"\n[zone.api]\nrate = \"1000r/s\"\nburst = 100\n[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n",
        echo.addr
    )));
    gateway.wait_app("web", "ready");
    get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
    let tls = crate::harness::tls::TlsClient::internal(&gateway);
    let mut conn = crate::harness::Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    conn.send(request("GET", "localhost", "/").body(Full::default()).expect("a request")).await.expect("an answer");
    let answer = get(gateway.admin(), "localhost", "/metrics").await.expect("an answer");
    assert!(answer.header("content-type").starts_with("text/plain"), "{}", answer.header("content-type"));
    let text = answer.text();
    parse(&text);
    for family in [
        "gateway_http_requests_total",
        "gateway_http_request_duration_seconds",
        "gateway_http_received_bytes_total",
        "gateway_http_sent_bytes_total",
        "gateway_http_in_flight",
        "gateway_connections",
        "gateway_connections_total",
        "gateway_tls_handshakes_total",
        "gateway_tls_handshake_seconds",
        "gateway_zone_requests_total",
        "gateway_zone_keys",
        "gateway_upstream_up",
        "gateway_upstream_requests_total",
        "gateway_upstream_duration_seconds",
        "gateway_upstream_in_flight",
        "gateway_upstream_panic",
        "gateway_app_up",
        "gateway_app_state",
        "gateway_app_memory_bytes",
        "gateway_config_generation",
        "gateway_edge_restarts_total",
        "gateway_build_info",
        "gateway_node_memory_total_bytes",
        "gateway_node_load1",
        "process_",
    ] {
        assert!(text.lines().any(|line| line.starts_with(family)), "{family} is missing");
    }
}

/// The Prometheus text form, line by line: every series has a type, a name, labels in quotes and a number; none stands twice.
fn parse(text: &str) {
    let mut types = std::collections::BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            continue;
        }
        if line.starts_with('#') {
            assert!(line.starts_with("# HELP "), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok() || ["+Inf", "-Inf", "NaN"].contains(&value), "{line}");
        assert!(seen.insert(series.to_owned()), "twice: {line}");
        let name = series.split('{').next().expect("a name");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':'), "{line}");
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| types.contains_key(*base))
            .unwrap_or(name);
        assert!(types.contains_key(base), "no TYPE for {line}");
        if let Some(labels) = series.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')).and_then(|rest| rest.strip_suffix('}')) {
            assert_eq!(labels.matches('"').count() % 2, 0, "{line}");
        }
    }
    assert!(seen.len() > 30, "only {} series", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_required_where_one_is_set() {
    let gateway = Gateway::start(&config("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"let-me-in-0123456789\"\n"));
    let admin = gateway.admin();
    let with = |token: &str| {
        request("GET", "localhost", "/metrics").header("authorization", format!("Bearer {token}")).body(Full::default()).expect("a request")
    };
    assert_eq!(get(admin, "localhost", "/metrics").await.expect("an answer").status, 401);
    assert_eq!(send(admin, with("wrong")).await.expect("an answer").status, 401);
    assert_eq!(send(admin, with("let-me-in-0123456789")).await.expect("an answer").status, 200);
    assert!(!gateway.output().contains("let-me-in"), "a secret is in the log");
    let shown = gateway.cli(&["config", "show"]);
    assert!(shown.status.success() && !String::from_utf8_lossy(&shown.stdout).contains("let-me-in"), "{shown:?}");
}

/// What an app ails from is told once: its site and its upstream follow from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_is_one_item_on_the_page_and_in_status() {
    let gateway = Gateway::start(
        "[app.web]\ncommand = [\"sh\", \"-c\", \"exit 3\", \"{port}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[[site]]\nhost = \"b.test\"\ntls = \"off\"\napp = \"web\"\n",
    );
    let status = eventually("the app is in trouble", secs(20), || {
        let status = gateway.status();
        let what = status["faults"][0]["what"].as_str().unwrap_or_default();
        if what.starts_with("app web: web.0 ") && what.contains("exit 3") { Ok(status) } else { Err(status["faults"].clone()) }
    });
    assert_eq!(status["faults"].as_array().map(Vec::len), Some(1), "{}", status["faults"]);
    assert_eq!(status["faults"][0]["so"], serde_json::json!(["site a.test is not served", "site b.test is not served"]));
    let page = get(gateway.admin(), "localhost", "/").await.expect("a page").text();
    let list = page.split_once("<ul class=faults>").and_then(|(_, rest)| rest.split_once("</ul>")).expect("a list").0;
    assert_eq!((list.matches("<li").count(), list.matches("app web").count(), list.matches("is not served").count()), (1, 1, 2), "{list}");
    assert!(!page.contains("has no server that is up"), "the same, said again: {page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_over_the_socket_has_the_rates_of_the_last_minute() {
    let gateway =
        Gateway::start("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n");
    for _ in 0..20 {
        assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
    }
    eventually("a minute has begun", secs(20), || {
        let recent = gateway.status()["traffic"]["recent"]["requests_per_second"].as_f64().unwrap_or_default();
        if recent > 0.0 { Ok(()) } else { Err(gateway.status()["traffic"].clone()) }
    });
}

/// An edge without a descriptor to spare has listeners, and accepts nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_accepts_nobody_is_not_said_to_accept() {
    // Only of its own user may a process limit another's descriptors.
    let user = if nix::unistd::Uid::effective().is_root() { "user = \"root\"\n" } else { "" };
    let gateway = Gateway::start(&format!(
        "{user}{}",
        "[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n"
    ));
    let edge = gateway.edge().to_string();
    let limit = |soft: &str| {
        let done =
            std::process::Command::new("prlimit").args(["--pid", &edge, &format!("--nofile={soft}:")]).status().expect("prlimit runs");
        assert!(done.success());
    };
    let accepts = || -> Vec<bool> {
        let status = gateway.status();
        let http = status["listeners"].as_array().into_iter().flatten().filter(|listener| listener["role"] == "http");
        http.filter_map(|listener| listener["accepting"].as_bool()).collect()
    };
    assert_eq!(accepts(), [true]);
    limit("3");
    // On every thread's socket there waits one.
    let waiting: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(gateway.http()).expect("the kernel takes it")).collect();
    eventually("it says that nobody is accepted", secs(20), || {
        if accepts() == [false] { Ok(()) } else { Err(gateway.status()["listeners"].clone()) }
    });
    let status = gateway.status();
    assert_eq!(status["status"], "unhealthy", "{status}");
    assert!(
        status["message"].as_str().is_some_and(|message| message.starts_with("listener http ") && message.contains("does not accept")),
        "{status}"
    );
    limit("4096");
    drop(waiting);
    eventually("it accepts again", secs(20), || if accepts() == [true] { Ok(()) } else { Err(gateway.status()["listeners"].clone()) });
}
