//! Health endpoints, metrics and the status page.

use http_body_util::Full;

use crate::harness::{
    Gateway,
    client::request,
    demo_app, get, send, upstream,
    wait::{eventually_async, secs},
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
