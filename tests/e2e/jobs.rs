//! Apps with a schedule: when they run, what is kept of a run, and what is said of the times without one.

use std::{fs, time::SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Gateway, child, eventually, proc, wait::secs};

/// Due once a year: it runs when it is told to.
fn job(name: &str, command: &str, more: &str) -> String {
    let schedule = if more.contains("schedule") { "" } else { "schedule = \"@yearly\"" };
    format!("[app.{name}]\ncommand = {command}\n{schedule}\n{more}\n")
}

fn sh(script: &str) -> String {
    format!("[\"sh\", \"-c\", '''{script}''']")
}

/// What is kept of it.
fn record(gateway: &Gateway, name: &str) -> Value {
    gateway.ask(&json!({ "command": "apps" })).expect("apps answers")["jobs"][name].clone()
}

/// The last run, once there are so many.
fn run(gateway: &Gateway, name: &str, runs: u64) -> Value {
    eventually("the run is over", secs(20), || {
        let record = record(gateway, name);
        let over: u64 = ["succeeded", "failed", "stopped"].iter().filter_map(|result| record["counts"][result].as_u64()).sum();
        if over == runs { Ok(record["last"].clone()) } else { Err(record) }
    })
}

fn start(gateway: &Gateway, name: &str) {
    let started = gateway.cli(&["start", name]);
    assert!(started.status.success(), "{started:?}");
}

fn said(gateway: &Gateway, any: &[&str]) {
    let heard = || any.iter().any(|text| gateway.output().contains(text));
    eventually(&format!("{any:?} is said"), secs(75), || if heard() { Ok(()) } else { Err("not yet") });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_its_time_and_its_exit_and_last_lines_are_kept() {
    let config = format!(
        "{}{}[log]\ndir = \"logs\"\n",
        job("nightly", &sh("echo begins; echo no space left >&2; exit 4"), ""),
        job("good", &sh("exit 3"), "restart = { success = [3] }")
    );
    let gateway = Gateway::start(&config);
    let waiting = gateway.wait_app("nightly", "stopped").remove(0);
    assert_eq!((waiting.pid, waiting.last_exit.as_str()), (None, "null"), "it is not started by itself");
    start(&gateway, "nightly");
    let last = run(&gateway, "nightly", 1);
    assert_eq!((last["exit"].as_str(), last["outcome"].as_str()), (Some("exit 4"), Some("failed")), "{last}");
    let mut lines: Vec<&str> = last["lines"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["begins", "no space left"]);
    assert!(last["ended_ms"].as_i64() >= last["started_ms"].as_i64(), "{last}");
    let text = eventually("its log has both lines", secs(10), || {
        let text = fs::read_to_string(gateway.dir().join("logs/nightly.log")).unwrap_or_default();
        if text.contains("begins") && text.contains("no space left") { Ok(text) } else { Err(text) }
    });
    assert_eq!(text.lines().count(), 2, "{text}");
    let errors = eventually("the failure is an error", secs(10), || {
        let text = fs::read_to_string(gateway.dir().join("logs/error.log")).unwrap_or_default();
        if text.contains("job failed") { Ok(text) } else { Err(text) }
    });
    assert!(errors.contains("exit 4") && errors.contains("nightly"), "{errors}");

    start(&gateway, "good");
    assert_eq!(run(&gateway, "good", 1)["outcome"], "succeeded");
    gateway.counts("gateway_app_runs_total", &["app=\"nightly\"", "result=\"failed\""], 1.0).await;
    gateway.counts("gateway_app_runs_total", &["app=\"good\"", "result=\"succeeded\""], 1.0).await;
    assert!(!gateway.metrics().await.iter().any(|line| line.starts_with("gateway_app_up{")), "a job that waits is not down");
    let shown = String::from_utf8_lossy(&gateway.cli(&["apps"]).stdout).into_owned();
    assert!(shown.contains("nightly.0") && shown.contains("exit 4") && shown.contains("starts in"), "{shown}");
    let status: Value = eventually("status.json has it", secs(10), || {
        let text = fs::read_to_string(gateway.state().join("status.json")).unwrap_or_default();
        let status: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        if status["apps"]["nightly"]["job"]["last"]["exit"] == "exit 4" { Ok(status) } else { Err(text) }
    });
    assert!(!status.to_string().contains("no space left"), "what a job wrote is not for everybody");
    let all = gateway.status();
    let shown = all["apps"].as_array().into_iter().flatten().find(|app| app["name"] == "nightly").expect("in the status");
    assert_eq!((&shown["job"]["last"]["exit"], &shown["job"]["runs"]["failed"]), (&json!("exit 4"), &json!(1)), "{shown}");
    let message = all["message"].to_string();
    assert!(message.contains("nightly.0 failed (exit 4"), "its failure shows until a run succeeds: {message}");
    assert!(!message.contains("good"), "waiting is no ailment: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_never_overlaps_itself_and_stop_ends_its_whole_family() {
    let gateway = Gateway::start(&job("long", &child::leaves_grandchildren(), "stop = { timeout = \"5s\" }"));
    start(&gateway, "long");
    let leader = gateway.wait_app("long", "ready")[0].pid.expect("it runs");
    let family = eventually("it has children", secs(5), || Some(proc::children(leader)).filter(|all| all.len() >= 2).ok_or("too few"));
    let again = gateway.cli(&["start", "long"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("runs already"), "{again:?}");
    let stopped = gateway.cli(&["stop", "long"]);
    assert!(stopped.status.success(), "{stopped:?}");
    eventually("nothing of it is left", secs(10), || {
        let left: Vec<u32> = family.iter().chain([&leader]).copied().filter(|pid| proc::alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
    assert_eq!(run(&gateway, "long", 1)["outcome"], "stopped");
    assert!(gateway.cli(&["stop", "long"]).status.success(), "stopping what does not run is no failure");
    assert!(gateway.cli(&["restart", "long"]).status.success());
    let second = gateway.wait_app("long", "ready")[0].pid;
    assert!(gateway.cli(&["restart", "long"]).status.success());
    let third = gateway.wait_app("long", "ready")[0].pid;
    assert!(second.is_some() && third.is_some() && second != third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_takes_too_long_is_told_to_stop_and_then_killed() {
    let more = "schedule = { cron = \"@yearly\", zone = \"UTC\", timeout = \"1s\" }\nstop = { timeout = \"1s\" }";
    let gateway = Gateway::start(&job("slow", &child::ignores_term(), more));
    start(&gateway, "slow");
    let last = run(&gateway, "slow", 1);
    assert_eq!((last["exit"].as_str(), last["outcome"].as_str()), (Some("timed out after 1s: signal 9 (KILL)"), Some("failed")));
    assert!(last["took_ms"].as_u64().is_some_and(|ms| ms >= 1900), "{last}");
}

/// Its record says that everything up to so many seconds ago is accounted for.
fn put_back(gateway: &Gateway, name: &str, seconds: u64) {
    let path = gateway.state().join(format!("jobs/{name}.json"));
    let mut kept: Value = serde_json::from_slice(&fs::read(&path).expect("a record")).expect("json");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    kept["until_ms"] = json!(u64::try_from(now).expect("before the sun dies") - seconds * 1000);
    fs::write(path, kept.to_string()).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_runs_what_was_missed_is_said_and_what_comes_meanwhile_is_skipped() {
    let config = format!(
        "{}{}",
        job("minutely", &sh("echo tick; exec sleep 1000"), "schedule = \"* * * * *\""),
        job("hourly", &sh("exit 0"), "schedule = { cron = \"0 * * * *\", zone = \"UTC\" }")
    );
    let mut gateway = Gateway::start(&config);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(20)).code(), Some(0));
    // A minute has begun within the last 60 seconds: that one is still kept, those before it are missed.
    put_back(&gateway, "minutely", 600);
    put_back(&gateway, "hourly", 3 * 3600 + 1800);
    gateway.start_again();
    let pid = gateway.wait_app("minutely", "ready")[0].pid.expect("it runs");
    // Ten where another minute began meanwhile.
    said(&gateway, &["missed 9 runs since", "missed 10 runs since"]);
    let missed = record(&gateway, "hourly")["counts"]["missed"].as_u64().expect("a number");
    assert!((2..=4).contains(&missed), "{missed}");
    // The next minute comes by itself.
    said(&gateway, &["skipped: the run of"]);
    assert!(record(&gateway, "minutely")["counts"]["skipped"].as_u64() >= Some(1));
    assert_eq!(gateway.pids("minutely"), [pid]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_up_a_schedule_at_once_leaves_the_run_alone_and_ends_that_of_a_removed_job() {
    let with = |cron: &str| job("backup", &sh("exec sleep 1000"), &format!("schedule = {{ cron = \"{cron}\", zone = \"UTC\" }}"));
    let other = job("other", &sh("exit 0"), "");
    let mut gateway = Gateway::start(&format!("{}{other}", with("0 2 1 1 *")));
    let due = |gateway: &Gateway| {
        let apps = gateway.ask(&json!({ "command": "apps" })).expect("apps answers");
        let rows = apps["instances"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["id"]["app"] == "backup").map(|row| row["due_ms"].clone())
    };
    let before = due(&gateway);
    start(&gateway, "backup");
    let pid = gateway.wait_app("backup", "ready")[0].pid.expect("it runs");
    gateway.reload(&format!("{}{other}", with("0 3 1 1 *"))).expect("in force");
    eventually("it is due at another time", secs(5), || {
        Some(due(&gateway)).filter(|now| *now != before && now.is_some()).ok_or("as before")
    });
    assert_eq!(gateway.pids("backup"), [pid]);
    gateway.reload(&other).expect("in force");
    eventually("it has ended", secs(10), || if proc::alive(pid) { Err(pid) } else { Ok(()) });
    let kept = gateway.state().join("jobs/backup.json");
    eventually("nothing is kept of it", secs(5), || if kept.exists() { Err(kept.clone()) } else { Ok(()) });
    assert!(!gateway.cli(&["start", "backup"]).status.success(), "it is gone");
    // A service becomes a job and back.
    gateway.reload(&format!("{other}[app.backup]\ncommand = {}\n", sh("exec sleep 1000"))).expect("in force");
    gateway.wait_app("backup", "ready");
    gateway.reload(&format!("{}{other}", with("0 3 1 1 *"))).expect("in force");
    gateway.wait_app("backup", "stopped");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(20)).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_when_gateway_ends_is_given_its_time_and_the_next_gateway_knows() {
    let script = "trap 'sleep 0.3; echo tidy > tidied; exit 0' TERM; while :; do sleep 0.05; done";
    let mut gateway = Gateway::start(&job("backup", &sh(script), "stop = { timeout = \"10s\" }"));
    start(&gateway, "backup");
    gateway.wait_app("backup", "ready");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(20)).code(), Some(0));
    assert_eq!(fs::read_to_string(gateway.dir().join("tidied")).expect("it tidied up").trim(), "tidy");
    gateway.start_again();
    assert_eq!(run(&gateway, "backup", 1)["exit"], "stopped: exit 0");
    // And one that goes down with gateway itself is a failure.
    start(&gateway, "backup");
    gateway.wait_app("backup", "ready");
    let kept = gateway.state().join("jobs/backup.json");
    eventually("it is on disk that it runs", secs(10), || {
        let text = fs::read_to_string(&kept).unwrap_or_default();
        if text.contains("\"running_ms\": null") || text.is_empty() { Err(text) } else { Ok(()) }
    });
    gateway.kill_whole();
    gateway.start_again();
    let last = run(&gateway, "backup", 2);
    assert_eq!((last["outcome"].as_str(), last["exit"].as_str()), (Some("failed"), Some("gateway ended in the middle of it")));
}
