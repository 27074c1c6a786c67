//! What apps do to their supervisor: the test matrix of the supervision rules, each vice a test.

use std::{fs, time::Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Gateway, child, demo_app, eventually, get, proc,
    wait::{eventually_async, ms, secs},
};

/// One worker with a vice beside one app that must not notice.
fn beside(vice: &str, more: &str) -> String {
    format!(
        r#"
[app.vice]
command = {vice}
{more}
[app.good]
command = "{}"
health = "/healthz"
[[site]]
host = "a.test"
tls = "off"
app = "good"
"#,
        demo_app("--port {port}")
    )
}

const QUICK: &str = "restart = { policy = \"always\", delay = \"100ms\", max_delay = \"300ms\", budget = \"3/1m\" }\nstop = { timeout = \"1s\", drain = \"1s\" }";

async fn the_good_one_serves(gateway: &Gateway) {
    eventually_async("the good app serves", secs(20), || async {
        match get(gateway.http(), "a.test", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(gateway.instance("good", 0).restarts, 0);
}

/// It is started again and again until its budget is spent, and the reason is told.
async fn ends_in_cooldown(vice: &str, reason: &[&str]) {
    let gateway = Gateway::start(&beside(vice, QUICK));
    let cooled = gateway.wait_app("vice", "cooldown").remove(0);
    assert!(reason.iter().any(|word| cooled.last_exit.contains(word)), "{reason:?} in {cooled:?}");
    assert!(cooled.restarts >= 2, "{cooled:?}");
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_0_counts_as_an_exit() {
    ends_in_cooldown(&child::exits_with(0), &["exit 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_1() {
    ends_in_cooldown(&child::exits_with(1), &["exit 1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segmentation_fault() {
    ends_in_cooldown(&child::segfaults(), &["signal 11"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_from_outside() {
    ends_in_cooldown(&child::kills_itself(), &["signal 9"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    ends_in_cooldown(&child::runs_out_of_memory(), &["exit 1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flaps_each_second_and_a_half() {
    ends_in_cooldown(&child::flaps(), &["exit 1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_failure_leaves_a_clean_exit_alone_and_never_means_never() {
    let gateway = Gateway::start(&format!(
        "{}\n[app.once]\ncommand = {}\nrestart = {{ policy = \"never\" }}\n",
        beside(&child::exits_with(0), "restart = { policy = \"on-failure\", delay = \"100ms\" }"),
        child::exits_with(1)
    ));
    for app in ["vice", "once"] {
        let ended = gateway.wait_app(app, "exited").remove(0);
        assert_eq!(ended.restarts, 0, "{ended:?}");
    }
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangs_on_start_and_is_not_ready_in_time() {
    let vice = format!("\"{}\"", demo_app("--port {port} --boot 1000s"));
    let gateway = Gateway::start(&beside(&vice, &format!("ready = {{ http = \"/healthz\", timeout = \"1s\" }}\n{QUICK}")));
    let cooled = gateway.wait_app_for("vice", "cooldown", secs(60)).remove(0);
    assert!(cooled.last_exit.contains("ready"), "{cooled:?}");
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_opens_its_port() {
    let vice = "[\"sh\", \"-c\", \"exec sleep 1000 # {port}\"]";
    let gateway = Gateway::start(&beside(vice, &format!("ready = {{ tcp = true, timeout = \"1s\" }}\n{QUICK}")));
    let cooled = gateway.wait_app_for("vice", "cooldown", secs(60)).remove(0);
    assert!(cooled.last_exit.contains("ready"), "{cooled:?}");
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangs_on_stop_and_ignores_term() {
    let mut gateway = Gateway::start(&beside(&child::ignores_term(), QUICK));
    let pid = gateway.wait_app("vice", "ready")[0].pid.expect("alive");
    let begin = Instant::now();
    let done = gateway.cli(&["stop", "vice"]);
    assert!(done.status.success(), "{done:?}");
    eventually("it is killed after its stop timeout", secs(10), || if proc::alive(pid) { Err(pid) } else { Ok(()) });
    assert!(begin.elapsed() >= ms(900), "it was given its second: {:?}", begin.elapsed());
    gateway.wait_app("vice", "stopped");
    assert!(gateway.cli(&["start", "vice"]).status.success());
    gateway.wait_app("vice", "ready");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(15)).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_grandchildren() {
    let gateway = Gateway::start(&beside(&child::leaves_grandchildren(), QUICK));
    let leader = gateway.wait_app("vice", "ready")[0].pid.expect("alive");
    let family = eventually("it has children", secs(5), || {
        let family = proc::children(leader);
        if family.len() >= 2 { Ok(family) } else { Err(family) }
    });
    let done = gateway.cli(&["stop", "vice"]);
    assert!(done.status.success(), "{done:?}");
    eventually("the whole group is gone", secs(10), || {
        let left: Vec<u32> = family.iter().chain([&leader]).copied().filter(|pid| proc::alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_takes_its_grandchildren_along() {
    let gateway = Gateway::start(&beside(&child::leaves_grandchildren(), QUICK));
    let leader = gateway.wait_app("vice", "ready")[0].pid.expect("alive");
    let family = eventually("it has children", secs(5), || {
        let family = proc::children(leader);
        if family.len() >= 2 { Ok(family) } else { Err(family) }
    });
    proc::kill(leader, Signal::SIGKILL);
    eventually("nothing of the old group is left", secs(10), || {
        let left: Vec<u32> = family.iter().copied().filter(|pid| proc::alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
    eventually("it runs again", secs(10), || {
        let now = gateway.instance("vice", 0);
        if now.state == "ready" && now.pid != Some(leader) { Ok(()) } else { Err(now) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forks_twice() {
    let gateway = Gateway::start(&beside(&child::double_forks(), QUICK));
    // The leader goes at once: that is an exit like any other. What it left behind in its group goes with it.
    gateway.wait_app("vice", "cooldown");
    eventually("no daemon of it is left", secs(10), || {
        let left: Vec<u32> = gateway.processes().into_iter().filter(|pid| proc::command(*pid) == ["sleep", "1000"]).collect();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_its_output() {
    let gateway = Gateway::start(&beside(&child::closes_its_output(), QUICK));
    let pid = gateway.wait_app("vice", "ready")[0].pid;
    the_good_one_serves(&gateway).await;
    let later = gateway.instance("vice", 0);
    assert_eq!((later.state.as_str(), later.pid, later.restarts), ("ready", pid, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_stdout() {
    let log = "log = { rotate = { size = \"1MB\", keep = 2 } }";
    let gateway = Gateway::start(&format!("{}\n[log]\ndir = \"logs\"\n", beside(&child::floods_stdout(), &format!("{QUICK}\n{log}"))));
    let pid = gateway.wait_app("vice", "ready")[0].pid.expect("alive");
    let logs = gateway.dir().join("logs");
    let files = || -> Vec<(String, u64)> {
        let entries = fs::read_dir(&logs).map(|dir| dir.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default();
        let named =
            entries.iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata().map_or(0, |meta| meta.len())));
        named.filter(|(name, _)| name.starts_with("vice")).collect()
    };
    eventually("its log has been rotated", secs(30), || if files().len() >= 3 { Ok(()) } else { Err(files()) });
    the_good_one_serves(&gateway).await;
    for (name, size) in files() {
        assert!(size <= 3 << 20, "{name} has {size} bytes");
    }
    assert!(files().len() <= 4, "{:?}", files());
    // It was never blocked: it is alive and runs, and the master answers.
    assert!(proc::alive(pid));
    assert_eq!(gateway.instance("vice", 0).restarts, 0);
    assert!(gateway.cli(&["stop", "vice"]).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_one_line_without_end() {
    let gateway = Gateway::start(&format!("{}\n[log]\ndir = \"logs\"\n", beside(&child::writes_one_endless_line(), QUICK)));
    gateway.wait_app("vice", "cooldown");
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaks_and_it_shows() {
    let gateway = Gateway::start(&beside(&child::leaks(), QUICK));
    gateway.wait_app("vice", "ready");
    eventually_async("its memory shows in the metrics", secs(40), || async {
        let bytes = gateway.metric("gateway_app_memory_bytes", &["app=\"vice\""]).await;
        if bytes > 150e6 { Ok(()) } else { Err(bytes) }
    })
    .await;
    the_good_one_serves(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_then_stops_accepting() {
    let live = "live = { http = \"/healthz\", interval = \"300ms\", timeout = \"500ms\", fail = 2, pass = 1 }\nready = { http = \"/healthz\", timeout = \"20s\" }\nprocs = 2";
    let vice = format!("\"{}\"", demo_app("--port {port}"));
    let gateway = Gateway::start(&beside(&vice, &format!("{live}\n{QUICK}")));
    let both = gateway.wait_app("vice", "ready");
    let frozen = both[0].pid.expect("alive");
    proc::kill(frozen, Signal::SIGSTOP);
    eventually("the frozen one is replaced", secs(30), || {
        let now = gateway.instance("vice", both[0].n);
        if now.state == "ready" && now.pid != Some(frozen) { Ok(()) } else { Err(now) }
    });
    assert!(!proc::alive(frozen));
    let other = gateway.instance("vice", both[1].n);
    assert_eq!((other.pid, other.restarts), (both[1].pid, 0), "its sibling was not touched");
    eventually_async("the reason is counted", secs(5), || async {
        let counted = gateway.metric("gateway_app_restarts_total", &["app=\"vice\"", "reason=\"unhealthy\""]).await;
        if counted >= 1.0 { Ok(()) } else { Err(counted) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_by_a_log_line_and_by_notification() {
    let notify = "[\"python3\", \"-c\", '''\nimport os, socket, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\np = os.environ[\"NOTIFY_SOCKET\"]\ns.connect(\"\\0\" + p[1:] if p[0] == \"@\" else p)\ntime.sleep(0.3)\ns.send(b\"READY=1\")\ntime.sleep(1000)\n''']";
    let gateway = Gateway::start(&format!(
        "{}\n[app.notifies]\ncommand = {notify}\nready = {{ notify = true, timeout = \"20s\" }}\n[app.silent]\ncommand = \"sleep 1000\"\nready = {{ log = \"never said\", timeout = \"1s\" }}\n{QUICK}\n",
        beside(
            "[\"sh\", \"-c\", 'sleep 0.3; echo it is up: 42; exec sleep 1000']",
            "ready = { log = \"is up: [0-9]+\", timeout = \"20s\" }"
        )
    ));
    gateway.wait_app("vice", "ready");
    gateway.wait_app("notifies", "ready");
    gateway.wait_app("silent", "cooldown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_knows_its_number_port_and_environment() {
    let gateway = Gateway::start(
        r#"
[app.env]
command = ["sh", "-c", 'echo "n={n} port={port} PORT=$PORT GATEWAY_INSTANCE=$GATEWAY_INSTANCE HELLO=$HELLO sid=$(ps -o sid= -p $$ 2>/dev/null || cut -d" " -f6 /proc/$$/stat) pid=$$"; exec sleep 1000']
procs = 2
ready = { log = "pid=" }
env = { HELLO = "world" }
[log]
dir = "logs"
"#,
    );
    gateway.wait_app("env", "ready");
    let text = eventually("both have said it", secs(10), || {
        let text = fs::read_to_string(gateway.dir().join("logs/env.log")).unwrap_or_default();
        if text.matches("HELLO=world").count() >= 2 { Ok(text) } else { Err(text) }
    });
    for n in 0..2 {
        assert!(text.contains(&format!("n={n} ")) && text.contains(&format!("GATEWAY_INSTANCE={n}")), "{text}");
    }
    for line in text.lines().filter(|line| line.contains("port=")) {
        let word = |name: &str| {
            line.split(' ').find_map(|word| word.split_once(name).map(|(_, value)| value.trim_matches('"').to_owned())).unwrap_or_default()
        };
        assert_eq!(word("port="), word("PORT="), "{line}");
        assert_ne!(word("port="), "", "{line}");
    }
}
