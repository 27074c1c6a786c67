//! What comes of an app and is not its leader: servers behind a shell or a package manager, and those that leave for the background. They end with their app,
//! after their grace, and take nothing along: no request, no port.

use std::{fs, net::TcpListener};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::{
    harness::{
        Gateway, get, pebble, proc,
        wait::{eventually, eventually_async, ms, secs},
    },
    real::venv,
};

/// Answers /slow after two seconds. Told to stop it finishes what it has, takes half a second more, and writes so.
const SERVER: &str = r#"
const fs = require('fs'), port = process.argv[2] || process.env.PORT;
const server = require('http').createServer((request, response) => {
  fs.appendFileSync('asked', process.pid + '\n');
  setTimeout(() => response.end('pid ' + process.pid), request.url.startsWith('/slow') ? 2000 : 0);
});
server.keepAliveTimeout = 100;
server.listen(port, '127.0.0.1');
process.on('SIGTERM', () => {
  fs.appendFileSync('told', process.pid + '\n');
  server.close(() => setTimeout(() => { fs.appendFileSync('ended', process.pid + '\n'); process.exit(0); }, 500));
  server.closeIdleConnections();
});
"#;

const PACKAGE: &str = r#"{ "name": "web", "version": "1.0.0", "scripts": { "start": "node server.js" } }"#;

/// A script that cleans up at TERM: bash runs the trap only when the program in front of it has ended.
const DEFERS: &str = "#!/bin/bash\ntrap 'echo cleaned >> cleaned' TERM\nnode server.js $1\ntrue\n";
/// A script that hands the signal on, as entry points of images do.
const FORWARDS: &str = "#!/bin/bash\ntrap 'kill -TERM $child' TERM\nnode server.js $1 &\nchild=$!\nwait $child\nwait $child\n";

const FILES: [(&str, &str); 4] = [("server.js", SERVER), ("package.json", PACKAGE), ("defers.sh", DEFERS), ("forwards.sh", FORWARDS)];

/// What stands before the server, and how it is written.
fn wrappers() -> [(&'static str, &'static str); 5] {
    [
        ("sh", "[\"sh\", \"-c\", \"node server.js {port}; true\"]"),
        ("bash", "[\"bash\", \"-c\", \"cd . && node server.js {port} && true\"]"),
        ("defers", "\"bash defers.sh {port}\""),
        ("forwards", "\"bash forwards.sh {port}\""),
        ("npm", "\"npm start -- {port}\""),
    ]
}

/// The signal comes at once, requests under way or not: `drain` is what the edge would wait for them.
fn wrapped() -> String {
    let app = |(name, command): (&str, &str)| {
        format!(
            "[app.{name}]\ncommand = {command}\nstop = {{ timeout = \"16s\", drain = \"0s\" }}\nready = {{ http = \"/\", timeout = \"60s\" }}\nenv = {{ HOME = \".\" }}\n\
             [[site]]\nhost = \"{name}.test\"\ntls = \"off\"\napp = \"{name}\"\n"
        )
    };
    wrappers().map(app).concat()
}

fn lines(gateway: &Gateway, file: &str) -> Vec<u32> {
    let text = fs::read_to_string(gateway.dir().join(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The server that answers for this app.
async fn serving(gateway: &Gateway, app: &str) -> u32 {
    let (addr, host) = (gateway.http(), format!("{app}.test"));
    eventually_async(&format!("{app} serves"), secs(60), || async {
        let answer = get(addr, &host, "/").await.map_err(|error| error.to_string())?;
        let text = answer.text();
        text.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).ok_or(text)
    })
    .await
}

/// Does something to the app while a request is under way in it: the request is answered, and the server behind the wrapper ends by itself.
async fn nothing_is_lost(gateway: &Gateway, app: &str, order: &str) {
    let before = serving(gateway, app).await;
    let (addr, host) = (gateway.http(), format!("{app}.test"));
    let asked = lines(gateway, "asked").len();
    let mut slow = JoinSet::new();
    slow.spawn(async move { get(addr, &host, "/slow").await });
    eventually(&format!("{app} is asked"), secs(20), || if lines(gateway, "asked").len() > asked { Ok(()) } else { Err("not yet") });
    let done = gateway.cli(&[order, app]);
    assert!(done.status.success(), "{order} {app}: {done:?}");
    let answer = slow.join_next().await.expect("one").expect("no panic").unwrap_or_else(|error| panic!("{order} {app}: {error}"));
    assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("pid {before}")), "{order} {app}");
    eventually(&format!("the server of {app} ends by itself"), secs(20), || {
        let (told, ended) = (lines(gateway, "told"), lines(gateway, "ended"));
        if told.contains(&before) && ended.contains(&before) && !proc::alive(before) { Ok(()) } else { Err((before, told, ended)) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_a_wrapper_finishes_its_requests_on_restart_and_stop() {
    let gateway = Gateway::start_beside(&FILES, &wrapped());
    for (app, _) in wrappers() {
        nothing_is_lost(&gateway, app, "restart").await;
        nothing_is_lost(&gateway, app, "stop").await;
        assert_eq!(gateway.instance(app, 0).state, "stopped");
    }
    let said = gateway.output();
    assert!(!said.contains("killing its group"), "{said}");
    let told = lines(&gateway, "told");
    assert_eq!(told.len(), 2 * wrappers().len(), "each is told once, forwarded or not: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_a_wrapper_ends_by_itself_at_shutdown() {
    let mut gateway = Gateway::start_beside(&FILES, &wrapped());
    let mut servers = Vec::new();
    for (app, _) in wrappers() {
        servers.push(serving(&gateway, app).await);
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(60)).code(), Some(0), "{}", gateway.output());
    let mut ended = lines(&gateway, "ended");
    servers.sort_unstable();
    ended.sort_unstable();
    assert_eq!(ended, servers, "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_behind_a_wrapper_has_its_grace() {
    let gateway = Gateway::start(
        "[app.job]\nschedule = \"@yearly\"\nstop = { timeout = \"15s\" }\ncommand = [\"sh\", \"-c\", '''bash -c 'trap \"sleep 1; echo 1 >> ended; exit\" TERM; echo 1 >> up; while :; do sleep 0.05; done'; true''']\n",
    );
    assert!(gateway.cli(&["start", "job"]).status.success());
    eventually("it runs", secs(20), || if lines(&gateway, "up").is_empty() { Err("not yet") } else { Ok(()) });
    let done = gateway.cli(&["stop", "job"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(lines(&gateway, "ended"), [1], "the run is over when the last of it has ended: {}", gateway.output());
    assert!(gateway.instance("job", 0).last_exit.contains("stopped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapper_that_crashes_takes_no_request_of_its_server_along() {
    let (app, command) = wrappers()[0];
    let gateway = Gateway::start_beside(&FILES, &wrapped());
    assert!(command.contains("; true"), "a shell stands before it: {command}");
    let server = serving(&gateway, app).await;
    let (addr, host, asked) = (gateway.http(), format!("{app}.test"), lines(&gateway, "asked").len());
    let mut slow = JoinSet::new();
    slow.spawn(async move { get(addr, &host, "/slow").await });
    eventually("it is asked", secs(20), || if lines(&gateway, "asked").len() > asked { Ok(()) } else { Err("not yet") });
    let leader = gateway.instance(app, 0).pid.expect("a process");
    assert_ne!(leader, server);
    proc::kill(leader, Signal::SIGKILL);
    let answer = slow.join_next().await.expect("one").expect("no panic").expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("pid {server}")));
    eventually("another serves", secs(20), || {
        let now = gateway.instance(app, 0);
        if now.state == "ready" && now.restarts == 1 && now.last_exit.contains("signal 9") { Ok(()) } else { Err(now) }
    });
    assert!(serving(&gateway, app).await != server && !proc::alive(server) && lines(&gateway, "ended") == [server]);
}

/// A port that nobody has, fixed: whoever holds it after the end of its app is found by it.
fn free_port() -> u16 {
    let [port] = pebble::free();
    port
}

fn port_is_free(port: u16) {
    eventually("the port is free", secs(5), || TcpListener::bind(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string()));
}

const QUICK: &str = "restart = { policy = \"always\", delay = \"100ms\", max_delay = \"300ms\", budget = \"3/1m\" }\nready = { tcp = true, timeout = \"10s\" }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_a_daemon_is_recognised_and_ends_with_its_app() {
    let port = free_port();
    let conf = format!(
        "pid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s; server {{ listen 127.0.0.1:{port}; }} }}\n"
    );
    let config = format!("[app.nginx]\ncommand = \"nginx -p . -c nginx.conf\"\nport = {port}\nstop = {{ timeout = \"10s\" }}\n{QUICK}");
    let gateway = Gateway::start_beside(&[("nginx.conf", &conf)], &config);
    let told = eventually("it is recognised", secs(30), || {
        let now = gateway.instance("nginx", 0);
        if now.last_exit.contains("background") { Ok(now) } else { Err(now) }
    });
    assert!(told.last_exit.contains("exit 0") && told.last_exit.contains("daemon off;"), "{told:?}");
    gateway.wait_app("nginx", "cooldown");
    port_is_free(port);
    assert!(gateway.cli(&["stop", "nginx"]).status.success());
    let left: Vec<u32> = gateway.processes().into_iter().filter(|pid| proc::command(*pid).join(" ").contains("nginx:")).collect();
    assert!(left.is_empty(), "{}", proc::describe(&left));
    let said = gateway.output();
    assert!(said.contains("daemon off;") && !said.contains("killing its group"), "{said}");
    // With the option that was told it stays.
    let cured = config.replace("nginx.conf\"", "nginx.conf -g 'daemon off;'\"");
    gateway.reload(&cured).expect("good");
    assert!(gateway.cli(&["start", "nginx"]).status.success());
    gateway.wait_app("nginx", "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_daemons_are_recognised_too() {
    let wsgi = "def app(environ, start):\n    start('200 OK', [])\n    return [b'ok']\n";
    let [first, second] = pebble::free();
    let balancer = format!(
        "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nlisten here\n bind 127.0.0.1:{second}\n"
    );
    let app = |name: &str, command: &str, port: u16| format!("[app.{name}]\ncommand = \"{command}\"\nport = {port}\n{QUICK}");
    let config = [
        app("gunicorn", &format!("{}/bin/gunicorn -D -b 127.0.0.1:{first} wsgi:app", venv().display()), first),
        app("haproxy", "haproxy -D -f haproxy.cfg", second),
    ];
    let gateway = Gateway::start_beside(&[("wsgi.py", wsgi), ("haproxy.cfg", &balancer)], &config.concat());
    for (name, option, port) in [("gunicorn", "--daemon", first), ("haproxy", "-db", second)] {
        let told = eventually(&format!("{name} is recognised"), secs(40), || {
            let now = gateway.instance(name, 0);
            if now.last_exit.contains("background") { Ok(now) } else { Err(now) }
        });
        assert!(told.last_exit.contains(option), "{told:?}");
        assert!(gateway.cli(&["stop", name]).status.success());
        port_is_free(port);
    }
}

/// Stays in front while its server leaves: into a session of its own, by two forks, with another environment and another title.
fn leaver(way: &str) -> String {
    format!(
        r#"
import os, sys, time, signal
port, way = sys.argv[1], "{way}"
def serve():
    os.setsid()
    if way == "twice":
        if os.fork(): os._exit(0)
    os.execve("/usr/bin/env", ["env", "-i", "PATH=/usr/bin:/bin", "bash", "-c", "exec -a hidden node server.js " + port], {{}})
if os.fork() == 0: serve()
while True: time.sleep(1)
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_the_session_ends_with_its_app_and_frees_the_port() {
    for way in ["setsid", "twice"] {
        let port = free_port();
        let config = format!(
            "[app.web]\ncommand = \"python3 leaver.py {port}\"\nport = {port}\nstop = {{ timeout = \"10s\", drain = \"0s\" }}\n{QUICK}[[site]]\nhost = \"web.test\"\ntls = \"off\"\napp = \"web\"\n"
        );
        let gateway = Gateway::start_beside(&[("server.js", SERVER), ("leaver.py", &leaver(way))], &config);
        let first = serving(&gateway, "web").await;
        let done = gateway.cli(&["restart", "web"]);
        assert!(done.status.success(), "{way}: {done:?}");
        assert!(!proc::alive(first), "{way}: it went before the next one came");
        let second = serving(&gateway, "web").await;
        assert_ne!(first, second, "{way}");
        let done = gateway.cli(&["stop", "web"]);
        assert!(done.status.success(), "{way}: {done:?}");
        assert!(!proc::alive(second), "{way}");
        port_is_free(port);
        assert_eq!(lines(&gateway, "ended"), [first, second], "{way}: each was told and ended by itself: {}", gateway.output());
        assert_eq!(gateway.instance("web", 0).restarts, 1);
    }
}

/// Its child leaves the session and hears no signal but KILL.
const STUBBORN: &str = "[\"sh\", \"-c\", '''setsid bash -c 'trap \"\" TERM; echo $$ >> stubborn; while :; do sleep 0.1; done' & wait''']";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_the_session_and_ignores_term_is_killed_after_the_timeout() {
    let config = format!("[app.vice]\ncommand = {STUBBORN}\nstop = {{ timeout = \"1s\" }}\n");
    let gateway = Gateway::start(&config);
    let pid = eventually("it has left", secs(20), || lines(&gateway, "stubborn").first().copied().ok_or("not yet"));
    let begun = std::time::Instant::now();
    assert!(gateway.cli(&["stop", "vice"]).status.success());
    assert!(begun.elapsed() >= ms(900), "it was given its second: {:?}", begun.elapsed());
    assert!(!proc::alive(pid));
    assert!(gateway.output().contains("killing its group"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_the_session_does_not_outlive_a_master_that_is_killed() {
    let mut gateway = Gateway::start(&format!("[app.vice]\ncommand = {STUBBORN}\n"));
    let pid = eventually("it has left", secs(20), || lines(&gateway, "stubborn").first().copied().ok_or("not yet"));
    proc::kill(gateway.pid(), Signal::SIGKILL);
    gateway.wait_end(secs(5));
    eventually("it is gone", secs(10), || if proc::alive(pid) { Err(pid) } else { Ok(()) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_a_leader_left_are_seen_to_their_end_over_an_upgrade() {
    let config = "[app.web]\nstop = { timeout = \"30s\" }\ncommand = [\"sh\", \"-c\", '''bash -c 'trap \"sleep 4; echo 1 >> ended; exit\" TERM; echo $$ >> up; while :; do sleep 0.05; done'; true''']\n";
    let gateway = Gateway::start_copy(config, &[]);
    let pid = eventually("it runs", secs(20), || lines(&gateway, "up").first().copied().ok_or("not yet"));
    let leader = gateway.instance("web", 0).pid.expect("a process");
    std::thread::scope(|scope| {
        scope.spawn(|| gateway.cli(&["stop", "web"]));
        eventually("the leader has gone", secs(20), || if proc::alive(leader) { Err(leader) } else { Ok(()) });
        gateway.ask(&serde_json::json!({ "command": "upgrade" })).expect("an upgrade in the midst of it");
    });
    let before = (proc::alive(pid), gateway.instance("web", 0).state);
    gateway.wait_app("web", "stopped");
    assert!(!proc::alive(pid));
    assert_eq!(lines(&gateway, "ended"), [1], "{}", gateway.output());
    assert!(before != (true, "stopped".into()), "it is not stopped before the last of it has ended");
    assert!(gateway.cli(&["start", "web"]).status.success());
    gateway.wait_app("web", "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_orphans_are_reaped() {
    let config =
        "[app.web]\ncommand = [\"sh\", \"-c\", '''for i in 1 2 3 4 5; do (setsid sleep 0.2 & ); done; echo 1 >> up; exec sleep 1000''']\n";
    let gateway = Gateway::start(config);
    eventually("it runs", secs(20), || lines(&gateway, "up").first().copied().ok_or("not yet"));
    eventually("nothing of them is left", secs(10), || {
        let sleepers: Vec<u32> = gateway.processes().into_iter().filter(|pid| proc::command(*pid) == ["sleep", "0.2"]).collect();
        if sleepers.is_empty() && proc::zombies(gateway.pid()).is_empty() { Ok(()) } else { Err(sleepers) }
    });
    assert_eq!(gateway.instance("web", 0).restarts, 0);
}
