use std::time::Duration;

use super::*;
use crate::{
    ipc::message::{Duty, Incarnation, Instance, InstanceId},
    rules::job::{Counts, Record},
    telemetry::{LookedAfter, Ordered, metric::NO_SITE},
    vocab::AppName,
};

/// The names and labels that scripts and dashboards rely on; a scrape may have more, never less.
const CONTRACT: &str = "
gateway_http_requests_total{site,code}
gateway_http_request_duration_seconds{site}
gateway_http_received_bytes_total{site}
gateway_http_sent_bytes_total{site}
gateway_http_in_flight{site}
gateway_connections{listener}
gateway_connections_total{listener}
gateway_connections_refused_total{listener,reason}
gateway_tls_handshakes_total{result}
gateway_tls_handshake_seconds{}
gateway_zone_requests_total{zone,result}
gateway_zone_keys{zone}
gateway_zone_waiting{zone}
gateway_filter_hits_total{filter,site,result}
gateway_upstream_up{upstream,server}
gateway_upstream_requests_total{upstream,server,code}
gateway_upstream_duration_seconds{upstream}
gateway_upstream_in_flight{upstream,server}
gateway_upstream_retries_total{upstream}
gateway_upstream_panic{upstream}
gateway_app_up{app,process}
gateway_app_state{app,process,state}
gateway_app_restarts_total{app,reason}
gateway_app_runs_total{app,result}
gateway_app_last_success_timestamp_seconds{app}
gateway_app_cpu_seconds_total{app,process}
gateway_app_memory_bytes{app,process}
gateway_app_held_requests{app}
gateway_app_hold_seconds{app}
gateway_certificate_not_after_timestamp_seconds{host}
gateway_certificate_at_risk{host}
gateway_certificate_problem{host}
gateway_acme_orders_total{result}
gateway_config_reloads_total{result}
gateway_config_generation{}
gateway_edge_restarts_total{}
gateway_build_info{version}
gateway_node_cpu_usage_ratio{}
gateway_node_memory_total_bytes{}
gateway_node_memory_available_bytes{}
gateway_node_disk_free_bytes{mount}
gateway_node_disk_total_bytes{mount}
gateway_node_load1{}
";

fn upstream(name: &str) -> UpstreamName {
    UpstreamName::parse(name).expect("valid")
}

fn table() -> AppTable {
    let app = AppName::parse("web").expect("valid");
    let instance = |n, state, pid| Instance {
        id: InstanceId { app: app.clone(), n },
        incarnation: Incarnation(1),
        state,
        duty: Duty::Serves,
        release: None,
        since_ms: 0,
        pid,
        addr: None,
        restarts: 0,
        last_exit: None,
        last_restart_ms: None,
        due_ms: None,
        manual: false,
        note: None,
        cpu_ms: 1_500,
        memory_bytes: 4096,
    };
    AppTable {
        instances: vec![instance(0, InstanceState::Ready, Some(7)), instance(1, InstanceState::Backoff, None)],
        restarts: BTreeMap::from([(app.clone(), BTreeMap::from([("exit".to_owned(), 2), ("signal".to_owned(), 1)]))]),
        edge_restarts: 3,
        jobs: BTreeMap::from([(
            AppName::parse("nightly").expect("valid"),
            Record {
                counts: Counts { succeeded: 4, failed: 1, stopped: 0, skipped: 2, missed: 1 },
                succeeded_ms: Some(1_700_000_000_500),
                ..Record::default()
            },
        )]),
    }
}

/// Everything has a series; the guards that are given back keep it so.
fn busy() -> (Metrics, Vec<Box<dyn std::any::Any>>) {
    let metrics = Metrics::new();
    let site = metrics.site("example.com");
    site.done(200, Duration::from_micros(900), 10, 2_000);
    site.done(404, Duration::from_millis(40), 0, 100);
    let none = metrics.site(NO_SITE);
    none.done(421, Duration::from_micros(10), 0, 50);
    let zone = metrics.zone(&ZoneName::parse("api").expect("valid"));
    zone.passed();
    zone.rejected();
    zone.set(1, 2);
    let filter = metrics.filter("bad-uri", "example.com");
    filter.rejected();
    let family = metrics.family("sql", "example.com");
    family.would_reject();
    metrics.bans().banned("bad-uri");
    metrics.bans().set_held(1);
    metrics.bans().rejected();
    let api = metrics.upstream(&upstream("api"));
    api.answered(Duration::from_millis(7));
    api.retried();
    let server = metrics.server(&upstream("api"), "10.0.0.5:8000");
    server.set_up(true);
    server.done(200);
    let room = metrics.hold(&AppName::parse("web").expect("valid"));
    room.entered();
    let listener = metrics.listener("127.0.0.1:8443".parse().expect("valid"));
    listener.refused(Refusal::Full);
    metrics.tls().done(Handshake::Done, Duration::from_millis(2));
    metrics.tls().done(Handshake::Closed, Duration::from_millis(2));
    metrics.apps(&table());
    metrics.certificates([("example.com".to_owned(), 1_800_000_000)]);
    metrics.spoilt_certificates([("example.com".to_owned(), true)]);
    metrics.looked_after([
        ("acme.example".to_owned(), LookedAfter { not_after: Some(1_790_000_000), at_risk: false }),
        ("new.example".to_owned(), LookedAfter { not_after: None, at_risk: true }),
    ]);
    metrics.acme().ordered(Ordered::Failed);
    metrics.acme().ordered(Ordered::Rehearsed);
    metrics.generation(2);
    metrics.reloads(1, 0);
    metrics.reload_refused();
    let held: Vec<Box<dyn std::any::Any>> = vec![
        Box::new(site.begin()),
        Box::new(none),
        Box::new(zone),
        Box::new(filter),
        Box::new(family),
        Box::new(api),
        Box::new(room),
        Box::new(server.begin()),
        Box::new(listener.open()),
    ];
    (metrics, held)
}

fn text(metrics: &Metrics) -> String {
    let mut out = String::new();
    metrics.render(&mut out);
    out
}

#[test]
fn a_scrape_reads_like_this() {
    let (metrics, _held) = busy();
    // The machine's own figures differ from run to run.
    let stable = |line: &&str| !line.starts_with("process_") && !line.starts_with("gateway_node_") && !line.starts_with("# HELP process_");
    let text: Vec<_> = text(&metrics).lines().filter(stable).map(str::to_owned).collect();
    let version = format!("version={:?}", env!("CARGO_PKG_VERSION"));
    insta::assert_snapshot!(text.join("\n").replace(&version, "version=\"…\""));
}

#[test]
fn every_metric_of_the_contract_is_in_the_table_with_help_and_the_right_suffix() {
    let ours: Vec<_> = TABLE.iter().map(|metric| format!("{}{{{}}}", metric.name, metric.labels.join(","))).collect();
    for promised in CONTRACT.split_whitespace() {
        assert!(ours.iter().any(|name| name == promised), "{promised} is missing");
    }
    for metric in TABLE {
        let Metric { name, kind, help, .. } = metric;
        assert!(help.len() > 5 && help.ends_with('.'), "{name}: {help:?}");
        assert!(name.starts_with("gateway_") && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}: counters and only they end in _total");
        assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        assert_eq!(TABLE.iter().filter(|other| other.name == *name).count(), 1, "{name} twice");
    }
}

#[test]
fn no_label_is_one_that_prometheus_gives_to_every_target() {
    for metric in TABLE {
        assert!(!metric.labels.iter().any(|label| ["instance", "job"].contains(label)), "{}", metric.name);
    }
}

#[test]
fn the_first_failure_of_a_site_is_an_increase_and_no_new_series() {
    let metrics = Metrics::new();
    let site = metrics.site("a.test");
    assert!(text(&metrics).contains(r#"gateway_http_requests_total{site="a.test",code="502"} 0"#));
    site.done(502, Duration::ZERO, 0, 0);
    site.done(777, Duration::ZERO, 0, 0);
    let after = text(&metrics);
    let codes: Vec<_> = after.lines().filter_map(|line| line.strip_prefix(r#"gateway_http_requests_total{site="a.test",code=""#)).collect();
    let wanted = [
        "200\"} 0",
        "301\"} 0",
        "400\"} 0",
        "403\"} 0",
        "404\"} 0",
        "429\"} 0",
        "500\"} 0",
        "502\"} 1",
        "503\"} 0",
        "504\"} 0",
        "other\"} 1",
    ];
    assert_eq!(codes, wanted);
}

#[test]
fn every_metric_of_the_table_is_written_once() {
    let (metrics, _held) = busy();
    let text = text(&metrics);
    for metric in TABLE {
        assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1, "{}", metric.name);
    }
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn series_of_a_site_that_is_gone_go_away_and_its_requests_stay_in_the_sum() {
    let metrics = Metrics::new();
    let old = metrics.site("old.example");
    old.done(500, Duration::ZERO, 0, 7);
    let request = metrics.site("old.example");
    drop(old);
    assert!(text(&metrics).contains("old.example"), "a request still runs on it");
    drop(request);
    assert!(!text(&metrics).contains("old.example"));
    let totals = metrics.totals();
    assert_eq!((totals.requests, totals.errors, totals.sent_bytes), (1, 1, 7));
}

#[test]
fn a_handle_that_a_reload_carries_over_counts_on() {
    let metrics = Metrics::new();
    let old = metrics.server(&upstream("api"), "web.0");
    old.done(200);
    let new = metrics.server(&upstream("api"), "web.0");
    drop(old);
    new.done(200);
    assert!(text(&metrics).contains(r#"gateway_upstream_requests_total{upstream="api",server="web.0",code="200"} 2"#));
}

#[test]
fn what_is_in_flight_is_given_back() {
    let metrics = Metrics::new();
    let site = metrics.site("a");
    let guards: Vec<_> = (0..3).map(|_| site.begin()).collect();
    assert_eq!(metrics.totals().in_flight, 3);
    drop(guards);
    assert_eq!(metrics.totals().in_flight, 0);
}

#[test]
fn a_thousand_unknown_hosts_add_no_series() {
    let metrics = Metrics::new();
    let none = metrics.site(NO_SITE);
    none.done(421, Duration::ZERO, 0, 0);
    let before = text(&metrics).lines().count();
    for _ in 0..1_000 {
        none.done(421, Duration::ZERO, 0, 0);
    }
    assert_eq!(text(&metrics).lines().count(), before);
}

/// Units: nanoseconds of one request's part on one thread. The bound is loose, for a build without full optimisation on a loaded machine.
#[test]
fn counting_a_request_costs_next_to_nothing() {
    let metrics = Metrics::new();
    let (site, api, server, zone) = (
        metrics.site("a"),
        metrics.upstream(&upstream("api")),
        metrics.server(&upstream("api"), "web.0"),
        metrics.zone(&ZoneName::parse("api").expect("valid")),
    );
    let best = (0..20)
        .map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..10_000 {
                let _site = site.begin();
                let _server = server.begin();
                zone.passed();
                server.done(200);
                api.answered(Duration::from_micros(700));
                site.done(200, Duration::from_micros(900), 0, 1_000);
            }
            start.elapsed() / 10_000
        })
        .min()
        .expect("twenty rounds");
    println!("{best:?} a request");
    assert!(best < Duration::from_micros(2), "{best:?}");
}
