//! TERM: what is in flight is finished, then all goes, in order.

use std::time::Instant;

use futures_util::future::join_all;
use nix::sys::signal::Signal;

use crate::harness::{
    Gateway, Load, demo_app, get, heavy,
    load::How,
    proc,
    wait::{eventually, ms, secs},
};

fn config(more: &str) -> String {
    format!(
        r#"
[app.web]
command = "{}"
procs = 2
health = "/healthz"
[[site]]
host = "a.test"
tls = "off"
app = "web"
{more}
"#,
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_under_load_finishes_what_is_in_flight_and_exits_0() {
    let _turn = heavy().await;
    let mut gateway = Gateway::start(&config("[timeouts]\ndrain = \"15s\"\n"));
    let apps = gateway.wait_app("web", "ready");
    let addr = gateway.http();
    let load = Load::new(addr, How::Plain, "a.test", "/healthz", 8).start();
    load.more(100).await;
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..20 {
        slow.spawn(async move { get(addr, "a.test", "/slow?ms=2000").await });
    }
    load.more(200).await;
    eventually("twenty are in flight", secs(5), || {
        let status = gateway.status().to_string();
        if status.contains("in_flight") { Ok(()) } else { Err(status) }
    });
    tokio::time::timeout(secs(3), async {
        while gateway.metric("gateway_http_in_flight", &["site=\"a.test\""]).await < 20.0 {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await
    .expect("twenty requests are in flight");
    gateway.signal(Signal::SIGTERM);
    let begin = Instant::now();
    while let Some(answer) = slow.join_next().await {
        let answer = answer.expect("no panic").expect("a request in flight at TERM is answered");
        assert_eq!(answer.status, 200);
    }
    let tally = load.stop().await;
    assert!(tally.answers.keys().all(|status| *status == 200), "{tally:?}");
    let status = gateway.wait_end(secs(20));
    assert_eq!(status.code(), Some(0), "{}", gateway.output());
    assert!(begin.elapsed() < secs(15), "within the drain time: {:?}", begin.elapsed());
    for app in apps {
        assert!(!proc::alive(app.pid.expect("it had a process")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_stopped_after_the_last_request_in_reverse_order() {
    let script = |name: &str| format!("[\"sh\", \"-c\", '''trap \"echo {name} >> order; exit 0\" TERM; while :; do sleep 0.05; done''']");
    let mut gateway =
        Gateway::start(&config(&format!("[app.aa]\ncommand = {}\n[app.bb]\ncommand = {}\nafter = [\"aa\"]\n", script("aa"), script("bb"))));
    gateway.wait_app("web", "ready");
    gateway.wait_app("aa", "ready");
    gateway.wait_app("bb", "ready");
    let addr = gateway.http();
    let slow = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(get(addr, "a.test", "/slow?ms=1000"))
    });
    tokio::time::timeout(secs(3), async {
        while gateway.metric("gateway_http_in_flight", &["site=\"a.test\""]).await < 1.0 {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await
    .expect("a request is in flight");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(slow.await.expect("no panic").expect("an answer").status, 200, "the app was still there for it");
    assert_eq!(gateway.wait_end(secs(20)).code(), Some(0));
    let order = std::fs::read_to_string(gateway.dir().join("order")).unwrap_or_default();
    assert_eq!(order, "bb\naa\n", "the last started is the first stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_apps_that_need_two_seconds_and_may_have_three_all_end_by_themselves() {
    let script = |name: &str| {
        format!(
            "[\"bash\", \"-c\", '''trap \"echo {name} begins >> order; sleep 2; echo {name} ends >> order; exit 0\" TERM; while :; do sleep 0.05; done''']"
        )
    };
    let app = |name: &str, after: &str| format!("[app.{name}]\ncommand = {}\nstop = {{ timeout = \"3s\" }}\n{after}\n", script(name));
    let five: String = ["a1", "a2", "a3", "a4", "a5"].map(|name| app(name, "after = [\"db\"]")).concat();
    let mut gateway = Gateway::start(&format!("{}{five}", app("db", "")));
    for name in ["db", "a1", "a5"] {
        gateway.wait_app(name, "ready");
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(secs(30)).code(), Some(0), "{}", gateway.output());
    let order = std::fs::read_to_string(gateway.dir().join("order")).unwrap_or_default();
    let lines: Vec<&str> = order.lines().collect();
    assert_eq!(lines.len(), 12, "all end by themselves: {order}\n{}", gateway.output());
    assert!(lines[..5].iter().all(|line| line.ends_with("begins")), "all at once: {order}");
    assert!(lines[5..10].iter().all(|line| line.ends_with("ends")), "{order}");
    assert_eq!(lines[10..], ["db begins", "db ends"], "what they need goes after them");
    assert!(!gateway.output().contains("killing"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_term_means_now() {
    let mut gateway = Gateway::start(&config("[timeouts]\ndrain = \"60s\"\n"));
    gateway.wait_app("web", "ready");
    let addr = gateway.http();
    let hanging = join_all((0..3).map(|_| async move { get(addr, "a.test", "/slow?ms=50000").await }));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(hanging.await) });
    tokio::time::timeout(secs(5), async {
        while gateway.metric("gateway_http_in_flight", &["site=\"a.test\""]).await < 3.0 {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await
    .expect("three requests are in flight");
    gateway.signal(Signal::SIGTERM);
    eventually("it drains: new connections are not served any more", secs(10), || match std::net::TcpStream::connect(addr) {
        Ok(_) => Err("still accepting"),
        Err(_) => Ok(()),
    });
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(8));
}
