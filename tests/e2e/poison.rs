//! Requests that kill whatever process they reach: what they cost the app, and those who share it with them.

use http_body_util::Full;
use serde_json::Value;

use crate::harness::{
    Answer, Gateway, Load,
    client::request,
    get, heavy,
    load::{How, Tally},
    send,
    wait::{eventually, eventually_async, secs},
};

const FASTAPI: &str = r#"
import os, signal
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
async def home(): return {"ok": True}

@app.get("/crash")
async def crash(): os.kill(os.getpid(), signal.SIGSEGV)

@app.post("/crash")
async def crash_by_post(): os._exit(7)
"#;

const EXPRESS: &str = r#"
const app = require("express")();
app.get("/", (_, answer) => answer.json({ ok: true }));
app.all("/crash", () => process.abort());
app.listen(process.argv[2]);
"#;

fn site(app: &str) -> String {
    format!("[app.web]\n{app}\nprocs = 2\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nheaders = \"off\"\napp = \"web\"\n")
}

fn fastapi() -> Gateway {
    let uvicorn = crate::real::venv().join("bin/uvicorn");
    let app = format!(
        "command = \"{} main:app --uds {{socket}} --log-level warning\"\ndir = \".\"\nready = {{ http = \"/\", timeout = \"60s\" }}",
        uvicorn.display()
    );
    Gateway::start_beside(&[("main.py", FASTAPI)], &site(&app))
}

fn express() -> Gateway {
    let app = format!(
        "command = \"node main.js {{socket}}\"\ndir = \".\"\nenv = {{ NODE_PATH = \"{}\" }}\nready = {{ http = \"/\", timeout = \"60s\" }}",
        crate::real::node_modules().display()
    );
    Gateway::start_beside(&[("main.js", EXPRESS)], &site(&app))
}

async fn crash(gateway: &Gateway, method: &str) -> Answer {
    send(gateway.http(), request(method, "a.test", "/crash").body(Full::default()).expect("a request")).await.expect("an answer")
}

fn exits(gateway: &Gateway) -> u64 {
    gateway.instances().iter().map(|instance| instance.restarts).sum()
}

/// Nobody but those who were in both processes when they ended, one of each connection at most.
fn assert_lost_at_most(tally: &Tally, connections: u64) {
    let lost = tally.answers.get(&502).copied().unwrap_or(0);
    let others: Vec<_> = tally.answers.keys().filter(|status| !matches!(status, 200 | 502)).collect();
    assert!(others.is_empty() && tally.broken == 0 && tally.refused == 0 && lost <= connections, "{tally:?}");
}

/// Under load: each one costs two processes at most, ends with 502, and the app is there for everybody else all the while.
async fn costs_two_processes_and_one_502(gateway: Gateway) {
    const CONNECTIONS: usize = 8;
    gateway.wait_app_for("web", "ready", secs(60));
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", CONNECTIONS).start();
    load.more(200).await;
    let poisons = 4;
    for round in 1..=poisons {
        let answer = crash(&gateway, "GET").await;
        assert_eq!(answer.status, 502, "{answer:?}");
        load.more(100).await;
        eventually("both processes are back", secs(60), || {
            let ready = gateway.instances().iter().filter(|instance| instance.state == "ready").count();
            if ready == 2 { Ok(()) } else { Err(gateway.instances()) }
        });
        assert!(exits(&gateway) <= 2 * round, "round {round}: {:?}", gateway.instances());
        load.more(100).await;
    }
    let tally = load.stop().await;
    assert_lost_at_most(&tally, CONNECTIONS as u64 * poisons);
    assert!(!gateway.output().contains("keeps failing"), "the budget is not spent by it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_fastapi_costs_two_processes_and_one_502() {
    let _turn = heavy().await;
    costs_two_processes_and_one_502(fastapi()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_express_costs_two_processes_and_one_502() {
    let _turn = heavy().await;
    costs_two_processes_and_one_502(express()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_kills_its_process_costs_one() {
    let _turn = heavy().await;
    let gateway = fastapi();
    gateway.wait_app_for("web", "ready", secs(60));
    let answer = crash(&gateway, "POST").await;
    assert_eq!(answer.status, 502);
    eventually("it is back", secs(30), || if exits(&gateway) == 1 { Ok(()) } else { Err(gateway.instances()) });
    gateway.wait_app_for("web", "ready", secs(60));
    assert_eq!(exits(&gateway), 1);
}

/// Alone in the app, so that nobody else can be suspected: named in the log of each exit, and in `why`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_named_as_the_suspect_of_each_exit() {
    let _turn = heavy().await;
    let gateway = fastapi();
    gateway.wait_app_for("web", "ready", secs(60));
    for _ in 0..4 {
        assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
    }
    let answer = crash(&gateway, "GET").await;
    assert_eq!(answer.status, 502);
    let id = answer.header("x-request-id").to_owned();
    let account = eventually_async("both ends are known", secs(10), || async {
        let why = gateway.cli(&["why", &id, "--json"]);
        let account: Value = serde_json::from_slice(&why.stdout).map_err(|_| format!("{why:?}"))?;
        let ended = account["ended"].as_array().map_or(0, Vec::len);
        if ended == 2 { Ok(account) } else { Err(account.to_string()) }
    })
    .await;
    for fate in account["ended"].as_array().expect("two") {
        assert_eq!(fate["end"]["signal"], 11, "{account}");
        assert_eq!(fate["suspects"][0]["request"], "GET /crash", "{account}");
        assert_eq!(fate["suspects"][0]["id"], id.as_str(), "{account}");
    }
    let text = String::from_utf8_lossy(&gateway.cli(&["why", &id]).stdout).into_owned();
    assert!(text.contains("it probably kills them"), "{text}");
    let log = gateway.output();
    assert!(log.contains("ended while it had this request") && log.contains("it probably kills them"), "{log}");
}

/// The processes answer nothing else: each one that comes is asked once, and the budget of the app ends it as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_process_is_held_for_once_and_killed_twice() {
    let _turn = heavy().await;
    let gateway = fastapi();
    gateway.wait_app_for("web", "ready", secs(60));
    let scaled = gateway.cli(&["scale", "web", "1"]);
    assert!(scaled.status.success(), "{scaled:?}");
    eventually("one process", secs(30), || if gateway.instances().len() == 1 { Ok(()) } else { Err(gateway.instances()) });
    let answer = crash(&gateway, "GET").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let after = get(gateway.http(), "a.test", "/").await.expect("an answer");
    assert_eq!(after.status, 200, "it waits for the next process");
    assert_eq!(exits(&gateway), 2, "{:?}", gateway.instances());
}
