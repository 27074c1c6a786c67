//! Zones that only some answers spend of, and what answers say of what is left.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use http_body_util::Full;
use tokio::task::JoinSet;

use super::{HERE, behind, counted, one};
use crate::harness::{
    Answer, Gateway,
    client::request,
    get, send, upstream,
    wait::{eventually_async, secs},
};

async fn ask(gateway: &Gateway, path: &'static str, client: &'static str) -> Answer {
    let asked = request("GET", "a.test", path).header("x-forwarded-for", client).body(Full::default()).expect("a request");
    send(gateway.http(), asked).await.expect("an answer")
}

const LOGIN: &str = "rate = \"1r/m\"\nburst = 4\ncount = [401, 403]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_failed_logins_and_any_number_of_good_ones() {
    let far = upstream::answers_by_path().await;
    let gateway = Gateway::start(&one(LOGIN, &behind(far.addr)));
    let status = async |path: &'static str, client: &'static str| ask(&gateway, path, client).await.status.as_u16();
    for _ in 0..20 {
        assert_eq!(status("/200", "203.0.113.1").await, 200);
    }
    for path in ["/401", "/403", "/404", "/401", "/200", "/500", "/401", "/401"] {
        assert_eq!(format!("/{}", status(path, "203.0.113.1").await), path);
    }
    assert_eq!(status("/200", "203.0.113.1").await, 429, "the fifth has failed");
    assert_eq!(status("/401", "203.0.113.2").await, 401, "of another client nothing is spent");
    assert_eq!(far.hits(), 29, "who is refused reaches nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_guesses_at_once_are_five_and_honest_requests_at_once_all_pass() {
    let far = upstream::answers_by_path().await;
    // Who does not wait for a drain waits for answers all the same.
    let gateway = Gateway::start(&format!("{}\n[timeouts]\ndrain = \"0s\"\n", one(LOGIN, &behind(far.addr))));
    let many = async |path: &'static str, client: &'static str| {
        let mut all: BTreeMap<u16, usize> = BTreeMap::new();
        for answer in join_all((0..100).map(|_| ask(&gateway, path, client))).await {
            *all.entry(answer.status.as_u16()).or_default() += 1;
        }
        all
    };
    // A minute is long enough for a hundred requests on loopback.
    assert_eq!(many("/401", "203.0.113.1").await, BTreeMap::from([(401, 5), (429, 95)]));
    assert_eq!(many("/200", "203.0.113.2").await, BTreeMap::from([(200, 100)]));
    assert_eq!(counted(&gateway, "rejected").await, 95.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_answers_of_others_leaves_when_its_client_does() {
    let (far, word) = upstream::answers_when_told().await;
    let gateway = Gateway::start(&one("rate = \"1r/m\"\ncount = [401]", &behind(far.addr)));
    let addr = gateway.http();
    let waiting = async |wanted: f64| {
        eventually_async(&format!("{wanted} wait"), secs(20), || async {
            let waiting = gateway.metric("gateway_zone_waiting", &["zone=\"z\""]).await;
            if waiting == wanted { Ok(()) } else { Err(waiting) }
        })
        .await;
    };
    let (mut first, mut leaves, mut stays) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let go = |set: &mut JoinSet<u16>| {
        set.spawn(async move { get(addr, "a.test", "/").await.expect("an answer").status.as_u16() });
    };
    go(&mut first);
    eventually_async("it is at work", secs(20), || async { if far.hits() == 1 { Ok(()) } else { Err(far.hits()) } }).await;
    go(&mut leaves);
    waiting(1.0).await;
    go(&mut stays);
    waiting(2.0).await;
    leaves.shutdown().await;
    waiting(1.0).await;
    word.add_permits(2);
    assert_eq!(first.join_next().await.expect("one").expect("it ran"), 200);
    assert_eq!(stays.join_next().await.expect("one").expect("it ran"), 200);
    assert_eq!((far.hits(), counted(&gateway, "delayed").await), (2, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_answers_count_as_well() {
    let users = ("users.htpasswd", "ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n");
    let route = format!("{HERE}\nauth = {{ basic = \"users.htpasswd\" }}");
    let gateway = Gateway::start_beside(&[users], &one(LOGIN, &route));
    let login = async |password: &str| {
        let token = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ann:{password}"));
        let asked = request("GET", "a.test", "/").header("authorization", format!("Basic {token}")).body(Full::default());
        send(gateway.http(), asked.expect("a request")).await.expect("an answer").status.as_u16()
    };
    for _ in 0..10 {
        assert_eq!(login("test").await, 200);
    }
    for guess in ["a", "b", "c", "d", "e"] {
        assert_eq!(login(guess).await, 401);
    }
    assert_eq!(login("test").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_say_what_is_left() {
    let far = upstream::says("far").await;
    let gateway = Gateway::start(&one("rate = \"2r/m\"\nburst = 1\nconcurrent = 9\nheaders = \"draft\"", &behind(far.addr)));
    let answer = ask(&gateway, "/", "203.0.113.1").await;
    assert_eq!(answer.header("ratelimit-policy"), "\"z\";q=2;w=60, \"z.concurrent\";q=9;qu=\"concurrent-requests\"");
    assert_eq!(answer.header("ratelimit"), "\"z\";r=1;t=30, \"z.concurrent\";r=8");
    ask(&gateway, "/", "203.0.113.1").await;
    let refused = ask(&gateway, "/", "203.0.113.1").await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("ratelimit").starts_with("\"z\";r=0;t="), "{:?}", refused.headers);
    assert!(!refused.header("retry-after").is_empty());

    let gateway = Gateway::start(&one("rate = \"2r/m\"\nburst = 1\nheaders = \"legacy\"", HERE));
    let answer = ask(&gateway, "/", "203.0.113.1").await;
    let told = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.header(name).to_owned());
    assert_eq!(told, ["2", "1", "30"]);
    assert_eq!(answer.header("ratelimit"), "");
}
