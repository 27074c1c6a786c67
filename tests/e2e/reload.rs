//! A new configuration under way: nothing is dropped, or nothing is changed.

use std::fs;

use futures_util::future::join_all;
use nix::sys::signal::Signal;

use crate::harness::{
    Gateway, Load, demo_app, eventually, get, heavy,
    load::How,
    wait::{eventually_async, secs},
    ws::Socket,
};

fn config(word: &str, more: &str) -> String {
    format!(
        r#"
[app.web]
command = "{}"
procs = 2
health = "/healthz"
[zone.wide]
rate = "1000000r/s"
burst = 1000000
[[site]]
host = "a.test"
tls = "off"
app = "web"
zone = "wide"
[site.route."/word"]
respond = {{ status = 200, body = "{word}" }}
{more}
"#,
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_with_two_hundred_websockets_drop_nothing() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&config("one", ""));
    let before = gateway.wait_app("web", "ready");
    let edge = gateway.edge();
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens"));
    }
    join_all(sockets.iter_mut().map(|socket| socket.echo("before"))).await.into_iter().for_each(|echoed| echoed.expect("before"));
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 16).start();
    for round in 0..50 {
        let (word, more) = if round % 2 == 0 {
            ("two", "[[site]]\nhost = \"b.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"b\" }\n")
        } else {
            ("one", "")
        };
        gateway.reload(&config(word, more)).unwrap_or_else(|error| panic!("reload {round}: {error}"));
        // It is in force when the command has answered.
        assert_eq!(get(gateway.http(), "a.test", "/word").await.expect("an answer").text(), word, "after reload {round}");
        if round % 10 == 5 {
            join_all(sockets.iter_mut().map(|socket| socket.echo("between"))).await.into_iter().for_each(|echoed| echoed.expect("between"));
        }
        load.more(20).await;
    }
    load.stop().await.assert_all_200();
    join_all(sockets.iter_mut().map(|socket| socket.echo("after"))).await.into_iter().for_each(|echoed| echoed.expect("after"));
    assert_eq!(gateway.edge(), edge, "no process was replaced");
    let after = gateway.wait_app("web", "ready");
    assert_eq!(before.iter().map(|i| i.pid).collect::<Vec<_>>(), after.iter().map(|i| i.pid).collect::<Vec<_>>());
    assert_eq!(gateway.metric("gateway_config_reloads_total", &[]).await, 50.0);
    assert_eq!(gateway.metric("gateway_config_generation", &[]).await, 51.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_says_why() {
    let gateway = Gateway::start(&config("one", ""));
    let before = gateway.wait_app("web", "ready");
    gateway.write_config(&config(
        "two",
        "[[site]]\nhost = \"b.test\"\nupstrem = \"nowhere\"\n[[site]]\nhost = \"c.test\"\nupstream = \"wbe\"\n",
    ));
    let refused = gateway.cli(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    for word in ["gateway.toml:", "upstrem", "wbe", "nothing was changed"] {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
    assert_eq!(get(gateway.http(), "a.test", "/word").await.expect("an answer").text(), "one");
    // The same by signal: the log says it, nothing changes.
    gateway.signal(Signal::SIGHUP);
    eventually("the log says why", secs(10), || if gateway.output().contains("upstrem") { Ok(()) } else { Err(gateway.output()) });
    assert_eq!(get(gateway.http(), "a.test", "/word").await.expect("an answer").text(), "one");
    let after = gateway.wait_app("web", "ready");
    assert_eq!(before.iter().map(|i| i.pid).collect::<Vec<_>>(), after.iter().map(|i| i.pid).collect::<Vec<_>>());
    // A file that is gone is a refusal too.
    fs::remove_file(gateway.dir().join("gateway.toml")).expect("removed");
    assert!(!gateway.cli(&["reload"]).status.success());
    assert_eq!(get(gateway.http(), "a.test", "/word").await.expect("an answer").text(), "one");
    // And a good one is taken after all that.
    gateway.write_config(&config("three", ""));
    gateway.signal(Signal::SIGHUP);
    eventually_async("the new word is served", secs(10), || async {
        let word = get(gateway.http(), "a.test", "/word").await.expect("an answer").text();
        if word == "three" { Ok(()) } else { Err(word) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_rolls_only_the_app_that_changed() {
    let second = |env: &str| {
        format!("[app.other]\ncommand = \"{}\"\nhealth = \"/healthz\"\nenv = {{ WORD = \"{env}\" }}\n", demo_app("--port {port}"))
    };
    let gateway = Gateway::start(&config("one", &second("a")));
    let web = gateway.wait_app("web", "ready");
    let other = gateway.wait_app("other", "ready");
    gateway.reload(&config("one", &second("b"))).expect("reloaded");
    eventually("the changed app has a new process", secs(40), || {
        let now = gateway.instance("other", 0);
        if now.state == "ready" && now.pid != other[0].pid { Ok(()) } else { Err(now) }
    });
    assert_eq!(web.iter().map(|i| i.pid).collect::<Vec<_>>(), gateway.wait_app("web", "ready").iter().map(|i| i.pid).collect::<Vec<_>>());
    // Taken out of the file: it is stopped and forgotten.
    let gone = gateway.pids("other");
    gateway.reload(&config("one", "")).expect("reloaded");
    eventually("the removed app is gone", secs(40), || {
        let left = gateway.instances().into_iter().filter(|i| i.app == "other" && i.pid.is_some()).collect::<Vec<_>>();
        let alive = gone.iter().any(|pid| crate::harness::proc::alive(*pid));
        if left.is_empty() && !alive { Ok(()) } else { Err(left) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_a_zone_has_counted() {
    let zone = "[zone.slow]\nrate = \"1r/m\"\nburst = 0\n[[site]]\nhost = \"z.test\"\ntls = \"off\"\nzone = \"slow\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";
    let gateway = Gateway::start(&config("one", zone));
    assert_eq!(get(gateway.http(), "z.test", "/").await.expect("an answer").status, 200);
    assert_eq!(get(gateway.http(), "z.test", "/").await.expect("an answer").status, 429);
    gateway.reload(&config("two", zone)).expect("reloaded");
    assert_eq!(get(gateway.http(), "z.test", "/").await.expect("an answer").status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_opens_and_closes_listeners() {
    let gateway = Gateway::start(&config("one", ""));
    let extra = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("its address")
    };
    let first = gateway.http();
    gateway
        .reload(&config("one", &format!("[listen]\nhttp = [\"127.0.0.1:0\", \"{extra}\"]\nhttps = [\"127.0.0.1:0\"]\n")))
        .expect("reloaded");
    assert_eq!(get(extra, "a.test", "/word").await.expect("an answer").text(), "one");
    assert_eq!(get(first, "a.test", "/word").await.expect("an answer").text(), "one", "the listener that stays was not touched");
    gateway.reload(&config("one", "")).expect("reloaded");
    eventually_async("the removed listener is closed", secs(10), || async {
        match tokio::net::TcpStream::connect(extra).await {
            Ok(_) => Err("still open"),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_eq!(get(first, "a.test", "/word").await.expect("an answer").text(), "one");
}
