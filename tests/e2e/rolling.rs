//! An app is restarted, recycled, changed and scaled while clients are being served, and none of them notices.

use std::{collections::BTreeSet, fs, time::Duration};

use futures_util::future::join_all;

use crate::{
    harness::{Gateway, Load, demo_app, eventually, heavy, load::How, proc, wait::secs, ws::Socket},
    real::venv,
};

fn web(words: &str, more: &str) -> String {
    format!("[app.web]\ncommand = \"{}\"\n{more}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n", demo_app(words))
}

fn pids(gateway: &Gateway) -> BTreeSet<u32> {
    gateway.instances().into_iter().filter_map(|instance| instance.pid).collect()
}

fn restart(gateway: &Gateway) {
    let output = gateway.cli(&["restart", "web"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Restarts it five times under load: every request is answered 200, and every process is another one each time.
async fn five_restarts(config: &str, files: &[(&str, &str)], path: &str, procs: usize) {
    let _turn = heavy().await;
    let gateway = Gateway::start_beside(files, config);
    gateway.wait_app_for("web", "ready", secs(60));
    let mut before = pids(&gateway);
    assert_eq!(before.len(), procs);
    let load = Load::new(gateway.http(), How::Plain, "a.test", path, 50).start();
    load.more(200).await;
    for round in 0..5 {
        restart(&gateway);
        let now = pids(&gateway);
        assert!(now.len() == procs && now.is_disjoint(&before), "round {round}: {before:?} became {now:?}");
        before = now;
        load.more(200).await;
    }
    let tally = load.stop().await;
    println!("gateway, {procs} processes, five restarts: {tally:?}");
    tally.assert_all_200();
    gateway.counts("gateway_app_restarts_total", &["app=\"web\"", "reason=\"command\""], 5.0 * procs as f64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_restarts_of_an_app_of_two_processes_are_seen_by_no_client() {
    restarts_of_two("700ms").await;
}

pub async fn restarts_of_two(boot: &str) {
    five_restarts(&web(&format!("--port {{port}} --boot {boot}"), "procs = 2\nhealth = \"/healthz\""), &[], "/healthz", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_restarts_of_the_only_process_are_seen_by_no_client() {
    restarts_of_one("700ms").await;
}

pub async fn restarts_of_one(boot: &str) {
    five_restarts(&web(&format!("--socket {{socket}} --boot {boot}"), "health = \"/healthz\""), &[], "/healthz", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_restarts_of_a_node_app_are_seen_by_no_client() {
    let program = "const http = require('http');\nhttp.createServer((q, s) => s.end('ok')).listen(process.env.PORT, '127.0.0.1');\n";
    let config = "[app.web]\ncommand = \"node app.js # {port}\"\nprocs = 2\nhealth = \"/\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n";
    let config = config.replace(" # {port}", " {port}");
    five_restarts(&config, &[("app.js", program)], "/", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_restarts_of_fastapi_under_gunicorn_are_seen_by_no_client() {
    let program = "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/healthz')\ndef healthz(): return {'ok': True}\n";
    let config = format!(
        "[app.web]\ncommand = \"{}/bin/gunicorn main:app -k uvicorn_worker.UvicornWorker -w 1 --bind unix:{{socket}}\"\nhealth = \"/healthz\"\nready = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        venv().display()
    )
    .replace("health = \"/healthz\"\nready", "ready");
    five_restarts(&config, &[("main.py", program)], "/healthz", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_come_up_ends_the_restart_and_the_old_ones_serve_on() {
    let gateway = Gateway::start(&web("--port {port}", "procs = 2\nready = { http = \"/healthz\", timeout = \"2s\" }"));
    gateway.wait_app("web", "ready");
    let before = pids(&gateway);
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8).start();
    load.more(100).await;
    gateway
        .reload(&web("--port {port} --never-listen", "procs = 2\nready = { http = \"/healthz\", timeout = \"2s\" }"))
        .expect("the file is good");
    eventually("it is given up", secs(30), || {
        let output = gateway.output();
        if output.contains("restart given up") { Ok(()) } else { Err(output) }
    });
    load.more(100).await;
    load.stop().await.assert_all_200();
    eventually("the one that failed is gone", secs(30), || if pids(&gateway) == before { Ok(()) } else { Err(pids(&gateway)) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_on_a_fixed_port_is_restarted_all_the_same() {
    let [port] = crate::harness::pebble::free();
    let gateway = Gateway::start(&web("--port {port}", &format!("port = {port}\nhealth = \"/healthz\"")));
    let before = gateway.wait_app("web", "ready")[0].pid;
    restart(&gateway);
    assert_ne!(gateway.wait_app("web", "ready")[0].pid, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worn_processes_are_replaced_under_load_and_no_client_sees_it() {
    recycled_until(12.0).await;
}

/// By what 100 requests wear out.
pub async fn recycled_until(wanted: f64) {
    let _turn = heavy().await;
    let gateway = Gateway::start(&web("--port {port}", "procs = 4\nhealth = \"/healthz\"\nrecycle = { requests = 100 }"));
    gateway.wait_app("web", "ready");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 4).start();
    let end = std::time::Instant::now() + secs(90);
    while gateway.metric("gateway_app_restarts_total", &["app=\"web\"", "reason=\"recycle\""]).await < wanted {
        assert!(std::time::Instant::now() < end, "{}", gateway.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.stop().await.assert_all_200();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_start_after_those_they_need_and_stop_before_them() {
    let config = "[app.aaa]\ncommand = \"sh -c 'echo up; exec sleep 1000'\"\nready = { log = \"up\" }\nafter = [\"zzz\"]\n\
                  [app.zzz]\ncommand = \"sh -c 'while [ ! -e go ]; do sleep 0.05; done; echo up; exec sleep 1000'\"\nready = { log = \"up\" }\n";
    let mut gateway = Gateway::launch(config);
    eventually("both are starting", secs(30), || {
        let output = gateway.output();
        if output.contains("waits until these are ready") && output.contains("started app=zzz") { Ok(()) } else { Err(output) }
    });
    assert_eq!(gateway.instance("aaa", 0).pid, None);
    assert_eq!(gateway.instance("aaa", 0).state, "starting");
    fs::write(gateway.dir().join("go"), "").expect("written");
    gateway.wait_app("aaa", "ready");
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(gateway.wait_end(secs(30)).success());
    let output = gateway.output();
    let stopped = |app: &str| output.find(&format!("stopped app={app}")).unwrap_or_else(|| panic!("{output}"));
    assert!(stopped("aaa") < stopped("zzz"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_watchdog_is_not_fed_is_restarted() {
    let script = "#!/usr/bin/env python3\nimport os, socket, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  say = lambda word: s.sendto(word, os.environ['NOTIFY_SOCKET'])\nassert os.environ['WATCHDOG_USEC'] == '2000000'\nsay(b'READY=1')\n\
                  for _ in range(12):\n    time.sleep(0.25)\n    say(b'WATCHDOG=1')\nopen('silent', 'w').close()\ntime.sleep(1000)\n";
    let config = "[app.dog]\ncommand = \"python3 dog.py\"\nready = { notify = true }\nwatchdog = \"2s\"\n";
    let gateway = Gateway::start_beside(&[("dog.py", script)], config);
    let first = gateway.wait_app("dog", "ready")[0].pid;
    let then = eventually("it is another one", secs(60), || {
        let dog = gateway.instance("dog", 0);
        if dog.pid != first && dog.state == "ready" { Ok(dog) } else { Err(dog) }
    });
    assert!(gateway.dir().join("silent").exists(), "not while it was fed");
    assert!(then.last_exit.contains("no WATCHDOG=1 for 2s"), "{then:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_live_probe_fails_one_is_restarted_at_a_time_and_requests_go_on() {
    unhealthy_for(secs(12)).await;
}

pub async fn unhealthy_for(span: Duration) {
    let _turn = heavy().await;
    let more = "procs = 3\nready = { tcp = true }\nlive = { http = \"/healthz\", interval = \"500ms\", timeout = \"2s\", fail = 2, pass = 1 }\n\
                restart = { delay = \"100ms\", budget = \"4/1h\" }";
    let gateway = Gateway::start(&web("--port {port} --unready-after 1ms", more));
    gateway.wait_app("web", "ready");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 8).start();
    let end = std::time::Instant::now() + span;
    let (mut panicked, mut most) = (false, 0);
    while std::time::Instant::now() < end {
        let all = gateway.instances();
        let ready: BTreeSet<u64> = all.iter().filter(|i| i.state == "ready").map(|i| i.n).collect();
        // What cools down after the budget is spent is not restarted any more.
        let moving = all.iter().filter(|i| i.state != "ready" && i.state != "cooldown").map(|i| i.n).collect::<BTreeSet<_>>();
        assert!(moving.difference(&ready).count() <= 1, "more than one at a time: {all:?}");
        most = all.iter().map(|i| i.restarts).sum::<u64>().max(most);
        panicked |= gateway.metric("gateway_upstream_panic", &["upstream=\"web\""]).await == 1.0;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    load.stop().await.assert_all_200();
    assert!(panicked, "nobody was well, and yet requests were passed: that is shown");
    assert!((1..=6).contains(&most), "within its budget: {most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_websockets_on_one_app_outlive_twenty_changes_of_another() {
    let _turn = heavy().await;
    let config = |round: usize| {
        format!("{}[app.b]\ncommand = \"sleep 1000\"\nenv = {{ ROUND = \"{round}\" }}\n", web("--port {port}", "health = \"/healthz\""))
    };
    let gateway = Gateway::start(&config(0));
    gateway.wait_app("web", "ready");
    let before = gateway.instance("web", 0).pid;
    let mut sockets = Vec::new();
    for _ in 0..500 {
        sockets.push(Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens"));
    }
    let echo = async |sockets: &mut Vec<Socket>, word: &str| {
        for echoed in join_all(sockets.iter_mut().map(|socket| socket.echo(word))).await {
            echoed.expect(word);
        }
    };
    echo(&mut sockets, "before").await;
    let memory = || proc::memory(gateway.edge()) + proc::memory(gateway.pid());
    let (mut settled, edge) = (0, gateway.edge());
    for round in 1..=20 {
        let old = gateway.instance("b", 0).pid;
        gateway.reload(&config(round)).expect("reloaded");
        eventually("b is another one", secs(30), || {
            let now = gateway.instance("b", 0);
            if now.state == "ready" && now.pid != old { Ok(()) } else { Err(now) }
        });
        // The first few find their buffers.
        if round == 5 {
            settled = memory();
        }
    }
    echo(&mut sockets, "after").await;
    assert_eq!((gateway.instance("web", 0).pid, gateway.edge()), (before, edge));
    let grown = memory().saturating_sub(settled);
    assert!(grown < 2 << 20, "it grew by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_are_told_to_come_again_at_half_the_drain_and_others_are_left_alone() {
    let other = "[app.other]\ncommand = \"{exe} demo-app --port {port}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"b.test\"\ntls = \"off\"\napp = \"other\"\n";
    let gateway = Gateway::start(&(web("--port {port}", "health = \"/healthz\"\nstop = { drain = \"3s\" }") + other));
    gateway.wait_app("web", "ready");
    gateway.wait_app("other", "ready");
    let old = gateway.instance("web", 0).pid;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens");
        socket.echo("hello").await.expect("an echo");
        sockets.push(socket);
    }
    let mut bystander = Socket::open(gateway.http(), "b.test", "/ws").await.expect("a WebSocket opens");
    let began = std::time::Instant::now();
    let told = async {
        for code in join_all(sockets.iter_mut().map(Socket::close_code)).await {
            assert_eq!(code, Ok(1001));
        }
        began.elapsed()
    };
    let order = serde_json::json!({ "command": "restart", "app": "web" });
    let (after, answered) = tokio::join!(told, async { tokio::task::block_in_place(|| gateway.ask(&order)) });
    answered.expect("restarted");
    assert!(after > Duration::from_millis(1400), "not before half of the drain: {after:?}");
    drop(sockets);
    // Who comes again is on the new process.
    assert_ne!(gateway.wait_app("web", "ready")[0].pid, old);
    let mut again = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens");
    again.echo("again").await.expect("an echo");
    bystander.echo("still here").await.expect("an echo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_generations_leave_no_zombie_no_descriptor_and_no_file() {
    let gateway = Gateway::start(&web("--socket {socket} --grandchild", "procs = 2\nhealth = \"/healthz\""));
    gateway.wait_app("web", "ready");
    let run = gateway.dir().join("r");
    let files = || {
        let mut all: Vec<_> = walk(&run);
        all.sort();
        all
    };
    let look = || (proc::descriptors(gateway.pid()).values().sum::<usize>(), gateway.processes().len(), files().len());
    restart(&gateway);
    let before = look();
    for _ in 0..10 {
        restart(&gateway);
    }
    eventually("as before", secs(30), || if look() == before { Ok(()) } else { Err((look(), files())) });
    assert_eq!(proc::zombies(gateway.pid()), Vec::<u32>::new());
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}
