//! A release on trial that does not do: what it cannot take goes to the old one, and nothing reaches an app twice that may have had effect.

use std::fs;

use http_body_util::Full;

use crate::harness::{
    Gateway,
    client::request,
    get, heavy, send,
    wait::{eventually_async, secs},
};

/// Writes every POST down, and breaks off without a word.
const OLD: &str = r#"
const fs = require("fs");
require("http").createServer((request, answer) => {
  if (request.method === "POST") {
    fs.appendFileSync("../../posts", request.url + "\n");
    return request.socket.destroy();
  }
  answer.end("old");
}).listen(process.argv[2]);
"#;

/// Becomes ready, answers once as the one that serves, and takes no connection from then on.
const NEW: &str = r#"
const server = require("http").createServer((request, answer) => {
  answer.setHeader("connection", "close");
  answer.end("new");
  if (request.url === "/shut") server.close();
}).listen(process.argv[2]);
setInterval(() => {}, 1000);
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_that_a_release_on_trial_refuses_reach_the_old_one_once_each() {
    let _turn = heavy().await;
    let gateway = Gateway::start_beside(
        &[("releases/old/main.js", OLD), ("releases/new/main.js", NEW)],
        r#"
[app.web]
command = "node main.js {socket}"
dir = "releases/old"
procs = 3
ready = { http = "/", timeout = "30s" }
deploy = { guard = "60s", errors = 1.0 }
[[site]]
host = "a.test"
tls = "off"
app = "web"
"#,
    );
    gateway.wait_app_for("web", "ready", secs(60));
    let mut deploy = crate::deploy::in_background(&gateway, &["deploy", "web", "--dir", "releases/new"]);
    eventually_async("the new release serves", secs(60), || async {
        let answer = get(gateway.http(), "a.test", "/").await.map_err(|error| error.to_string())?;
        if answer.text() == "new" { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Each of its processes once; from the first that has shut on, its turns go to the others.
    for _ in 0..3 {
        assert_eq!(get(gateway.http(), "a.test", "/shut").await.expect("an answer").status, 200);
    }
    eventually_async("all of it has shut", secs(20), || async {
        let answer = get(gateway.http(), "a.test", "/").await.map_err(|error| error.to_string())?;
        if answer.text() == "old" { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let posts = 60;
    for n in 0..posts {
        let post = request("POST", "a.test", &format!("/{n}")).body(Full::from("x=1")).expect("a request");
        let answer = send(gateway.http(), post).await.expect("an answer");
        assert_eq!(answer.status, 502, "post {n}: {answer:?}");
    }
    let seen = fs::read_to_string(gateway.dir().join("posts")).expect("written");
    let mut seen: Vec<_> = seen.lines().map(str::to_owned).collect();
    seen.sort_unstable();
    let twice: Vec<_> = seen.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty() && seen.len() == posts, "{} of {posts} POSTs, twice: {twice:?}", seen.len());
    let _ = deploy.kill();
    let _ = deploy.wait();
}
