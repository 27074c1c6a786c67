//! Rate limits, counted exactly.

use std::{collections::BTreeMap, time::Instant};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};

use tokio::task::JoinSet;

use crate::harness::{
    Conn, Gateway,
    client::{request, request_h2},
    demo_app, get, send,
    tls::TlsClient,
    upstream,
    wait::{eventually_async, secs},
    ws::Socket,
};

mod count;
mod nginx;
mod turn;

const ZONE: &str = r#"
trusted_proxies = ["127.0.0.0/8"]
[zone.api]
rate = "10r/s"
burst = 20
[zone.key]
key = "header:X-Key"
rate = "1r/m"
burst = 2
status = 420
[[site]]
host = ["localhost"]
tls = "internal"
zone = "api"
[site.route."/"]
respond = { status = 200, body = "in" }
[[site]]
host = "a.test"
tls = "off"
zone = "key"
[site.route."/"]
respond = { status = 200, body = "in" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_requests_at_once_twenty_one_pass_and_another_client_is_not_touched() {
    let gateway = Gateway::start(ZONE);
    let tls = TlsClient::internal(&gateway);
    let conn = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let ask = |client: &'static str| {
        let mut sender = conn.share();
        async move {
            let asked = request_h2("GET", "localhost", "/").header("x-forwarded-for", client).body(Full::default()).expect("a request");
            let (answer, body) = sender.send_request(asked).await.expect("an answer").into_parts();
            // A body that is not read becomes a reset, and those are counted against us.
            body.collect().await.expect("the body");
            (answer.status.as_u16(), answer.headers.get("retry-after").map(|value| value.to_str().expect("text").to_owned()))
        }
    };
    // The connection is warm, so that the hundred leave together.
    assert_eq!(ask("203.0.113.9").await.0, 200);
    let begin = Instant::now();
    let answers = join_all((0..100).map(|_| ask("203.0.113.1"))).await;
    let took = begin.elapsed();
    let mut counted: BTreeMap<u16, usize> = BTreeMap::new();
    for (status, retry_after) in &answers {
        *counted.entry(*status).or_default() += 1;
        if *status == 429 {
            // A permit comes back each 100 ms, and Retry-After counts whole seconds: one.
            assert_eq!(retry_after.as_deref(), Some("1"));
        }
    }
    // One more for each tenth of a second that the hundred took to be judged.
    let more = usize::try_from(took.as_millis() / 100).expect("a small number");
    let passed = counted[&200];
    assert!((20..=22 + more).contains(&passed), "{counted:?} in {took:?}");
    assert_eq!(passed + counted[&429], 100, "{counted:?}");
    assert_eq!(ask("203.0.113.2").await.0, 200, "a second client has a budget of its own");
    // After the time that Retry-After names, the first is let in again.
    tokio::time::sleep(secs(1)).await;
    assert_eq!(ask("203.0.113.1").await.0, 200);
    let seen = async |result: &str| gateway.metric("gateway_zone_requests_total", &["zone=\"api\"", result]).await;
    assert_eq!(seen("rejected").await, counted[&429] as f64);
    assert_eq!(seen("passed").await, (passed + 3) as f64);
    let zones = gateway.cli(&["zones", "--json"]);
    assert!(zones.status.success() && String::from_utf8_lossy(&zones.stdout).contains("api"), "{zones:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_by_header_counts_each_value_apart_and_answers_with_its_own_status() {
    let gateway = Gateway::start(ZONE);
    let ask = |key: &'static str| {
        let addr = gateway.http();
        async move {
            send(addr, request("GET", "a.test", "/").header("x-key", key).body(Full::default()).expect("a request"))
                .await
                .expect("an answer")
        }
    };
    for _ in 0..3 {
        assert_eq!(ask("one").await.status, 200);
    }
    let refused = ask("one").await;
    assert_eq!(refused.status.as_u16(), 420);
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "{wait}");
    assert_eq!(ask("two").await.status, 200);
    // Without the header the client's address is the key.
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_clients_stay_under_the_key_cap() {
    let gateway = Gateway::start(&ZONE.replace("burst = 20", "burst = 20\nmax_keys = 5000"));
    let tls = TlsClient::internal(&gateway);
    let conn = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let memory = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS").to_owned();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number")
    };
    let edge = gateway.edge();
    let before = memory(edge);
    for block in 0..1000_u32 {
        let batch = (0..50_u32).map(|i| {
            let mut sender = conn.share();
            let client = std::net::Ipv4Addr::from(0x0b00_0000 + block * 50 + i).to_string();
            async move {
                let asked = request_h2("GET", "localhost", "/").header("x-forwarded-for", client).body(Full::default()).expect("a request");
                let (answer, body) = sender.send_request(asked).await.expect("an answer").into_parts();
                body.collect().await.expect("the body");
                answer.status
            }
        });
        assert!(join_all(batch).await.iter().all(|status| *status == 200 || *status == 429));
    }
    let keys = gateway.metric("gateway_zone_keys", &["zone=\"api\""]).await;
    assert!(keys <= 5000.0, "{keys}");
    let grown = memory(edge).saturating_sub(before);
    assert!(grown < 32 * 1024, "the edge grew by {grown} KB");
}

/// One site on `a.test` in the clear, where everything passes `zone`.
fn one(zone: &str, serves: &str) -> String {
    format!("trusted_proxies = [\"127.0.0.0/8\"]\n[zone.z]\n{zone}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nzone = \"z\"\n{serves}\n")
}

const HERE: &str = "[site.route.\"/\"]\nrespond = { status = 200, body = \"in\" }";

fn behind(server: std::net::SocketAddr) -> String {
    format!("upstream = \"far\"\n[upstream.far]\nservers = [\"{server}\"]")
}

async fn counted(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("gateway_zone_requests_total", &["zone=\"z\"", &format!("result=\"{result}\"")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_address_and_path_counts_each_pair_and_a_reload_keeps_what_is_spent() {
    let zone = "key = [\"ip\", \"path\"]\nrate = \"1r/m\"\nburst = 1";
    let gateway = Gateway::start(&one(zone, HERE));
    let ask = |path: &'static str, client: &'static str| {
        let addr = gateway.http();
        async move {
            let asked = request("GET", "a.test", path).header("x-forwarded-for", client).body(Full::default()).expect("a request");
            send(addr, asked).await.expect("an answer").status.as_u16()
        }
    };
    for (path, client) in [("/a", "203.0.113.1"), ("/b", "203.0.113.1"), ("/a", "203.0.113.2")] {
        assert_eq!((ask(path, client).await, ask(path, client).await, ask(path, client).await), (200, 200, 429), "{path} {client}");
    }
    assert_eq!(ask("/x/../%61", "203.0.113.1").await, 429, "another way to write a path is no other budget");
    gateway.reload(&one(&format!("{zone}\nstatus = 503\nmax_keys = 50"), HERE)).expect("it reloads");
    assert_eq!(ask("/a", "203.0.113.1").await, 503, "what is spent is spent, told by the new status");
    gateway.reload(&one(&format!("{zone}\nmode = \"observe\""), HERE)).expect("it reloads");
    for _ in 0..5 {
        assert_eq!(ask("/a", "203.0.113.1").await, 200);
    }
    assert_eq!(counted(&gateway, "would_reject").await, 5.0);
    let zones = gateway.cli(&["zones"]);
    let zones = String::from_utf8_lossy(&zones.stdout).into_owned();
    assert!(zones.contains("ip + path") && zones.contains("observe"), "{zones}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_two_at_once_of_one_client_until_one_is_answered_or_leaves() {
    let (far, word) = upstream::answers_when_told().await;
    let gateway = Gateway::start(&one("concurrent = 2", &behind(far.addr)));
    let addr = gateway.http();
    let mut asked = JoinSet::new();
    let ask = |asked: &mut JoinSet<u16>| {
        asked.spawn(async move { get(addr, "a.test", "/").await.expect("an answer").status.as_u16() });
    };
    let at_work = async |wanted: usize| {
        eventually_async("the upstream has them", secs(20), || async { if far.hits() == wanted { Ok(()) } else { Err(far.hits()) } }).await;
    };
    let again = async |wanted: usize| {
        // The permit comes back when the answer is out, which its client may see a moment before.
        eventually_async("there is room again", secs(20), || async {
            let mut leaves = Conn::h1(addr).await.expect("connected");
            let head = tokio::time::timeout(secs(1), leaves.start(request("GET", "a.test", "/").body(Full::default()).expect("a request")));
            match head.await {
                Ok(answer) => Err(answer.map(|answer| answer.status().as_u16())),
                // Not refused: it is at work.
                Err(_) if far.hits() == wanted => Ok(()),
                Err(_) => Err(Ok(0)),
            }
        })
        .await;
    };
    ask(&mut asked);
    ask(&mut asked);
    at_work(2).await;
    let refused = get(addr, "a.test", "/").await.expect("an answer");
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    // Another client is another key.
    let other = request("GET", "a.test", "/").header("x-forwarded-for", "203.0.113.9").body(Full::default()).expect("a request");
    asked.spawn(async move { send(addr, other).await.expect("an answer").status.as_u16() });
    at_work(3).await;
    word.add_permits(3);
    while let Some(status) = asked.join_next().await {
        assert_eq!(status.expect("it ran"), 200);
    }
    // All are answered: two again; and who leaves without an answer makes room too.
    again(4).await;
    again(5).await;
    again(6).await;
    assert_eq!(counted(&gateway, "passed").await, 6.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_counts_until_it_is_closed() {
    let app = format!("app = \"web\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"", demo_app("--port {port}"));
    let gateway = Gateway::start(&one("concurrent = 1", &app));
    gateway.wait_app("web", "ready");
    let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("it opens");
    socket.echo("through").await.expect("it carries");
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 429);
    drop(socket);
    eventually_async("another opens", secs(20), || Socket::open(gateway.http(), "a.test", "/ws")).await;
}
