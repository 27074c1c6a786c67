//! slowhttptest, in its four modes at once, beside a client that means well.

use std::{
    process::{Child, Command, Stdio},
    time::Instant,
};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Conn, Gateway,
    client::request,
    demo_app, heavy, proc,
    wait::{eventually, eventually_async, ms, secs},
};

struct Attack(Child);

impl Drop for Attack {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            proc::kill(self.0.id(), Signal::SIGTERM);
        }
        drop(self.0.wait());
    }
}

fn attack(gateway: &Gateway, seconds: u64, connections: &str, path: &str, words: &[&str]) -> Attack {
    let mut command = Command::new("slowhttptest");
    command.args(words).args(["-c", connections, "-r", "200", "-p", "3", "-l", &seconds.to_string()]);
    command.arg("-u").arg(format!("http://{}{path}", gateway.http()));
    command.current_dir(gateway.dir()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Attack(command.spawn().expect("slowhttptest is installed (./dev tools)"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_bodies_ranges_and_reads_hold_nobody_up() {
    slow_for(6).await;
}

pub async fn slow_for(seconds: u64) {
    let _turn = heavy().await;
    let gateway = Gateway::start(&format!(
        "[timeouts]\nheader = \"2s\"\nbody = \"2s\"\nsend = \"2s\"\nidle = \"2s\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"_\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    let edge = gateway.edge();
    let mut good = Conn::h1(gateway.http()).await.expect("connected");
    let before = proc::memory(edge);
    let begun = Instant::now();
    let mut attacks = vec![
        attack(&gateway, seconds, "100", "/", &["-H", "-i", "1", "-x", "24"]),
        attack(&gateway, seconds, "100", "/", &["-B", "-i", "1", "-s", "8192", "-x", "10"]),
        attack(&gateway, seconds, "20", "/bytes/5000000", &["-R", "-a", "10", "-b", "1000"]),
        attack(&gateway, seconds, "20", "/bytes/5000000", &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"]),
    ];
    let (mut took, mut most, mut open) = (Vec::new(), before, 0.0_f64);
    while attacks.iter_mut().any(|attack| matches!(attack.0.try_wait(), Ok(None))) && begun.elapsed() < secs(seconds + 20) {
        let asked = Instant::now();
        if !good.open() {
            good = Conn::h1(gateway.http()).await.expect("connected");
        }
        let answer = good.send(request("GET", "a.test", "/").body(Default::default()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status, 200);
        took.push(asked.elapsed());
        most = most.max(proc::memory(edge));
        if took.len() % 50 == 1 {
            open = open.max(gateway.metric("gateway_connections", &[]).await);
        }
        tokio::time::sleep(ms(5)).await;
    }
    took.sort_unstable();
    let p99 = took[(took.len() - 1) * 99 / 100];
    println!(
        "slowhttptest -H -B -R -X for {seconds} s: up to {open} connections; beside them {} requests, p50 {:?}, p99 {p99:?}; {} MB to {} MB",
        took.len(),
        took[took.len() / 2],
        before >> 20,
        most >> 20
    );
    assert!(open > 50.0, "slowhttptest did nothing");
    assert!(p99 < secs(1), "{p99:?}");
    assert!(most.saturating_sub(before) < 50 << 20, "{before} to {most}");
    drop((attacks, good));
    // Whoever dripped or stalled is gone by its deadline.
    eventually_async("no connection is left", secs(15), || async {
        match gateway.metric("gateway_connections", &[&format!("listener=\"{}\"", gateway.http())]).await {
            0.0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    eventually("memory comes back", secs(10), || {
        let now = proc::memory(edge);
        if now.saturating_sub(before) < 25 << 20 { Ok(()) } else { Err(format!("{before} to {now}")) }
    });
    assert_eq!(gateway.edge(), edge, "the edge was replaced");
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
}

/// Long before `send`, and only as many as are too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_readers_that_stop_some_give_way_to_the_rest() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&format!(
        "[timeouts]\nsend = \"10m\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    let mut readers = Vec::new();
    for _ in 0..400 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        let mut stream = socket.connect(gateway.http()).await.expect("connected");
        stream.write_all(b"GET /bytes/20000000 HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("sent");
        readers.push(stream);
    }
    let edge = gateway.edge();
    let most = eventually_async("some are given up", secs(30), || async {
        let left = gateway.metric("gateway_http_in_flight", &["site=\"a.test\""]).await;
        if left < 350.0 { Ok(left) } else { Err(left) }
    })
    .await;
    // And no more than that, however long it takes.
    tokio::time::sleep(secs(4)).await;
    let left = gateway.metric("gateway_http_in_flight", &["site=\"a.test\""]).await;
    println!("400 readers that stop: {most} at first, {left} in the end; {} MB", proc::memory(edge) >> 20);
    assert!(left >= 60.0, "{left} are left");
    let mut good = Conn::h1(gateway.http()).await.expect("connected");
    let answer = good.send(request("GET", "a.test", "/").body(Default::default()).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 200);
    drop(readers);
}
