//! What is left of what happened: series, records, releases.

use crate::harness::{Gateway, demo_app, get, wait::secs};

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
