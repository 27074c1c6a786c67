//! What is written where, and what is not.

use std::{fs, path::Path};

use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Gateway, client::request, demo_app, eventually, get, raw, send, wait::secs};

fn config(log: &str) -> String {
    format!(
        "[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[log]\n{log}\n",
        demo_app("--port {port}")
    )
}

fn lines(path: &Path, count: usize) -> Vec<String> {
    eventually(&format!("{} has {count} lines", path.display()), secs(15), || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count { Ok(lines) } else { Err(lines) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_in_json_has_a_line_for_every_request_and_no_request_can_forge_one() {
    let gateway = Gateway::start(&config("dir = \"logs\"\naccess = { format = \"json\", sample = 1.0 }"));
    gateway.wait_app("web", "ready");
    let addr = gateway.http();
    let nasty = request("GET", "a.test", "/echo?q=%0a%22")
        .header("user-agent", "a\"b\\c\u{e9}")
        .header("referer", "x\" \"y")
        .body(Full::default())
        .expect("a request");
    let id = send(addr, nasty).await.expect("an answer").header("x-request-id").to_owned();
    for _ in 0..4 {
        get(addr, "a.test", "/healthz").await.expect("an answer");
    }
    get(addr, "unknown.test", "/").await.expect("an answer");
    let log = lines(&gateway.dir().join("logs/access.log"), 6);
    assert_eq!(log.len(), 6, "{log:#?}");
    let records: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert_eq!(records.iter().filter(|record| record["id"] == id.as_str()).count(), 1, "{records:?}");
    let of = |host: &str| records.iter().filter(|record| record["host"] == host).collect::<Vec<_>>();
    assert_eq!(of("a.test").len(), 5);
    for record in of("a.test") {
        assert!(record["client"] == "127.0.0.1" && record["status"] == 200 && record["site"] == "a.test", "{record}");
    }
    assert_eq!(of("unknown.test")[0]["status"], 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_as_nginx_writes_it_is_rotated_by_size_and_reopened_on_usr1() {
    let gateway = Gateway::start(&config(
        "dir = \"logs\"\naccess = { format = \"combined\", sample = 1.0 }\nrotate = { size = \"20KB\", keep = 3, compress = false }",
    ));
    gateway.wait_app("web", "ready");
    let addr = gateway.http();
    let asked = request("GET", "a.test", "/healthz?a=b")
        .header("user-agent", "agent/1")
        .header("referer", "http://ref.test/")
        .body(Full::default())
        .expect("a request");
    send(addr, asked).await.expect("an answer");
    let path = gateway.dir().join("logs/access.log");
    let first = lines(&path, 1).remove(0);
    // 127.0.0.1 - - [22/Nov/2026:05:00:00 +0000] "GET /healthz?a=b HTTP/1.1" 200 2 "http://ref.test/" "agent/1"
    assert!(first.starts_with("127.0.0.1 - - ["), "{first}");
    assert!(first.contains("] \"GET /healthz?a=b HTTP/1.1\" 200 "), "{first}");
    assert!(first.ends_with("\"http://ref.test/\" \"agent/1\""), "{first}");

    // As logrotate does it: moved away, then USR1.
    fs::rename(&path, gateway.dir().join("logs/moved")).expect("moved");
    gateway.signal(Signal::SIGUSR1);
    eventually("a new file is there", secs(15), || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if path.exists() { Ok(()) } else { Err("no file") }
    });
    get(addr, "a.test", "/healthz?after").await.expect("an answer");
    assert!(lines(&path, 1).iter().any(|line| line.contains("/healthz?after")));

    let mut conn = crate::harness::Conn::h1(addr).await.expect("connected");
    for i in 0..1500 {
        let asked = request("GET", "a.test", &format!("/healthz?i={i}")).body(Full::default()).expect("a request");
        conn.send(asked).await.expect("an answer");
    }
    let files = || {
        let all = fs::read_dir(gateway.dir().join("logs")).expect("the log directory").filter_map(Result::ok);
        all.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with("access")).collect::<Vec<_>>()
    };
    eventually(
        "it was rotated and only so many are kept",
        secs(15),
        || if (2..=4).contains(&files().len()) { Ok(()) } else { Err(files()) },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_leave_no_error_in_the_log() {
    let gateway = Gateway::start(&config("dir = \"logs\"\nlevel = \"info\""));
    gateway.wait_app("web", "ready");
    let addr = gateway.http();
    for path in ["/slow?ms=3000", "/bytes/100000000", "/sse?n=100&ms=50"] {
        for _ in 0..5 {
            let mut stream = raw::connect(addr).await;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await.expect("sent");
            if !path.starts_with("/slow") {
                let mut some = [0; 100];
                stream.read_exact(&mut some).await.expect("it begins");
            }
            drop(socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)));
        }
    }
    // Half a head, half a body, half a handshake.
    for half in ["GET / HT", "POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf"] {
        let mut stream = raw::connect(addr).await;
        stream.write_all(half.as_bytes()).await.expect("sent");
    }
    let mut stream = raw::connect(gateway.https()).await;
    stream.write_all(&[0x16, 3, 1, 0]).await.expect("sent");
    drop(stream);
    gateway.counts("gateway_http_in_flight", &[], 0.0).await;
    assert_eq!(get(addr, "a.test", "/healthz").await.expect("an answer").status, 200);
    let error = fs::read_to_string(gateway.dir().join("logs/error.log")).unwrap_or_default();
    assert_eq!(error, "", "error.log is for what a human must act on");
    let log = fs::read_to_string(gateway.dir().join("logs/gateway.log")).expect("gateway.log");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_writes_is_in_its_own_log() {
    let gateway = Gateway::start(
        "[app.talks]\ncommand = [\"sh\", \"-c\", \"echo to stdout; echo to stderr >&2; exec sleep 1000\"]\n[log]\ndir = \"logs\"\n",
    );
    gateway.wait_app("talks", "ready");
    let log = lines(&gateway.dir().join("logs/talks.log"), 2).join("\n");
    assert!(log.contains("to stdout") && log.contains("to stderr"), "{log}");
    let own = fs::read_to_string(gateway.dir().join("logs/gateway.log")).expect("gateway.log");
    assert!(own.contains("talks") && !own.contains("to stdout"), "{own}");
}
