//! Processes that are killed while clients are being served.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::harness::{
    Gateway, Load, demo_app, eventually, get, heavy,
    load::How,
    proc,
    wait::{eventually_async, ms, secs},
};

fn web(more: &str) -> String {
    format!(
        r#"
[app.web]
command = "{}"
procs = 2
health = "/healthz"
{more}
[[site]]
host = "a.test"
tls = "off"
app = "web"
"#,
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_one_of_two_app_processes_under_load_is_seen_by_no_client() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&web(""));
    let mut pids: BTreeSet<u32> = gateway.wait_app("web", "ready").into_iter().filter_map(|i| i.pid).collect();
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 16).start();
    load.more(500).await;
    for round in 0..4 {
        let victim = *pids.first().expect("two processes");
        proc::kill(victim, Signal::SIGKILL);
        let now = eventually("both processes are ready again", secs(30), || {
            let all = gateway.instances();
            let ready = all.iter().filter(|i| i.state == "ready" && i.pid.is_some_and(|pid| pid != victim)).count();
            if ready == 2 { Ok(all) } else { Err(all) }
        });
        pids = now.iter().filter_map(|i| i.pid).collect();
        assert_eq!(pids.len(), 2, "round {round}");
        load.more(300).await;
    }
    load.stop().await.assert_all_200();

    let instances = gateway.instances();
    assert_eq!(instances.iter().map(|i| i.restarts).sum::<u64>(), 4, "{instances:?}");
    assert!(instances.iter().any(|i| i.last_exit.contains('9')), "the reason is recorded: {instances:?}");
    let on_disk: serde_json::Value =
        serde_json::from_slice(&std::fs::read(gateway.state().join("status.json")).expect("status.json")).expect("JSON");
    for pid in &pids {
        assert!(on_disk.to_string().contains(&pid.to_string()), "status.json does not know {pid}: {on_disk}");
    }
    gateway.counts("gateway_app_restarts_total", &["app=\"web\"", "reason=\"signal\""], 4.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_every_process_of_an_app_gives_503_with_retry_after_and_heals_by_itself() {
    let gateway = Gateway::start(&web("hold = \"off\"\nrestart = { delay = \"1s\" }"));
    let before = gateway.wait_app("web", "ready");
    for instance in &before {
        proc::kill(instance.pid.expect("alive"), Signal::SIGKILL);
    }
    let refused = eventually_async("503", secs(3), || async {
        let answer = get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
        if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
    });
    let refused = refused.await;
    let wait: u64 = refused.header("retry-after").parse().expect("Retry-After is a number of seconds");
    assert!((1..=120).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-frame-options"), "SAMEORIGIN");
    let healed = eventually_async("200 again, without a hand", secs(30), || async {
        let answer = get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    });
    healed.await;
    let after = gateway.wait_app("web", "ready");
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old.pid, new.pid);
        assert_eq!(new.restarts, old.restarts + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_exits_at_once_backs_off_then_cools_down_and_touches_no_other() {
    let gateway = Gateway::start(&format!(
        r#"{}
[app.bad]
command = ["sh", "-c", "exit 3"]
restart = {{ delay = "100ms", max_delay = "1s", budget = "4/1m" }}
"#,
        web("")
    ));
    let others = gateway.wait_app("web", "ready");
    let mut states = BTreeSet::new();
    eventually("the budget is spent", secs(30), || {
        let bad = gateway.instance("bad", 0);
        states.insert(bad.state.clone());
        if bad.state == "cooldown" { Ok(bad) } else { Err(bad) }
    });
    assert!(states.contains("backoff"), "{states:?}");
    let bad = gateway.instance("bad", 0);
    assert!(bad.last_exit.contains("exit 3") || bad.last_exit.contains('3'), "{bad:?}");
    assert!((3..=5).contains(&bad.restarts), "{bad:?}");
    let pids = |all: &[crate::harness::gateway::Instance]| all.iter().map(|i| (i.pid, i.restarts)).collect::<Vec<_>>();
    assert_eq!(pids(&gateway.wait_app("web", "ready")), pids(&others));
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200);
    // `start` tries at once, and does not wait for the cooldown to pass.
    let done = gateway.cli(&["start", "bad"]);
    assert!(done.status.code().is_some(), "{done:?}");
    eventually("it was tried again", secs(10), || {
        let now = gateway.instance("bad", 0);
        if now.restarts > bad.restarts || now.state != "cooldown" { Ok(()) } else { Err(now) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_edge_under_load_refuses_no_connection_and_touches_no_app() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&web(""));
    let apps = gateway.wait_app("web", "ready");
    let mut steady = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8);
    let steady_run = steady.start();
    steady.fresh = true;
    let fresh_run = steady.start();
    let mut healed = Vec::new();
    for _ in 0..3 {
        fresh_run.more(100).await;
        let old = gateway.edge();
        let begin = Instant::now();
        proc::kill(old, Signal::SIGKILL);
        // A connection made now waits in the accept queue; it is answered by the next edge.
        eventually_async("an answer from the next edge", secs(20), || async {
            match get(gateway.http(), "a.test", "/healthz").await {
                Ok(answer) if answer.status == 200 && gateway.edge_pid().is_some_and(|pid| pid != old) => Ok(()),
                Ok(answer) => Err(format!("{}", answer.status)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        healed.push(begin.elapsed());
    }
    fresh_run.more(100).await;
    steady_run.more(100).await;
    for tally in [steady_run.stop().await, fresh_run.stop().await] {
        assert_eq!(tally.refused, 0, "{tally:?}");
        // What was in flight on the dead edge is lost (at most one request a connection and kill); nothing else is.
        assert!(tally.broken <= 3 * 2 * 8, "{tally:?}");
        assert!(tally.answers.keys().all(|status| *status == 200), "{tally:?}");
    }
    healed.sort();
    assert!(healed[1] < secs(1), "serving again took {healed:?}");
    let now = gateway.wait_app("web", "ready");
    assert_eq!(apps.iter().map(|i| (i.pid, i.restarts)).collect::<Vec<_>>(), now.iter().map(|i| (i.pid, i.restarts)).collect::<Vec<_>>());
    gateway.counts("gateway_edge_restarts_total", &[], 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_master_leaves_nothing_alive_after_two_seconds() {
    let _turn = heavy().await;
    let mut gateway = Gateway::start(&format!("{}\n[app.worker]\ncommand = \"sleep 1000\"\nprocs = 3\n", web("")));
    gateway.wait_app("web", "ready");
    gateway.wait_app("worker", "ready");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8).start();
    load.more(200).await;
    let all = gateway.processes();
    assert!(all.len() >= 7, "master, edge, two web, three workers carry the mark: {}", proc::describe(&all));
    gateway.signal(Signal::SIGKILL);
    gateway.wait_end(secs(5));
    eventually("nothing is left", Duration::from_secs(2) + ms(200), || {
        let left = gateway.processes();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
    drop(load.stop().await);
}
