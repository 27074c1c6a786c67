//! Who may come in: passwords from files that other programs wrote, another server that is asked, pages of other origins, and sites in maintenance.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;

use crate::harness::{
    Answer, Conn, Gateway, Load,
    client::{request, request_h2},
    get, heavy,
    load::How,
    raw, send,
    tls::TlsClient,
    upstream,
    wait::{eventually, ms, secs},
};

/// Runs Apache's htpasswd on FILE, made anew with these words.
fn htpasswd(file: &Path, words: &[&str], name: &str, password: &str) {
    let out = Command::new("htpasswd").args(words).arg("-b").arg(file).args([name, password]).output().expect("htpasswd runs");
    assert!(out.status.success(), "{out:?}");
}

fn claim(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

async fn ask(gateway: &Gateway, path: &str, authorization: Option<&str>) -> Answer {
    let mut asked = request("GET", "a.test", path);
    if let Some(field) = authorization {
        asked = asked.header("authorization", field);
    }
    send(gateway.http(), asked.body(Full::default()).expect("a request")).await.expect("an answer")
}

fn protected(upstream: SocketAddr, file: &Path) -> String {
    format!(
        r#"
[upstream.api]
servers = ["{upstream}"]
[log]
dir = "logs"
access = "combined"
[[site]]
host = ["a.test", "www.a.test"]
tls = "off"
upstream = "api"
auth = {{ basic = "{file}", realm = "Grafana" }}
[site.route."/open/"]
upstream = "api"
auth = "off"
[site.route."/pong"]
respond = "pong"
[site.route."/old"]
redirect = "/new"
[[site]]
host = "localhost"
tls = "internal"
upstream = "api"
auth = {{ basic = "{file}" }}
"#,
        file = file.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_htpasswd_let_their_users_in_and_nobody_else() {
    let behind = upstream::echo("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-B"], "bcrypt", "one two");
    htpasswd(&file, &["-B", "-C", "10"], "dear", "three:four");
    htpasswd(&file, &["-s"], "sha", "five");
    htpasswd(&file, &["-5"], "sha512", "six");
    let mut text = std::fs::read_to_string(&file).expect("it was written");
    text.push_str("argon2:$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHQxMjM0NTY3OA$HqfsbePhQ0iCjxxCv8RSOjxYwbqIqJUTetmvsCcFRxQ\n");
    std::fs::write(&file, text).expect("written");
    let gateway = Gateway::start(&protected(behind.addr, &file));
    let users = [("bcrypt", "one two"), ("dear", "three:four"), ("sha", "five"), ("sha512", "six"), ("argon2", "correct horse")];
    // The second time it is remembered.
    for _ in 0..2 {
        for (name, password) in users {
            let field = claim(name, password);
            let answer = ask(&gateway, "/x", Some(&field)).await;
            assert_eq!(answer.status, 200, "{name}");
            // As nginx does: the app may want to know.
            assert_eq!(answer.json()["headers"]["authorization"][0], field.as_str());
            for wrong in [claim(name, ""), claim(name, &format!("{password}.")), claim(&format!("{name}."), password)] {
                assert_eq!(ask(&gateway, "/x", Some(&wrong)).await.status, 401, "{name}");
            }
        }
    }
    let hits = behind.hits();
    for field in [None, Some("Basic"), Some("Basic !"), Some("Bearer x"), Some("Basic c2hh")] {
        let answer = ask(&gateway, "/x", field).await;
        assert_eq!(answer.status, 401, "{field:?}");
        assert_eq!(answer.header("www-authenticate"), r#"Basic realm="Grafana", charset="UTF-8""#);
        assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN");
    }
    // What we answer ourselves is as closed as the rest; what is open is open.
    for (path, status) in [("/pong", 401), ("/old", 401), ("/open/x", 200)] {
        assert_eq!(ask(&gateway, path, None).await.status, status, "{path}");
    }
    let field = claim("sha", "five");
    for (path, status) in [("/pong", 200), ("/old", 308)] {
        assert_eq!(ask(&gateway, path, Some(&field)).await.status, status, "{path}");
    }
    assert_eq!(behind.hits(), hits + 1, "only the open route went through");
    // The redirect to the canonical name tells nothing that needs a password.
    assert_eq!(get(gateway.http(), "www.a.test", "/x").await.expect("an answer").status, 308);
    let log = gateway.dir().join("logs/access.log");
    eventually("the user stands in the access log", secs(10), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let told = |line: &str| text.lines().any(|found| found.contains(line));
        // A name that was only claimed does not.
        let good = told(" - dear [") && told(" - - [") && !told("dear. [");
        if good { Ok(()) } else { Err(text) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_streams_pass_the_same_door() {
    let behind = upstream::echo("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-B", "-C", "10"], "alice", "secret");
    let gateway = Gateway::start(&protected(behind.addr, &file));
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for field in [String::new(), format!("Authorization: {}\r\n", claim("alice", "wrong"))] {
        let mut stream = raw::connect(gateway.http()).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{upgrade}{field}\r\n").as_bytes()).await.expect("sent");
        let said = raw::read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(raw::status(&said), 401, "{said}");
    }
    assert_eq!(behind.hits(), 0);
    let tls = TlsClient::internal(&gateway);
    let conn = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let field = claim("alice", "secret");
    // All at once, before anything is remembered: they wait for one verification.
    let asked = (0..50).map(|n| {
        let (mut sender, field) = (conn.share(), field.clone());
        async move {
            let asked = request_h2("POST", "localhost", &format!("/{n}")).header("authorization", field);
            let (head, body) =
                sender.send_request(asked.body(Full::from("hello")).expect("a request")).await.expect("an answer").into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            (head.status.as_u16(), String::from_utf8_lossy(&body).contains("hello"))
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| *answer == (200, true)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reads_the_file_again_and_what_was_remembered_is_void() {
    let behind = upstream::echo("api").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-B"], "alice", "old");
    let config = protected(behind.addr, &file);
    let gateway = Gateway::start(&config);
    let (old, new) = (claim("alice", "old"), claim("alice", "new"));
    assert_eq!(ask(&gateway, "/", Some(&old)).await.status, 200);
    assert_eq!(ask(&gateway, "/", Some(&new)).await.status, 401);
    htpasswd(&file, &["-B"], "alice", "new");
    gateway.reload(&config).expect("a reload");
    assert_eq!(ask(&gateway, "/", Some(&new)).await.status, 200);
    assert_eq!(ask(&gateway, "/", Some(&old)).await.status, 401);
    // A bad file changes nothing, and says where it is bad without saying what.
    std::fs::write(&file, "alice:hush-hush\n").expect("written");
    let refused = gateway.reload(&config).expect_err("a password is no hash");
    assert!(refused.contains("users:1") && refused.contains("htpasswd -B") && !refused.contains("hush"), "{refused}");
    assert_eq!(ask(&gateway, "/", Some(&new)).await.status, 200);
    let shown = gateway.cli(&["config", "show"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("hush"), "{shown:?}");
}

fn asked_at(upstream: SocketAddr, door: SocketAddr) -> String {
    format!(
        r#"
[upstream.api]
servers = ["{upstream}"]
[[site]]
host = "a.test"
tls = "off"
upstream = "api"
auth = {{ forward = "http://{door}/verify?rd=1", headers = ["Remote-User", "Remote-Groups", "Remote-Email"], timeout = "2s" }}
[site.route."/pong"]
respond = "pong"
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_says_who_comes_in_and_as_whom() {
    let behind = upstream::echo("api").await;
    let (door, asked) = upstream::door().await;
    let gateway = Gateway::start(&asked_at(behind.addr, door.addr));
    let with = |path: &'static str, cookie: &'static str| {
        request("POST", "a.test", path)
            .header("cookie", cookie)
            .header("authorization", "Bearer mine")
            .header("remote-user", "root")
            .header("Remote-Email", "root@a.test")
            .header("x-forwarded-uri", "/forged")
            .header("x-forwarded-method", "FORGED")
            .header("x-forwarded-for", "192.0.2.1")
            .header("x-original-url", "/forged")
            .header("if-none-match", "\"1\"")
            .header("x-hop", "1")
            .header("connection", "x-hop")
    };
    let answer =
        send(gateway.http(), with("/a%20b?c=d", "session=ok").body(Full::from("a body")).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let said = answer.json();
    // What the app is told is what the door says, and nothing that the client says of itself.
    assert_eq!(said["headers"]["remote-user"], serde_json::json!(["alice"]));
    assert_eq!(said["headers"]["remote-groups"], serde_json::json!(["staff", "admins"]));
    assert!(said["headers"]["remote-email"].is_null() && said["headers"]["x-door"].is_null(), "{said}");
    assert_eq!(said["body"], "a body");
    assert!(answer.headers.get("remote-user").is_none());
    let told = asked.lock().expect("not poisoned")[0].clone();
    for (key, wanted) in [("method", "GET"), ("target", "/verify?rd=1"), ("body", "")] {
        assert_eq!(told[key], wanted, "{told}");
    }
    for (name, wanted) in [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/a%20b?c=d"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("cookie", "session=ok"),
        ("authorization", "Bearer mine"),
    ] {
        assert_eq!(told["headers"][name], serde_json::json!([wanted]), "{name} {told}");
    }
    assert_eq!(told["headers"]["host"][0], door.addr.to_string());
    for name in ["content-length", "transfer-encoding", "x-original-url", "if-none-match", "x-hop", "connection"] {
        assert!(told["headers"][name].is_null(), "{name} {told}");
    }
    // Its refusal is the client's, word for word.
    let hits = behind.hits();
    for path in ["/x", "/pong"] {
        let answer = send(gateway.http(), with(path, "none=1").body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (302, "the door says"));
        assert_eq!(answer.header("location"), "https://login.test/?to=a");
        assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["try=1", "other=2"]);
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"door\"");
        assert!(answer.headers.get("x-hop").is_none() && answer.header("x-frame-options") == "SAMEORIGIN", "{answer:?}");
    }
    let answer = send(gateway.http(), with("/x", "stray").body(Full::default()).expect("a request")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (403, "text/plain"));
    assert_eq!(behind.hits(), hits, "nobody went past the door");
    // Connections are kept.
    let before = door.accepted.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        let answer = send(gateway.http(), with("/pong", "session=ok").body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "pong"));
    }
    let opened = door.accepted.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(opened <= 2, "{opened} connections for 20 questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_does_not_answer_lets_nobody_in_and_says_why() {
    let behind = upstream::echo("api").await;
    let gateway = Gateway::start(&asked_at(behind.addr, upstream::refuses().await));
    let refused = get(gateway.http(), "a.test", "/x").await.expect("an answer");
    assert_eq!(refused.status, 503);
    assert!(!refused.header("retry-after").is_empty());
    // It is remembered when all of it has been said.
    eventually("the reason is told", secs(10), || {
        let why = gateway.cli(&["why", refused.header("x-request-id")]);
        if String::from_utf8_lossy(&why.stdout).contains("auth.forward") { Ok(()) } else { Err(why) }
    });
    let (hangs, resets, much) = (upstream::hangs().await, upstream::resets().await, upstream::says_much(403, 1 << 20).await);
    for addr in [hangs.addr, resets.addr, much.addr] {
        gateway.reload(&asked_at(behind.addr, addr)).expect("a reload");
        assert_eq!(get(gateway.http(), "a.test", "/x").await.expect("an answer").status, 503);
        assert_eq!(get(gateway.http(), "a.test", "/pong").await.expect("an answer").status, 503);
    }
    // A yes is a yes, however much is said with it.
    let much = upstream::says_much(200, 1 << 20).await;
    gateway.reload(&asked_at(behind.addr, much.addr)).expect("a reload");
    assert_eq!(behind.hits(), 0);
    for _ in 0..3 {
        assert_eq!(get(gateway.http(), "a.test", "/x").await.expect("an answer").status, 200);
    }
    // A kept connection that was closed meanwhile costs nobody his answer.
    let stale = upstream::answers_once().await;
    gateway.reload(&asked_at(behind.addr, stale.addr)).expect("a reload");
    for _ in 0..4 {
        assert_eq!(get(gateway.http(), "a.test", "/x").await.expect("an answer").status, 200);
    }
    assert!(gateway.output().contains("auth could not be asked"), "{}", gateway.output());
}

const SHARED: &str = r#"
[[site]]
host = "a.test"
tls = "off"
upstream = "api"
auth = { basic = "USERS" }
cors = { origins = ["https://app.test", "https://*.corp.test"], methods = ["GET", "PUT"], headers = ["X-Mine"], credentials = true, max_age = "1h", expose = ["X-Total"] }
[site.route."/public/"]
respond = "for all"
auth = "off"
cors = ["*"]
[site.route."/own/"]
upstream = "api"
auth = "off"
cors = "off"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_listed_origins_may_ask_and_read_and_others_may_not() {
    let behind = upstream::serve_headers(&[("access-control-allow-origin", "*"), ("x-total", "7"), ("vary", "accept")]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-s"], "alice", "secret");
    let config = SHARED.replace("USERS", &file.display().to_string());
    let gateway = Gateway::start(&format!("[upstream.api]\nservers = [\"{}\"]\n{config}", behind.addr));
    let ask = |method: &'static str, path: &'static str, fields: Vec<(&'static str, String)>| {
        let addr = gateway.http();
        async move {
            let asked = fields.into_iter().fold(request(method, "a.test", path), |asked, (name, value)| asked.header(name, value));
            send(addr, asked.body(Full::default()).expect("a request")).await.expect("an answer")
        }
    };
    let told = |answer: &Answer| {
        let all = |name: &str| answer.headers.get_all(name).iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>().join("|");
        (answer.status.as_u16(), all("access-control-allow-origin"), all("access-control-allow-credentials"))
    };
    let text = str::to_owned;
    let preflight = |origin: &str| {
        vec![("origin", text(origin)), ("access-control-request-method", text("PUT")), ("access-control-request-headers", text("x-mine"))]
    };
    for origin in ["https://app.test", "https://a.b.corp.test"] {
        // A preflight has no password with it, and never comes to the app.
        let answer = ask("OPTIONS", "/x", preflight(origin)).await;
        assert_eq!(told(&answer), (204, text(origin), text("true")));
        for (name, wanted) in [
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-mine"),
            ("access-control-max-age", "3600"),
            ("x-frame-options", "SAMEORIGIN"),
        ] {
            assert_eq!(answer.header(name), wanted, "{name}");
        }
        let answer = ask("GET", "/x", vec![("origin", text(origin)), ("authorization", claim("alice", "secret"))]).await;
        assert_eq!(told(&answer), (200, text(origin), text("true")));
        assert_eq!(answer.header("access-control-expose-headers"), "x-total");
        assert_eq!(answer.headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept", "Origin"]);
        // A refusal can be read by the page that it is for.
        assert_eq!(told(&ask("GET", "/x", vec![("origin", text(origin))]).await), (401, text(origin), text("true")));
    }
    for origin in ["https://evil.test", "https://corp.test", "http://app.test", "https://app.test.evil.test", "null"] {
        let answer = ask("OPTIONS", "/x", preflight(origin)).await;
        assert_eq!(told(&answer), (204, text(""), text("")), "{origin}");
        assert_eq!(answer.header("access-control-allow-methods"), "");
        let answer = ask("GET", "/x", vec![("origin", text(origin)), ("authorization", claim("alice", "secret"))]).await;
        assert_eq!(told(&answer), (200, text(""), text("")), "{origin}");
    }
    assert_eq!(behind.hits(), 7, "preflights are ours");
    for origin in ["https://evil.test", "https://app.test"] {
        assert_eq!(told(&ask("GET", "/public/", vec![("origin", text(origin))]).await), (200, text("*"), text("")));
        assert_eq!(told(&ask("OPTIONS", "/public/", preflight(origin)).await), (204, text("*"), text("")));
        assert_eq!(told(&ask("OPTIONS", "/own/", preflight(origin)).await), (200, text("*"), text("")), "it is the app's");
    }
}

fn maintained(upstream: SocketAddr, on: bool) -> String {
    format!(
        r#"
[upstream.api]
servers = ["{upstream}"]
[log]
dir = "logs"
access = "combined"
[[site]]
host = "a.test"
aliases = ["b.test"]
tls = "off"
upstream = "api"
maintenance = {{ on = {on}, page = "down.html", secret = "open-sesame", retry_after = "2m" }}
[[site]]
host = "other.test"
tls = "off"
upstream = "api"
"#
    )
}

const DOWN: &str = "<!doctype html><title>soon</title><p style=\"color: red\">back soon</p>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_is_switched_under_load_without_another_failure_and_outlives_edges_reloads_and_restarts() {
    let _turn = heavy().await;
    let behind = upstream::says("hello").await;
    let mut gateway = Gateway::start_beside(&[("down.html", DOWN)], &maintained(behind.addr, false));
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/x", 8).start();
    let others = Load::new(gateway.http(), How::Plain, "other.test", "/x", 4).start();
    load.more(200).await;
    for _ in 0..5 {
        for (word, wanted) in [("on", 503), ("off", 200)] {
            let out = gateway.cli(&["maintenance", "a.test", word]);
            assert!(out.status.success(), "{out:?}");
            // The command has come back: it is so.
            for _ in 0..4 {
                assert_eq!(get(gateway.http(), "a.test", "/x").await.expect("an answer").status, wanted);
            }
            load.more(50).await;
        }
    }
    let tally = load.stop().await;
    assert!(tally.answers.keys().all(|status| [200, 503].contains(status)) && tally.answers.len() == 2, "{tally:?}");
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    others.stop().await.assert_all_200();
    // By another of its names, too.
    assert!(gateway.cli(&["maintenance", "b.test", "on"]).status.success());
    let page = get(gateway.http(), "a.test", "/x").await.expect("an answer");
    assert_eq!((page.status.as_u16(), page.text().as_str(), page.header("retry-after")), (503, DOWN, "120"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let shown = gateway.cli(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("a.test (maintenance)"), "{shown:?}");
    assert_eq!(gateway.status()["sites"][0]["maintenance"], true);
    let wrong = gateway.cli(&["maintenance", "c.test", "on"]);
    assert!(wrong.status.code() == Some(1) && String::from_utf8_lossy(&wrong.stderr).contains("a.test, other.test"), "{wrong:?}");
    let closed = async |gateway: &Gateway| get(gateway.http(), "a.test", "/x").await.expect("an answer").status.as_u16();
    // Another edge, another plan, another process: it is closed until somebody opens it.
    let before = gateway.edge();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(before).expect("a pid")), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    eventually("there is another edge", secs(20), || gateway.edge_pid().filter(|pid| *pid != before).ok_or("not yet"));
    gateway.wait_ready();
    assert_eq!(closed(&gateway).await, 503);
    gateway.reload(&maintained(behind.addr, false).replace("2m", "3m")).expect("a reload");
    assert_eq!(closed(&gateway).await, 503);
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_end(secs(20));
    gateway.start_again();
    assert_eq!(closed(&gateway).await, 503);
    // The configuration has a word of its own again, as soon as it says something else.
    gateway.reload(&maintained(behind.addr, true)).expect("a reload");
    assert_eq!(closed(&gateway).await, 503);
    assert!(gateway.cli(&["maintenance", "a.test", "off"]).status.success());
    assert_eq!(closed(&gateway).await, 200);
    gateway.reload(&maintained(behind.addr, false)).expect("a reload");
    assert_eq!(closed(&gateway).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knows_the_word_sees_the_site_and_neither_the_app_nor_the_log_sees_the_word() {
    let behind = upstream::echo("api").await;
    let gateway = Gateway::start_beside(&[("down.html", DOWN)], &maintained(behind.addr, true));
    let ask = |path: &'static str, name: &'static str, value: String| {
        let addr = gateway.http();
        async move {
            send(addr, request("GET", "a.test", path).header(name, value).body(Full::default()).expect("a request"))
                .await
                .expect("an answer")
        }
    };
    assert_eq!(ask("/x?gateway-maintenance=wrong-word", "accept", "text/html".into()).await.status, 503);
    let redeemed = ask("/x?a=1&gateway-maintenance=open-sesame", "accept", "text/html".into()).await;
    assert_eq!((redeemed.status.as_u16(), redeemed.header("location")), (303, "/x?a=1"));
    let cookie = redeemed.header("set-cookie").split(';').next().expect("a pair").to_owned();
    let seen = ask("/x?a=1", "cookie", cookie.clone()).await;
    assert_eq!((seen.status.as_u16(), seen.json()["target"].as_str()), (200, Some("/x?a=1")));
    let seen = ask("/y", "gateway-maintenance", "open-sesame".into()).await;
    assert_eq!(seen.status, 200);
    assert!(seen.json()["headers"]["gateway-maintenance"].is_null(), "{}", seen.text());
    assert_eq!(ask("/x", "cookie", format!("{cookie}1")).await.status, 503);
    assert_eq!(behind.hits(), 2);
    // Who takes the word to another site, or to none, does not have it written down either.
    for host in ["other.test", "unknown.test"] {
        let asked = request("GET", host, "/z?gateway-maintenance=open-sesame").body(Full::default()).expect("a request");
        send(gateway.http(), asked).await.expect("an answer");
    }
    let log = gateway.dir().join("logs/access.log");
    eventually("all of it is in the access log", secs(10), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.lines().count() == 7 && text.contains("\"GET /x HTTP/1.1\" 303") && !text.contains("sesame") { Ok(()) } else { Err(text) }
    });
    let shown = gateway.cli(&["config", "show"]);
    assert!(shown.status.success() && !String::from_utf8_lossy(&shown.stdout).contains("sesame"), "{shown:?}");
    assert!(!gateway.output().contains("sesame") && !gateway.status().to_string().contains("sesame"));
}

/// How long other requests took while something went on: a client at a pace of its own, one request at a time, on a connection that stays.
async fn beside(addr: SocketAddr, asked: [(&'static str, Option<String>); 2], until: Instant) -> (usize, Duration) {
    let mut conn = Conn::h1(addr).await.expect("connected");
    let mut took = Vec::new();
    while Instant::now() < until {
        for (host, field) in &asked {
            let mut request = request("GET", host, "/");
            if let Some(field) = field {
                request = request.header("authorization", field);
            }
            let began = Instant::now();
            let answer = conn.send(request.body(Full::default()).expect("a request")).await.expect("an answer");
            took.push(began.elapsed());
            assert_eq!(answer.status, 200, "{host}");
            tokio::time::sleep(ms(2)).await;
        }
    }
    took.sort_unstable();
    (took.len(), took[(took.len() - 1) * 99 / 100])
}

/// The Show line: 10,000 wrong attempts a minute, each a new guess against a hash that takes some 50 ms, half of them from as many addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wrong_passwords_a_minute_do_not_move_the_p99_of_other_requests() {
    wrong_passwords_for(secs(6)).await;
}

pub async fn wrong_passwords_for(span: Duration) {
    const EVERY: Duration = Duration::from_millis(6);
    let _turn = heavy().await;
    let behind = upstream::says("hello").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-B", "-C", "10"], "alice", "secret");
    let sites = protected(behind.addr, &file);
    let other = "[[site]]\nhost = \"other.test\"\ntls = \"off\"\nupstream = \"api\"\n";
    let gateway = Gateway::start(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{sites}{other}"));
    let addr = gateway.http();
    // One of them proves who he is with each request: what was right is remembered.
    let good = claim("alice", "secret");
    assert_eq!(ask(&gateway, "/", Some(&good)).await.status, 200);
    let asked = || [("other.test", None), ("a.test", Some(good.clone()))];
    let (_, alone) = beside(addr, asked(), Instant::now() + secs(3)).await;
    let until = Instant::now() + span;
    let attack = async move {
        let (mut tick, mut flying) = (tokio::time::interval(EVERY), JoinSet::new());
        let mut n = 0_u32;
        while Instant::now() < until {
            tick.tick().await;
            let from = Ipv4Addr::from(0x0b00_0000 + if n.is_multiple_of(2) { n } else { 1 });
            let asked = request("GET", "a.test", "/").header("authorization", claim("alice", &format!("guess {n}")));
            let asked = asked.header("x-forwarded-for", from.to_string()).body(Full::default()).expect("a request");
            flying.spawn(async move { send(addr, asked).await.expect("an answer").status.as_u16() });
            n += 1;
        }
        flying.join_all().await
    };
    let ((requests, p99), statuses) = tokio::join!(beside(addr, asked(), until), attack);
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    let (refused, busy) = (count(401), count(503));
    println!(
        "p99 alone {alone:.1?}, beside {} attempts {p99:.1?} ({requests} requests); of these 401 {refused}, 503 {busy}",
        statuses.len()
    );
    assert_eq!(refused + busy, statuses.len(), "nobody came in");
    assert!(refused > 0 && busy > 0, "401 {refused}, 503 {busy}: more than can be verified, and some were");
    // A pace of its own, and a machine that others share: of 167 a second at least a third must have been made.
    assert!(statuses.len() as f64 > span.as_secs_f64() * 55.0, "{} attempts in {span:?}", statuses.len());
    assert!(p99 <= 3 * alone + ms(20), "alone {alone:?}, beside the attack {p99:?}");
}

/// Whoever logs in for the first time beside a guesser waits for the few of his guesses that may wait, and for no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guesser_keeps_nobody_else_from_logging_in() {
    let behind = upstream::says("hello").await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    htpasswd(&file, &["-c", "-B", "-C", "10"], "alice", "secret");
    let gateway = Gateway::start(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{}", protected(behind.addr, &file)));
    let addr = gateway.http();
    let ask = |from: &'static str, password: String| async move {
        let asked = request("GET", "a.test", "/").header("authorization", claim("alice", &password)).header("x-forwarded-for", from);
        send(addr, asked.body(Full::default()).expect("a request")).await.expect("an answer")
    };
    let guesses = futures_util::future::join_all((0..200).map(|n| ask("203.0.113.1", format!("guess {n}"))));
    let honest = async {
        // The guesses are there by now, or come meanwhile.
        tokio::time::sleep(ms(50)).await;
        ask("203.0.113.2", "secret".to_owned()).await
    };
    let (guesses, honest) = tokio::join!(guesses, honest);
    assert_eq!(honest.status, 200);
    let busy: Vec<_> = guesses.iter().filter(|answer| answer.status == 503).collect();
    assert!(busy.len() >= 150, "{} of {} were sent away", busy.len(), guesses.len());
    assert!(busy.iter().all(|answer| answer.header("retry-after") == "1"));
    assert!(guesses.iter().all(|answer| answer.status == 503 || answer.status == 401));
}
