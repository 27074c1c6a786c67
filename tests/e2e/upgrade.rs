//! The running binary becomes another one: same PID, same apps, no request lost. A bad one changes nothing.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{
    Gateway, Load, binary, demo_app, eventually,
    gateway::install,
    get, heavy,
    load::How,
    proc,
    wait::{eventually_async, secs},
    ws::Socket,
};

fn web(more: &str) -> String {
    format!(
        r#"
[timeouts]
drain = "3s"
[log]
dir = "logs"
[app.web]
command = "{}"
procs = 2
health = "/healthz"
[app.talker]
command = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"]
{more}
[[site]]
host = "a.test"
tls = "off"
app = "web"
"#,
        demo_app("--port {port}")
    )
}

fn upgrade(gateway: &Gateway) {
    let said = gateway.ask(&json!({ "command": "upgrade" })).expect("an upgrade");
    let text = said["message"].as_str().expect("words").to_owned();
    assert!(text.contains(&format!("pid {}", gateway.pid())), "{text}");
}

/// The edges of a gateway, whether they serve or drain.
fn edges(gateway: &Gateway) -> Vec<u32> {
    let is_edge = |pid: &u32| proc::command(*pid).get(1).is_some_and(|word| word == "edge") && proc::alive(*pid);
    proc::children(gateway.pid()).into_iter().filter(is_edge).collect()
}

/// Until no edge but one is left and everything that ended was reaped.
fn settled(gateway: &Gateway) {
    eventually("one edge is left", secs(40), || {
        let edges = edges(gateway);
        if edges.len() == 1 { Ok(()) } else { Err(edges) }
    });
    eventually("nothing lies unreaped", secs(10), || {
        let zombies = proc::zombies(gateway.pid());
        if zombies.is_empty() { Ok(()) } else { Err(zombies) }
    });
}

fn lines(gateway: &Gateway) -> Vec<u64> {
    let text = fs::read_to_string(gateway.dir().join("logs/talker.log")).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_upgrades_under_load_are_seen_by_nobody() {
    let _turn = heavy().await;
    let gateway = Gateway::start_copy(&web(""), &[]);
    gateway.wait_app("web", "ready");
    gateway.wait_app("talker", "ready");
    let (pid, apps, talker) = (gateway.pid(), gateway.pids("web"), gateway.pids("talker"));
    upgrade(&gateway);
    settled(&gateway);
    // A log file is opened with its first line.
    let held = || {
        let mut all = proc::descriptors(pid);
        all.retain(|kind, _| !kind.ends_with(".log"));
        all
    };
    let open = held();
    let keeping = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8).start();
    let fresh = Load { fresh: true, ..Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 4) }.start();
    for round in 0..9 {
        let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a tunnel");
        socket.echo("before").await.expect("an echo");
        keeping.more(50).await;
        let before = gateway.edge();
        // Eight at most drain at a time.
        eventually("there is room for another edge", secs(60), || if edges(&gateway).len() < 6 { Ok(()) } else { Err("not yet") });
        if round == 4 {
            install(Path::new(binary()), &gateway.program());
        }
        upgrade(&gateway);
        socket.echo("after").await.expect("the tunnel is open until its edge has drained");
        assert_eq!(gateway.pids("web"), apps, "round {round}");
        let edge = eventually("another edge serves", secs(20), || edges(&gateway).into_iter().find(|pid| *pid != before).ok_or("none"));
        assert_ne!(edge, before);
        fresh.more(20).await;
    }
    keeping.stop().await.assert_all_200();
    fresh.stop().await.assert_all_200();
    settled(&gateway);
    assert_eq!((gateway.pids("web"), gateway.pids("talker")), (apps, talker));
    assert!(gateway.instances().iter().all(|instance| instance.restarts == 0), "{:?}", gateway.instances());
    let status = gateway.status();
    assert_eq!((&status["master"]["gateway"]["pid"], &status["master"]["edge"]["restarts"]), (&json!(pid), &json!(0)), "{status}");
    // Threads for files come and go.
    eventually("no descriptor was leaked", secs(20), || {
        let now = held();
        if now == open { Ok(()) } else { Err((open.clone(), now)) }
    });
    let all = lines(&gateway);
    let every: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, every, "no line of an app's output was lost or doubled");
    let temporary: Vec<_> = fs::read_dir(gateway.state()).expect("STATE").filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    assert!(!temporary.iter().any(|name| name.ends_with(".tmp")), "{temporary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_everything_goes_on() {
    let mut gateway = Gateway::start_copy(&web(""), &[]);
    gateway.wait_app("web", "ready");
    let apps = gateway.pids("web");
    proc::kill(apps[0], Signal::SIGKILL);
    eventually("one was started again", secs(30), || {
        let instance = gateway.instance("web", 0);
        if instance.restarts == 1 && instance.state == "ready" { Ok(()) } else { Err(instance) }
    });
    let (apps, started) = (gateway.pids("web"), gateway.status()["master"]["gateway"]["started"].clone());
    gateway.reload(&web("# reloaded\n")).expect("a reload");
    let old = gateway.edge();
    gateway.signal(Signal::SIGUSR2);
    eventually("USR2 brings another edge", secs(40), || edges(&gateway).into_iter().find(|pid| *pid != old).ok_or("not yet"));
    settled(&gateway);
    assert_eq!(gateway.pids("web"), apps);
    let master = gateway.status()["master"]["gateway"].clone();
    assert_eq!((&master["generation"], &master["reloads"], &master["started"]), (&json!(2), &json!(1), &started), "{master}");
    assert_eq!(gateway.instance("web", 0).restarts, 1, "what was counted is remembered");

    let count = lines(&gateway).len();
    eventually("output still reaches its log", secs(10), || {
        let now = lines(&gateway).len();
        if now > count { Ok(()) } else { Err(now) }
    });
    gateway.reload(&web("").replace("procs = 2", "procs = 3")).expect("a reload");
    eventually("a third instance is up", secs(30), || {
        let ready = gateway.instances().iter().filter(|i| i.app == "web" && i.state == "ready").count();
        if ready == 3 { Ok(()) } else { Err(gateway.instances()) }
    });
    proc::kill(apps[1], Signal::SIGKILL);
    eventually("an app that dies is started again", secs(30), || {
        let instance = gateway.instance("web", 1);
        if instance.restarts == 1 && instance.state == "ready" { Ok(()) } else { Err(instance) }
    });
    assert!(gateway.instance("web", 1).last_exit.contains('9'));
    gateway.ask(&json!({ "command": "restart", "app": "web" })).expect("a restart");
    assert!(gateway.pids("web").iter().all(|pid| !apps.contains(pid)));
    let edge = gateway.edge();
    proc::kill(edge, Signal::SIGKILL);
    eventually("an edge that dies is replaced", secs(20), || gateway.edge_pid().filter(|pid| *pid != edge).ok_or("not yet"));
    eventually_async("and serves", secs(20), || async {
        match get(gateway.http(), "a.test", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(30)).code(), Some(0), "{}", gateway.output());
    assert_eq!(gateway.processes(), Vec::<u32>::new());
}

/// `gateway upgrade` is refused: exit 1, these words, and nothing else.
fn refused(gateway: &Gateway, words: &str) {
    let (edge, apps) = (gateway.edge(), gateway.pids("web"));
    let Output { status, stderr, .. } = gateway.cli(&["upgrade"]);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said:?}");
    assert_eq!((gateway.edge(), gateway.pids("web")), (edge, apps));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_binary_changes_nothing_and_says_why() {
    let gateway = Gateway::start_copy(&web(""), &[]);
    gateway.wait_app("web", "ready");
    let program = gateway.program();
    let put = |text: &str, mode: u32| {
        fs::remove_file(&program).expect("the binary goes");
        fs::write(&program, text).expect("another file");
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    put("#!/bin/sh\nexit 0\n", 0o644);
    refused(&gateway, "not executable");
    put("#!/bin/sh\necho no such library >&2\nexit 1\n", 0o755);
    refused(&gateway, "no such library");
    put("this is no program\n", 0o755);
    refused(&gateway, "is not a gateway");
    put("#!/bin/sh\nexec sleep 1000\n", 0o755);
    refused(&gateway, "did not finish its self-check");
    fs::remove_file(&program).expect("the binary goes");
    refused(&gateway, "there is no such file");

    install(Path::new(binary()), &program);
    gateway.write_config("[[site]]\nhost = 3\n");
    refused(&gateway, "failed its self-check");
    gateway.write_config(&web(""));
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200);
    let output = gateway.cli(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    settled(&gateway);
    assert_eq!(proc::zombies(gateway.pid()), Vec::<u32>::new());
}

#[test]
fn a_binary_that_fails_in_spite_of_its_proof_leaves_nothing_behind() {
    let mut gateway = Gateway::start_copy(&web(""), &[]);
    gateway.wait_app("web", "ready");
    let program = gateway.program();
    fs::remove_file(&program).expect("the binary goes");
    fs::write(&program, "#!/bin/sh\ncase \"$*\" in *self-check) echo gateway can go on;; *) exit 3;; esac\n").expect("another file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    gateway.signal(Signal::SIGUSR2);
    assert_eq!(gateway.wait_end(secs(30)).code(), Some(3), "whoever started it sees that it failed");
    eventually("apps, edge and guard are gone", secs(20), || {
        let left = gateway.processes();
        if left.is_empty() { Ok(()) } else { Err(proc::describe(&left)) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_told_to_leave_drains_beside_the_next() {
    let gateway = Gateway::start(&web(""));
    gateway.wait_app("web", "ready");
    let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a tunnel");
    let load = Load { fresh: true, ..Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 2) }.start();
    load.more(20).await;
    let old = gateway.edge();
    proc::kill(old, Signal::SIGTERM);
    eventually("another edge is there", secs(20), || edges(&gateway).into_iter().find(|pid| *pid != old).ok_or("not yet"));
    socket.echo("still").await.expect("the tunnel is open until its edge has drained");
    load.more(20).await;
    load.stop().await.assert_all_200();
    settled(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_was_begun_before_an_upgrade_is_whole_after_it() {
    let app = "[app.slow]\ncommand = [\"sh\", \"-c\", \"printf begun; touch begun; while [ ! -e go ]; do sleep 0.05; done; echo ' and ended'; exec sleep 1000\"]\n";
    let gateway = Gateway::start_copy(
        &format!(
            "[log]\ndir = \"logs\"\n{app}[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"ok\" }}\n"
        ),
        &[],
    );
    eventually("half a line is written", secs(20), || if gateway.dir().join("begun").exists() { Ok(()) } else { Err("not yet") });
    upgrade(&gateway);
    fs::write(gateway.dir().join("go"), "").expect("a file");
    eventually("the line is whole", secs(20), || {
        let text = fs::read_to_string(gateway.dir().join("logs/slow.log")).unwrap_or_default();
        if text == "begun and ended\n" { Ok(()) } else { Err(text) }
    });
}
