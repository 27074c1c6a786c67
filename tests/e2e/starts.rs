//! How an app is started and reached: PORT, {port} and {socket} in its environment, what runs before it, what nobody starts, and what a job leaves behind.

use std::fs;

use serde_json::Value;

use crate::{
    harness::{
        Gateway, Load, client, demo_app, eventually, get, heavy,
        load::How,
        proc, send,
        wait::{eventually_async, secs},
    },
    real::venv,
};

const SITE: &str = "[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n";
const QUICK: &str =
    "restart = { delay = \"100ms\", max_delay = \"300ms\", budget = \"100/1m\" }\nstop = { timeout = \"2s\", drain = \"1s\" }";

fn app(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.status();
    status["apps"].as_array().expect("apps").iter().find(|app| app["name"] == name).unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

fn wait_state(gateway: &Gateway, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), secs(40), || {
        let row = app(gateway, name)["instances"][0].clone();
        if row["state"] == state { Ok(row) } else { Err((row, gateway.output())) }
    })
}

async fn text(gateway: &Gateway, path: &str) -> String {
    eventually_async("it answers", secs(30), || async {
        match get(gateway.http(), "a.test", path).await {
            Ok(answer) if answer.status == 200 => Ok(answer.text()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn health(gateway: &Gateway) -> (u16, Value) {
    let answer = get(gateway.admin(), "localhost", "/health/detailed").await.expect("an answer");
    (answer.status.as_u16(), answer.json())
}

/// As it would run on Heroku.
const NODE: &str =
    "const http = require('http');\nhttp.createServer((q, s) => s.end(JSON.stringify(process.env))).listen(process.env.PORT);\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_app_that_takes_port_restarts_under_load_and_no_client_sees_it() {
    let _turn = heavy().await;
    let config = format!("[app.web]\ncommand = \"node app.js\"\nprocs = 2\nhealth = \"/\"\n{SITE}");
    let gateway = Gateway::start_beside(&[("app.js", NODE)], &config);
    gateway.wait_app_for("web", "ready", secs(60));
    let before = gateway.pids("web");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 20).start();
    load.more(200).await;
    for _ in 0..3 {
        let output = gateway.cli(&["restart", "web"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        load.more(200).await;
    }
    load.stop().await.assert_all_200();
    let now = gateway.pids("web");
    assert!(now.len() == 2 && before.iter().all(|pid| !now.contains(pid)), "{before:?} became {now:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_app_that_takes_port_is_deployed_under_load_and_no_client_sees_it() {
    let _turn = heavy().await;
    let config = format!("[app.web]\ncommand = \"node app.js\"\ndir = \"one\"\nhealth = \"/\"\ndeploy = {{ guard = \"1s\" }}\n{SITE}");
    let dir = crate::harness::gateway::workdir();
    for (release, word) in [("one", "first"), ("two", "second")] {
        fs::create_dir(dir.path().join(release)).expect("made");
        fs::write(dir.path().join(release).join("app.js"), NODE.replace("JSON.stringify(process.env)", &format!("'{word}'")))
            .expect("written");
    }
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let gateway = Gateway::start(&config.replace("dir = \"one\"", &format!("dir = \"{}\"", one.display())));
    gateway.wait_app_for("web", "ready", secs(60));
    assert_eq!(text(&gateway, "/").await, "first");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 10).start();
    load.more(100).await;
    let output = gateway.cli(&["deploy", "web", "--dir", two.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    load.more(100).await;
    load.stop().await.assert_all_200();
    assert_eq!(text(&gateway, "/").await, "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_filled_in_where_env_asks_for_it_and_an_env_file_goes_in_as_it_stands() {
    let file = "\u{feff}A=\"say \\\"hi\\\"\"\r\nB='{port} $HOME \\n'\r\n# a comment\nPORT=1\nGATEWAY_INSTANCE=7\n";
    let config = format!(
        "[app.web]\ncommand = \"node app.js\"\nenv_file = \"web.env\"\nenv = {{ BIND = \"127.0.0.1:{{port}}/{{n}}\" }}\nprocs = 1\n{SITE}"
    );
    let gateway = Gateway::start_beside(&[("app.js", NODE), ("web.env", file)], &config);
    let env: Value = serde_json::from_str(&text(&gateway, "/").await).expect("JSON");
    let address = app(&gateway, "web")["instances"][0]["address"].as_str().expect("an address").to_owned();
    assert_eq!(env["BIND"], format!("{address}/0"));
    assert_eq!(env["PORT"], address.rsplit_once(':').expect("a port").1);
    assert_eq!((&env["A"], &env["B"], &env["GATEWAY_INSTANCE"]), (&"say \"hi\"".into(), &"{port} $HOME \\n".into(), &"0".into()));
    // A socket, which the command does not name.
    let program = NODE.replace("process.env.PORT", "process.env.AT");
    let config = format!("[app.web]\ncommand = \"node app.js\"\nenv = {{ AT = \"{{socket}}\" }}\numask = \"000\"\n{SITE}");
    let gateway = Gateway::start_beside(&[("app.js", &program)], &config);
    let env: Value = serde_json::from_str(&text(&gateway, "/").await).expect("JSON");
    assert!(env["AT"].as_str().is_some_and(|path| path.ends_with("/app/web/0.sock")) && env["PORT"].is_null(), "{env}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_in_the_clear_is_spoken_to_an_app_that_says_so() {
    let program = "const http2 = require('http2');\nhttp2.createServer((q, s) => s.end(q.httpVersion + ' ' + q.headers[':authority'])).listen(process.env.PORT, '127.0.0.1');\n";
    let config = format!("[app.web]\ncommand = \"node app.js\"\nhttp = \"2\"\nready = {{ http = \"/\" }}\n{SITE}");
    let gateway = Gateway::start_beside(&[("app.js", program)], &config);
    gateway.wait_app("web", "ready");
    assert_eq!(text(&gateway, "/").await, "2.0 a.test");
    assert!(gateway.cli(&["restart", "web"]).status.success());
    assert_eq!(text(&gateway, "/").await, "2.0 a.test");
}

/// What the README says of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvicorn_and_gunicorn_behind_a_socket_believe_where_a_request_comes_from() {
    let _turn = heavy().await;
    let program = "from fastapi import FastAPI, Request\napp = FastAPI()\n@app.get('/')\ndef who(request: Request): return {'client': request.client and request.client.host, 'scheme': request.url.scheme}\n";
    let bin = venv().join("bin");
    let commands = [
        format!("{}/uvicorn main:app --uds {{socket}} --forwarded-allow-ips *", bin.display()),
        format!("{}/gunicorn main:app -k uvicorn_worker.UvicornWorker -w 1 --bind unix:{{socket}} --forwarded-allow-ips *", bin.display()),
        format!("{}/uvicorn main:app --port {{port}}", bin.display()),
        format!("{}/gunicorn main:app -k uvicorn_worker.UvicornWorker -w 1 --bind 127.0.0.1:{{port}}", bin.display()),
    ];
    for command in commands {
        let config = format!("trusted_proxies = [\"127.0.0.0/8\"]\n[app.web]\ncommand = \"{command}\"\n{SITE}");
        let gateway = Gateway::start_beside(&[("main.py", program)], &config);
        gateway.wait_app_for("web", "ready", secs(60));
        let asked = client::request("GET", "a.test", "/").header("x-forwarded-for", "203.0.113.7").header("x-forwarded-proto", "https");
        let answer = send(gateway.http(), asked.body(http_body_util::Full::default()).expect("a request")).await.expect("an answer");
        let said = answer.json();
        assert_eq!((&said["client"], &said["scheme"]), (&"203.0.113.7".into(), &"https".into()), "{command}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_without_autostart_is_started_by_a_person_alone_and_is_not_missed() {
    let app_of = |more: &str| format!("[app.web]\ncommand = \"{}\"\nautostart = false\n{more}\n{SITE}", demo_app("--port {port}"));
    let mut gateway = Gateway::start(&app_of(""));
    wait_state(&gateway, "web", "stopped");
    let (status, judged) = health(&gateway).await;
    assert!(status == 200 && judged["status"] == "healthy", "{judged}");
    gateway.reload(&app_of("procs = 2")).expect("good");
    assert!(gateway.pids("web").is_empty());
    let output = gateway.cli(&["start", "web"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gateway.wait_app("web", "ready").len(), 2);
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200);
    // A reload leaves it running, the end of gateway ends it, and a new gateway does not start it.
    gateway.reload(&app_of("procs = 1")).expect("good");
    eventually("one is left", secs(20), || if gateway.pids("web").len() == 1 { Ok(()) } else { Err(gateway.pids("web")) });
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_end(secs(30));
    gateway.start_again();
    wait_state(&gateway, "web", "stopped");
    assert!(gateway.pids("web").is_empty());
    // Until the file says otherwise.
    gateway.reload(&app_of("").replace("autostart = false\n", "")).expect("good");
    gateway.wait_app("web", "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_before_a_start_runs_before_each_one_and_as_the_app_does() {
    let config = format!(
        "[app.web]\ncommand = \"{}\"\nenv = {{ MODE = \"m{{n}}\" }}\nbefore_start = [\"sh -c 'echo first $MODE $GATEWAY_INSTANCE >> log'\", \"sh -c 'echo second >> log'\"]\n{QUICK}\n{SITE}",
        demo_app("--port {port}")
    );
    let gateway = Gateway::start(&config);
    gateway.wait_app("web", "ready");
    let log = || fs::read_to_string(gateway.dir().join("log")).unwrap_or_default();
    assert_eq!(log(), "first m0 0\nsecond\n");
    assert!(gateway.cli(&["restart", "web"]).status.success());
    assert_eq!(log(), "first m0 0\nsecond\n".repeat(2));
    proc::kill(gateway.pids("web")[0], nix::sys::signal::Signal::SIGKILL);
    eventually("it is prepared again", secs(20), || if log() == "first m0 0\nsecond\n".repeat(3) { Ok(()) } else { Err(log()) });
    gateway.wait_app("web", "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_a_start_is_a_failed_start_in_its_own_words() {
    let config = format!(
        "[app.web]\ncommand = \"{}\"\nbefore_start = {{ run = \"sh -c 'test -e good || {{ echo there is no database >&2; exit 3; }}'\", timeout = \"20s\" }}\n{QUICK}\n{SITE}",
        demo_app("--port {port}")
    );
    let gateway = Gateway::start(&config);
    let row = eventually("it has failed twice", secs(30), || {
        let row = app(&gateway, "web")["instances"][0].clone();
        if row["restarts"].as_u64() >= Some(2) { Ok(row) } else { Err(row) }
    });
    let exit = row["last_exit"].as_str().expect("a reason");
    assert!(exit.contains("before_start 1/1 (sh)") && exit.contains("exit 3") && exit.contains("there is no database"), "{exit}");
    assert!(row["pid"].is_null());
    fs::write(gateway.dir().join("good"), "").expect("written");
    gateway.wait_app("web", "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_before_a_start_is_ended_by_its_deadline_and_by_a_stop() {
    let config = |timeout: &str| {
        format!(
            "[app.web]\ncommand = \"{}\"\nbefore_start = {{ run = \"sleep 1000\", timeout = \"{timeout}\" }}\n{QUICK}\n{SITE}",
            demo_app("--port {port}")
        )
    };
    let gateway = Gateway::start(&config("1s"));
    eventually("it is late", secs(20), || {
        let row = app(&gateway, "web")["instances"][0].clone();
        if row["last_exit"].as_str().is_some_and(|exit| exit.contains("took longer than 1s")) { Ok(()) } else { Err(row) }
    });
    drop(gateway);
    let gateway = Gateway::start(&config("10m"));
    wait_state(&gateway, "web", "starting");
    eventually("it sleeps", secs(10), || {
        let sleeps = gateway.processes().into_iter().any(|pid| proc::command(pid).first().is_some_and(|word| word.ends_with("sleep")));
        if sleeps { Ok(()) } else { Err(()) }
    });
    assert!(gateway.cli(&["stop", "web"]).status.success());
    wait_state(&gateway, "web", "stopped");
    let left =
        gateway.processes().into_iter().filter(|pid| proc::command(*pid).first().is_some_and(|word| word.ends_with("sleep"))).count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn niceness_is_the_processes_own() {
    let config = format!("[app.web]\ncommand = \"{}\"\nnice = 7\n{SITE}", demo_app("--port {port}"));
    let gateway = Gateway::start(&config);
    gateway.wait_app("web", "ready");
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pids("web")[0])).expect("it lives");
    let nice = stat.rsplit_once(") ").expect("fields").1.split(' ').nth(16).map(str::to_owned);
    assert_eq!(nice.as_deref(), Some("7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_asks_with_the_host_that_is_written() {
    let program = "const http = require('http');\nhttp.createServer((q, s) => { s.statusCode = q.url == '/healthz' && q.headers.host != 'shop.example:8080' ? 400 : 200; s.end('ok'); }).listen(process.env.PORT, '127.0.0.1');\n";
    for probe in [
        "health = { path = \"/healthz\", host = \"shop.example:8080\", interval = \"200ms\" }",
        "ready = { http = \"/healthz\", host = \"shop.example:8080\" }\nlive = { http = \"/healthz\", host = \"shop.example:8080\", interval = \"200ms\" }",
    ] {
        let gateway = Gateway::start_beside(&[("app.js", program)], &format!("[app.web]\ncommand = \"node app.js\"\n{probe}\n{SITE}"));
        let pid = gateway.wait_app("web", "ready")[0].pid;
        let answered = gateway.output().len();
        eventually_async("some probes later", secs(10), || async {
            // Twenty probes take longer than three failures in a row.
            for _ in 0..20 {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            Ok::<(), ()>(())
        })
        .await;
        assert_eq!(gateway.wait_app("web", "ready")[0].pid, pid, "{}", &gateway.output()[answered..]);
        assert!(!gateway.output().contains("unhealthy"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_last_run_failed_is_failed_until_one_succeeds() {
    let config = "[app.nightly]\ncommand = [\"sh\", \"-c\", '''test -e good || { echo no disk; exit 4; }''']\nschedule = \"0 0 1 1 *\"\n";
    let gateway = Gateway::start(config);
    let row = wait_state(&gateway, "nightly", "stopped");
    assert!(row["last_exit"].is_null());
    assert!(gateway.cli(&["start", "nightly"]).status.success());
    let row = wait_state(&gateway, "nightly", "failed");
    assert!(row["last_exit"].as_str().is_some_and(|exit| exit.starts_with("exit 4")), "{row}");
    gateway.counts("gateway_app_state", &["app=\"nightly\"", "state=\"failed\""], 1.0).await;
    gateway.counts("gateway_app_state", &["app=\"nightly\"", "state=\"stopped\""], 0.0).await;
    let (_, judged) = health(&gateway).await;
    assert!(judged["status"] == "degraded" && judged.to_string().contains("nightly.0 failed (exit 4"), "{judged}");
    fs::write(gateway.dir().join("good"), "").expect("written");
    assert!(gateway.cli(&["start", "nightly"]).status.success());
    wait_state(&gateway, "nightly", "stopped");
    let (_, judged) = health(&gateway).await;
    assert_eq!(judged["status"], "healthy", "{judged}");
}
