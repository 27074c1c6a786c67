//! The harness can fail: it counts what is lost, and finds what is left behind.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use http_body_util::Full;
use nix::sys::signal::Signal;

use crate::harness::{Load, client::request, eventually, get, load::How, proc, raw, send, upstream, wait::secs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_counts_every_answer_and_every_loss() {
    let good = upstream::says("hello").await;
    let tally = Load::new(good.addr, How::Plain, "a.test", "/", 8).run(1000).await;
    tally.assert_all_200();
    assert_eq!((tally.total(), good.hits()), (1000, 1000));

    let bad = upstream::resets().await;
    let tally = Load::new(bad.addr, How::Plain, "a.test", "/", 4).run(20).await;
    assert_eq!((tally.total(), tally.broken, tally.refused), (0, 20, 0), "{tally:?}");

    let tally = Load::new(upstream::refuses().await, How::Plain, "a.test", "/", 2).run(10).await;
    assert_eq!((tally.total(), tally.broken, tally.refused), (0, 0, 10), "{tally:?}");

    let mut picky = Load::new(good.addr, How::Plain, "a.test", "/", 2);
    picky.check = |answer| if answer.text() == "hullo" { Ok(()) } else { Err(answer.text()) };
    assert_eq!(picky.run(10).await.wrong, 10);

    let running = Load::new(good.addr, How::Plain, "a.test", "/", 2).start();
    running.more(50).await;
    assert!(running.stop().await.total() >= 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bad_upstreams_are_as_bad_as_they_say() {
    assert!(get(upstream::breaks_off().await.addr, "a.test", "/").await.is_err());
    assert!(get(upstream::babbles().await.addr, "a.test", "/").await.is_err());
    let hangs = upstream::hangs().await;
    assert!(tokio::time::timeout(secs(1), get(hangs.addr, "a.test", "/")).await.is_err());
    let eager = upstream::eager_101().await;
    let mut stream = raw::connect(eager.addr).await;
    assert!(raw::read_until(&mut stream, "\r\n\r\n").await.contains("101"), "it speaks before it is spoken to");
    let memory = upstream::remembers_bytes().await;
    for text in
        ["GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let said = raw::speak_and_finish(memory.addr, text.as_bytes()).await;
        assert_eq!(raw::status(&said), 200, "{said}");
    }
    assert_eq!(memory.received().len(), 2);
    let echo = upstream::echo("echo").await;
    let seen = send(echo.addr, request("POST", "a.test", "/x").header("x-y", "z").body(Full::from("hi")).expect("a request"))
        .await
        .expect("an answer")
        .json();
    assert_eq!((seen["body"].as_str(), seen["headers"]["x-y"][0].as_str()), (Some("hi"), Some("z")));
}

#[test]
fn what_a_child_leaves_behind_is_found_by_its_mark() {
    let mark = format!("GATEWAY_TEST_ID=selftest-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("built with one");
    let mut child = Command::new("sh").args(["-c", "sleep 1000 & exit 0"]).env(name, value).stdout(Stdio::null()).spawn().expect("sh runs");
    child.wait().expect("it ends");
    let left = eventually("the orphan is found", secs(5), || match proc::marked(&mark, Path::new("/nowhere")).as_slice() {
        [one] if proc::command(*one) == ["sleep", "1000"] => Ok(*one),
        other => Err(proc::describe(other)),
    });
    assert!(proc::alive(left));
    proc::kill(left, Signal::SIGKILL);
    eventually("it is gone", secs(5), || if proc::alive(left) { Err(left) } else { Ok(()) });
}
