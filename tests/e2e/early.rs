//! Answers that do not wait for the request's body: each of them is heard, whichever client is still sending.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{
        Gateway,
        h2raw::{self, DATA, END_STREAM, Fate, Frame, H2, HEADERS, RST_STREAM},
        tls::TlsClient,
        upstream::{self, Upstream},
        wait::secs,
    },
    real::venv,
};

const UPLOAD: usize = 5 << 20;

/// Answers 413 when it has a head, and closes with the body unread.
async fn refuses_early() -> Upstream {
    upstream::each(|mut stream, _| async move {
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        drop(stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge").await);
    })
    .await
}

/// What is answered before the body has come: each path and its status.
const ANSWERS: [(&str, u16); 9] = [
    ("/401", 401),
    ("/403", 403),
    ("/405", 405),
    ("/413", 413),
    ("/429", 429),
    ("/503", 503),
    ("/301", 301),
    ("/200", 200),
    // By the app.
    ("/app", 413),
];

async fn gateway() -> (Gateway, Upstream) {
    let app = refuses_early().await;
    let gateway = Gateway::start_beside(
        &[("users", "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"), ("body", &"x".repeat(UPLOAD))],
        &format!(
            r#"
[upstream.api]
servers = ["{}"]
[upstream.gone]
servers = ["{}"]
health = "/"
[zone.one]
key = "site"
rate = "1r/m"
burst = 0
[[site]]
host = "localhost"
tls = "internal"
[site.route."/"]
respond = "home"
[site.route."/401"]
upstream = "api"
auth = {{ basic = "users" }}
[site.route."/403"]
upstream = "api"
deny = ["127.0.0.0/8"]
[site.route."/405"]
upstream = "api"
methods = ["GET"]
[site.route."/413"]
upstream = "api"
limits = {{ body = "1KB" }}
[site.route."/429"]
upstream = "api"
zone = "one"
[site.route."/503"]
upstream = "gone"
[site.route."/301"]
redirect = {{ to = "https://localhost/200", status = 301 }}
[site.route."/200"]
respond = "as it is written"
[site.route."/app"]
upstream = "api"
"#,
            app.addr,
            upstream::refuses().await
        ),
    );
    (gateway, app)
}

/// The zone of `/429` is spent, and `/503` knows that its server is gone.
fn spend(gateway: &Gateway) {
    for path in ["/429", "/503"] {
        for _ in 0..5 {
            curl(gateway, path, &[]);
        }
    }
}

/// Status and what curl says of it.
fn curl(gateway: &Gateway, path: &str, words: &[&str]) -> (bool, String) {
    let port = gateway.https().port();
    let out = Command::new("curl")
        .args(["-sSk", "-m", "10", "-o", "answer", "-w", "%{http_version} %{http_code}", "--resolve"])
        .arg(format!("localhost:{port}:127.0.0.1"))
        .args(words)
        .arg(format!("https://localhost:{port}{path}"))
        .current_dir(gateway.dir())
        .stdin(fs::File::open(gateway.dir().join("body")).map_or_else(|_| Stdio::null(), Stdio::from))
        .output()
        .expect("curl runs");
    (out.status.success(), said(&out))
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Before, Debian 12's curl said "HTTP/2 stream 0 was not closed cleanly" (92), and no status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_hears_every_answer_while_it_uploads() {
    let (gateway, _app) = gateway().await;
    spend(&gateway);
    let put: &[&str] = &["--http2", "-T", "body"];
    let post: &[&str] = &["--http2", "--data-binary", "@body"];
    let chunked: &[&str] = &["--http2", "-T", "-"];
    let mut lost = Vec::new();
    for words in [put, post, chunked] {
        for (path, status) in ANSWERS {
            for _ in 0..2 {
                let (good, heard) = curl(&gateway, path, words);
                if !good || heard != format!("2 {status}") {
                    lost.push(format!("{path} {words:?}: {heard}"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "{} of 54:\n{}", lost.len(), lost.join("\n"));
    for words in [["--http1.1", "-T", "body"], ["--http1.1", "--data-binary", "@body"]] {
        for (path, status) in ANSWERS {
            let (good, heard) = curl(&gateway, path, &words);
            assert!(good && heard == format!("1.1 {status}"), "{path} {words:?}: {heard}");
        }
    }
}

const NODE: &str = r#"
const http2 = require("http2");
const [port, ...paths] = process.argv.slice(2);
const client = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false, maxSessionMemory: 100 });
let left = paths.length;
for (const path of paths) {
  const stream = client.request({ ":method": "POST", ":path": path });
  let status = 0, error = "";
  stream.on("response", headers => status = headers[":status"]);
  stream.on("error", e => error = e.message);
  stream.on("close", () => { console.log(path, status, error); if (--left === 0) client.close(); });
  stream.resume();
  stream.end(Buffer.alloc(5 << 20, "x"));
}
"#;

const HTTPX: &str = r#"
import httpx, sys
port, *paths = sys.argv[1:]
with httpx.Client(http2=True, verify=False, timeout=30) as client:
    for path in paths:
        try:
            answer = client.post(f"https://localhost:{port}{path}", content=b"x" * (5 << 20))
            assert answer.http_version == "HTTP/2"
            print(path, answer.status_code, "")
        except Exception as error:
            print(path, 0, repr(error))
"#;

/// All at once on one connection (node), one after the other on one connection (httpx).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_and_httpx_hear_every_answer_while_they_upload() {
    let (gateway, _app) = gateway().await;
    spend(&gateway);
    fs::write(gateway.dir().join("client.js"), NODE).expect("written");
    fs::write(gateway.dir().join("client.py"), HTTPX).expect("written");
    for (program, script) in [(Path::new("node").to_owned(), "client.js"), (venv().join("bin/python"), "client.py")] {
        let out = Command::new(&program)
            .arg(script)
            .arg(gateway.https().port().to_string())
            .args(ANSWERS.map(|(path, _)| path))
            .env("NODE_NO_WARNINGS", "1")
            .current_dir(gateway.dir())
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let mut heard: Vec<String> = said(&out).lines().map(|line| line.trim().to_owned()).collect();
        heard.sort();
        let mut wanted = ANSWERS.map(|(path, status)| format!("{path} {status}"));
        wanted.sort();
        assert_eq!(heard, wanted, "{}", program.display());
    }
}

const GIT: &str = r#"
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Git(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        refs = subprocess.run(["git", "receive-pack", "--http-backend-info-refs", "repo.git"], stdout=subprocess.PIPE).stdout
        self.say("application/x-git-receive-pack-advertisement", b"001f# service=git-receive-pack\n0000" + refs)
    def do_POST(self):
        if "Content-Length" in self.headers: body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        out = subprocess.run(["git", "receive-pack", "--stateless-rpc", "repo.git"], input=body, stdout=subprocess.PIPE).stdout
        self.say("application/x-git-receive-pack-result", out)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Git).serve_forever()
"#;

/// Before: "RPC failed; curl 92".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_says_why_its_push_is_refused() {
    let gateway = Gateway::start_beside(
        &[("git.py", GIT)],
        "[app.git]\ncommand = \"python3 git.py {port}\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"git\"\nlimits = { body = \"1MB\" }\n",
    );
    gateway.wait_app("git", "ready");
    let git = |words: &[&str]| {
        let url = format!("http.https://localhost:{}/.sslVerify=false", gateway.https().port());
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "http.version=HTTP/2", "-c", &url];
        Command::new("git").args(identity).args(words).current_dir(gateway.dir()).stdin(Stdio::null()).output().expect("git runs")
    };
    assert!(git(&["init", "-q", "--bare", "repo.git"]).status.success());
    assert!(git(&["init", "-q", "work"]).status.success());
    let mut noise = vec![0; UPLOAD];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    fs::File::create(gateway.dir().join("work/noise")).and_then(|mut file| file.write_all(&noise)).expect("written");
    assert!(git(&["-C", "work", "add", "noise"]).status.success());
    assert!(git(&["-C", "work", "commit", "-q", "-m", "noise"]).status.success());
    let to = format!("https://localhost:{}/repo.git", gateway.https().port());
    let pushed = git(&["-C", "work", "push", "-q", &to, "HEAD:main"]);
    assert!(!pushed.status.success());
    let heard = said(&pushed);
    assert!(heard.contains("HTTP 413") && !heard.contains("curl 92"), "{heard}");
}

async fn connect(gateway: &Gateway) -> H2 {
    H2::connect(gateway.https(), &TlsClient::internal(gateway), "localhost").await
}

fn post(path: &[u8], stream: u32) -> Vec<u8> {
    h2raw::headers(stream, 0, &[(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)])
}

/// The next frame of this stream.
async fn of(h2: &mut H2, stream: u32) -> Frame {
    loop {
        let frame = h2.frame(secs(15)).await.expect("in time").expect("the connection stands");
        if frame.stream == stream {
            return frame;
        }
    }
}

/// Sends so many bytes of a body as the windows allow, and its end, which may come early.
async fn upload(h2: &mut H2, stream: u32, bytes: usize, end: bool) {
    let (mut room, mut left) = (60_000_i64, bytes);
    while left > 0 {
        while room < 16_000 {
            let frame = of(h2, stream).await;
            assert_eq!(frame.kind, h2raw::WINDOW_UPDATE, "{frame:?}");
            room += i64::from(u32::from_be_bytes(frame.payload[..4].try_into().expect("four bytes")));
        }
        let piece = left.min(16_000);
        left -= piece;
        let flags = if end && left == 0 { END_STREAM } else { 0 };
        h2.send(&h2raw::frame(DATA, flags, stream, &vec![b'x'; piece])).await.expect("taken");
        room -= 16_000;
    }
}

/// Another request on the connection is answered, and no stream was reset before that.
async fn goes_on_without_a_reset(h2: &mut H2, stream: u32) {
    h2.send(&h2raw::headers(stream, END_STREAM, &h2raw::get(b"localhost", b"/200"))).await.expect("taken");
    loop {
        let frame = h2.frame(secs(15)).await.expect("in time").expect("the connection stands");
        assert!(frame.kind != RST_STREAM, "{frame:?}");
        if frame.stream == stream && frame.flags & END_STREAM != 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_body_comes_to_its_end_ends_without_a_reset() {
    let (gateway, _app) = gateway().await;
    let mut h2 = connect(&gateway).await;
    h2.send(&post(b"/301", 1)).await.expect("taken");
    let head = of(&mut h2, 1).await;
    assert_eq!((head.kind, head.flags & END_STREAM), (HEADERS, END_STREAM), "the answer does not wait for the body");
    // More than any window: it is granted anew as the body is dropped.
    upload(&mut h2, 1, 1 << 20, true).await;
    goes_on_without_a_reset(&mut h2, 3).await;
    // A success waits for the body, of which nothing is kept either.
    h2.send(&post(b"/200", 5)).await.expect("taken");
    upload(&mut h2, 5, 1 << 20, true).await;
    assert_eq!(h2.fate(5, secs(15)).await, Fate::Answered(200, "as it is written".into()));
    goes_on_without_a_reset(&mut h2, 7).await;
}

/// As curl does, which stops when it hears a refusal. The engine answered with PROTOCOL_ERROR, for which curl threw the answer away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cuts_its_body_short_for_the_answer_is_not_reset() {
    let (gateway, _app) = gateway().await;
    let mut h2 = connect(&gateway).await;
    let declared: h2raw::Fields<'_> = &[
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/403"),
        (b"content-length", b"5000000"),
    ];
    h2.send(&h2raw::headers(1, 0, declared)).await.expect("taken");
    upload(&mut h2, 1, 30_000, false).await;
    let mut frame = of(&mut h2, 1).await;
    while frame.flags & END_STREAM == 0 {
        frame = of(&mut h2, 1).await;
    }
    h2.send(&h2raw::frame(DATA, END_STREAM, 1, b"")).await.expect("taken");
    goes_on_without_a_reset(&mut h2, 3).await;
    // One that ends too early before it was answered is told what is wrong with it.
    let unanswered: h2raw::Fields<'_> = &[
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/200"),
        (b"content-length", b"5000000"),
    ];
    h2.send(&[h2raw::headers(5, 0, unanswered), h2raw::frame(DATA, END_STREAM, 5, b"x")].concat()).await.expect("taken");
    assert_eq!(h2.fate(5, secs(10)).await, Fate::Reset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_sending_without_a_word_is_reset_in_time_and_only_so_many_linger() {
    let (gateway, _app) = gateway().await;
    let mut h2 = connect(&gateway).await;
    // One connection may have sixteen of them; the rest is reset at once.
    let streams: Vec<u32> = (0..20).map(|n| 2 * n + 1).collect();
    for stream in &streams {
        h2.send(&post(b"/301", *stream)).await.expect("taken");
    }
    let (mut answered, mut reset) = (0, Vec::new());
    let began = std::time::Instant::now();
    while reset.len() < streams.len() {
        let frame = h2.frame(secs(15)).await.expect("in time").expect("the connection stands");
        match frame.kind {
            HEADERS if frame.flags & END_STREAM != 0 => answered += 1,
            RST_STREAM => {
                assert_eq!(frame.code(), Some(0), "NO_ERROR");
                reset.push(began.elapsed());
            }
            _ => {}
        }
    }
    assert_eq!(answered, streams.len());
    let early = reset.iter().filter(|at| **at < secs(4)).count();
    assert_eq!(early, 4, "{reset:?}");
    goes_on_without_a_reset(&mut h2, 101).await;
}
