//! Programs that people run: uvicorn with FastAPI, node, nginx.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use http_body_util::Full;
use nix::sys::signal::Signal;

use crate::harness::{
    Conn, Gateway, Load, binary,
    client::request,
    gateway::workdir,
    get, heavy,
    load::How,
    proc, send,
    tls::TlsClient,
    upstream,
    wait::{eventually, secs},
    ws::Socket,
};

/// Made by `./dev tools`.
pub fn venv() -> PathBuf {
    let target = Path::new(binary()).ancestors().nth(2).expect("target/debug/gateway").to_owned();
    let venv = target.join("e2e-venv");
    assert!(venv.join("bin/uvicorn").exists(), "{} has no uvicorn: run ./dev tools once, or ./dev test", venv.display());
    venv
}

/// Packages of npm, made by `./dev tools`: the value of NODE_PATH.
pub fn node_modules() -> PathBuf {
    let target = Path::new(binary()).ancestors().nth(2).expect("target/debug/gateway").to_owned();
    let modules = target.join("e2e-node/node_modules");
    assert!(modules.join("express").exists(), "{} has no express: run ./dev tools once, or ./dev test", modules.display());
    modules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fastapi_app_on_uvicorn_behind_a_unix_socket() {
    let _turn = heavy().await;
    let program = r#"
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
app = FastAPI()

@app.get("/healthz")
def healthz(): return {"ok": True}

@app.post("/sum")
async def total(request: Request): return {"sum": sum(await request.json()), "client": request.client, "scheme": request.url.scheme}

@app.get("/stream")
def stream(): return StreamingResponse((f"line {i}\n" for i in range(1000)), media_type="text/plain")

@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    while True: await socket.send_text(await socket.receive_text())
"#;
    let config = format!(
        "[app.api]\ncommand = \"{}/bin/uvicorn main:app --uds {{socket}} --proxy-headers --forwarded-allow-ips=*\"\nprocs = 2\nhealth = \"/healthz\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"api\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"api\"\n",
        venv().display()
    );
    let gateway = Gateway::start_beside(&[("main.py", program)], &config);
    let both = gateway.wait_app_for("api", "ready", secs(60));
    let tls = TlsClient::internal(&gateway);
    let mut conn = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let asked =
        request("POST", "localhost", "/sum").header("content-type", "application/json").body(Full::from("[1, 2, 39]")).expect("a request");
    let answer = conn.send(asked).await.expect("an answer");
    assert_eq!(answer.json()["sum"], 42, "{}", answer.text());
    assert_eq!(answer.json()["scheme"], "https", "uvicorn believes X-Forwarded-Proto");
    assert!(answer.header("server").is_empty(), "uvicorn's Server header stays inside");
    assert_eq!(get(gateway.http(), "a.test", "/stream").await.expect("an answer").text().lines().count(), 1000);
    let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens");
    socket.echo("through uvicorn").await.expect("an echo");
    // One of two is killed under load.
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8).start();
    load.more(100).await;
    proc::kill(both[0].pid.expect("a process"), Signal::SIGKILL);
    load.more(100).await;
    eventually("it is back", secs(60), || {
        let now = gateway.instance("api", both[0].n);
        if now.state == "ready" && now.pid != both[0].pid { Ok(()) } else { Err(now) }
    });
    let tally = load.stop().await;
    // uvicorn writes head and body apart: an answer whose head had gone out when its process was killed cannot be taken back.
    assert!(tally.answers.keys().all(|status| *status == 200) && tally.refused == 0 && tally.broken <= 4, "{tally:?}");
    let restarted = gateway.cli(&["restart", "api"]);
    assert!(restarted.status.success(), "{restarted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_app_behind_a_port() {
    let program = r#"
const http = require("http");
http.createServer((request, response) => {
  if (request.url === "/crash") process.exit(7);
  let body = "";
  request.on("data", chunk => body += chunk);
  request.on("end", () => {
    response.setHeader("X-Powered-By", "node");
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ url: request.url, body, host: request.headers.host, ip: request.headers["x-real-ip"], n: process.env.GATEWAY_INSTANCE }));
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
"#;
    let gateway = Gateway::start_beside(
        &[("app.js", program)],
        "[app.node]\ncommand = \"node app.js {port}\"\nhealth = \"/healthz\"\nrestart = { delay = \"100ms\" }\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"node\"\n",
    );
    gateway.wait_app("node", "ready");
    let answer =
        send(gateway.http(), request("POST", "a.test", "/x?y=1").body(Full::from("body")).expect("a request")).await.expect("an answer");
    let seen = answer.json();
    assert_eq!(
        (seen["url"].as_str(), seen["body"].as_str(), seen["host"].as_str(), seen["ip"].as_str()),
        (Some("/x?y=1"), Some("body"), Some("a.test"), Some("127.0.0.1"))
    );
    assert!(!answer.headers.contains_key("x-powered-by"));
    // Node closes idle connections after 5 s; ours are given up before that. Then it crashes in the middle of a request.
    assert_eq!(
        send(gateway.http(), request("POST", "a.test", "/crash").body(Full::default()).expect("a request"))
            .await
            .expect("an answer")
            .status,
        502
    );
    eventually("it is back", secs(30), || {
        let now = gateway.instance("node", 0);
        if now.state == "ready" && now.restarts == 1 && now.last_exit.contains('7') { Ok(()) } else { Err(now) }
    });
    gateway.wait_app("node", "ready");
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        proc::kill(self.0.id(), Signal::SIGTERM);
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_an_upstream() {
    let dir = workdir();
    let addr = upstream::refuses().await;
    fs::create_dir(dir.path().join("www")).expect("a directory");
    fs::write(dir.path().join("www/big.txt"), "0123456789\n".repeat(200_000)).expect("written");
    fs::write(
        dir.path().join("nginx.conf"),
        format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\nserver {{ listen {addr}; root {0}/www; location /health {{ return 200 ok; }} location /back {{ return 302 /health; }} }} }}\n",
            dir.path().display()
        ),
    )
    .expect("written");
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("nginx is installed: run ./dev tools once, or ./dev test"));
    let _nginx = Nginx(command.arg("-p").arg(dir.path()).arg("-c").arg("nginx.conf").stderr(Stdio::null()).spawn().expect("nginx starts"));
    let gateway = Gateway::start(&format!(
        "[upstream.nginx]\nservers = [\"{addr}\"]\nhealth = {{ path = \"/health\", interval = \"200ms\", timeout = \"2s\", fail = 2, pass = 1 }}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"nginx\"\n"
    ));
    crate::harness::wait::eventually_async("nginx is up", secs(20), || async {
        match get(gateway.http(), "a.test", "/health").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let big = get(gateway.http(), "a.test", "/big.txt").await.expect("an answer");
    assert_eq!(big.body.len(), 11 * 200_000);
    let part =
        send(gateway.http(), request("GET", "a.test", "/big.txt").header("range", "bytes=11-21").body(Full::default()).expect("a request"))
            .await
            .expect("an answer");
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "0123456789\n"));
    assert_eq!(get(gateway.http(), "a.test", "/nothing").await.expect("an answer").status, 404);
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/health", 16).run(5000).await;
    load.assert_all_200();
}
