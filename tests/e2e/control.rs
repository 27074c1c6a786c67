//! The command line against a gateway that runs, and against none.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Gateway, binary, demo_app,
    gateway::{complete, workdir},
    get, proc,
    wait::{eventually, secs},
};

fn config() -> String {
    format!(
        "[app.web]\ncommand = \"{}\"\nprocs = 2\nhealth = \"/healthz\"\n[zone.api]\nrate = \"1000000r/s\"\nburst = 1000000\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\nzone = \"api\"\n",
        demo_app("--port {port}")
    )
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_apps_upstreams_and_zones_tell_people_and_scripts() {
    let gateway = Gateway::start(&config());
    let apps = gateway.wait_app("web", "ready");
    for (command, words) in [
        ("status", vec!["web"]),
        ("apps", vec!["web", "ready"]),
        ("upstreams", vec!["web"]),
        ("zones", vec!["api"]),
        ("certs", vec!["no certificates"]),
    ] {
        let plain = gateway.cli(&[command]);
        assert!(plain.status.success(), "{command}: {plain:?}");
        for word in words {
            assert!(text(&plain).contains(word), "{command} does not tell {word:?}:\n{}", text(&plain));
        }
        let json = gateway.cli(&[command, "--json"]);
        assert!(json.status.success(), "{command}: {json:?}");
        serde_json::from_slice::<Value>(&json.stdout).unwrap_or_else(|error| panic!("{command} --json: {error}: {}", text(&json)));
    }
    let renewed = gateway.cli(&["certs", "renew", "a.test"]);
    assert_eq!(renewed.status.code(), Some(1), "{renewed:?}");
    assert!(text(&renewed).contains("no certificate of this gateway is ordered from a CA"), "{renewed:?}");
    for app in apps {
        let pid = app.pid.expect("a process").to_string();
        assert!(text(&gateway.cli(&["apps"])).contains(&pid));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_start_and_restart_an_app() {
    let gateway = Gateway::start(&config());
    let first = gateway.wait_app("web", "ready");
    let done = gateway.cli(&["stop", "web"]);
    assert!(done.status.success(), "{done:?}");
    gateway.wait_app("web", "stopped");
    assert!(first.iter().all(|i| !proc::alive(i.pid.expect("a process"))));
    let refused = get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
    assert_eq!(refused.status, 503);
    let done = gateway.cli(&["start", "web"]);
    assert!(done.status.success(), "{done:?}");
    let second = gateway.wait_app("web", "ready");
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200);
    // One after the other: there is always one that serves.
    let load = crate::harness::Load::new(gateway.http(), crate::harness::load::How::Plain, "a.test", "/healthz", 4).start();
    let done = gateway.cli(&["restart", "web"]);
    assert!(done.status.success(), "{done:?}");
    eventually("both are new and ready", secs(40), || {
        let now = gateway.instances();
        if now.iter().all(|i| i.state == "ready" && second.iter().all(|old| old.pid != i.pid)) { Ok(()) } else { Err(now) }
    });
    load.stop().await.assert_all_200();
    let unknown = gateway.cli(&["restart", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(text(&unknown).contains("nobody"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_has_its_exit_code() {
    let dir = workdir();
    let file = dir.path().join("gateway.toml");
    let run =
        |words: &[&str]| Command::new(binary()).args(words).current_dir(dir.path()).env("NO_COLOR", "1").output().expect("the binary runs");
    let name = file.to_str().expect("text");

    // No configuration at all: it says where it looked and how to get one.
    let none = run(&[]);
    assert_eq!(none.status.code(), Some(78), "{none:?}");
    for word in ["gateway.toml", "/etc/gateway/gateway.toml", "init"] {
        assert!(text(&none).contains(word), "{word}: {}", text(&none));
    }
    fs::write(
        &file,
        complete("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n"),
    )
    .expect("written");
    assert_eq!(run(&["-c", name, "check"]).status.code(), Some(0));
    for command in ["status", "apps", "upstreams", "zones", "reload"] {
        let nobody = run(&["-c", name, command]);
        assert_eq!(nobody.status.code(), Some(69), "{command}: {nobody:?}");
        assert!(text(&nobody).contains("not running"), "{}", text(&nobody));
    }
    assert_eq!(run(&["-c", name, "frobnicate"]).status.code(), Some(64));
    assert_eq!(run(&["-c", name, "start"]).status.code(), Some(64));
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    fs::write(&file, "[[site]]\nhots = \"a.test\"\n").expect("written");
    let broken = run(&["-c", name, "check"]);
    assert_eq!(broken.status.code(), Some(78), "{broken:?}");
    assert!(text(&broken).contains("gateway.toml:2:1"), "{}", text(&broken));
    assert!(text(&broken).contains("host"), "a proposal: {}", text(&broken));
    assert_eq!(run(&["-c", name]).status.code(), Some(78));
    assert_eq!(run(&["-c", "/nowhere/gateway.toml", "check"]).status.code(), Some(78));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_master_on_the_same_state_says_so_and_exits_1() {
    let gateway = Gateway::start(&config());
    gateway.wait_app("web", "ready");
    let second =
        Command::new(binary()).arg("-c").arg(gateway.dir().join("gateway.toml")).env("NO_COLOR", "1").output().expect("the binary runs");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(text(&second).contains(&gateway.pid().to_string()), "it names who has it: {}", text(&second));
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200, "the first was not disturbed");
    assert!(gateway.cli(&["status"]).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address");
    let mut gateway = Gateway::launch(&format!("{}\n[listen]\nhttp = [\"{addr}\"]\nhttps = [\"127.0.0.1:0\"]\n", config()));
    let status = gateway.wait_end(secs(20));
    assert_eq!(status.code(), Some(1));
    assert!(gateway.output().contains(&addr.to_string()), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_killed_can_be_started_again_in_its_place() {
    let mut gateway = Gateway::start(&config());
    gateway.wait_app("web", "ready");
    gateway.signal(Signal::SIGKILL);
    gateway.wait_end(secs(5));
    eventually("its children are gone", secs(5), || if gateway.processes().is_empty() { Ok(()) } else { Err(gateway.processes()) });
    // The lock and the sockets it left behind are no obstacle.
    let mut again = Command::new(binary())
        .arg("-c")
        .arg(gateway.dir().join("gateway.toml"))
        .current_dir(gateway.dir())
        .env("NO_COLOR", "1")
        .spawn()
        .expect("the binary runs");
    eventually("the next one answers", secs(30), || {
        let out = gateway.cli(&["status"]);
        if out.status.success() { Ok(()) } else { Err(text(&out)) }
    });
    proc::kill(again.id(), Signal::SIGTERM);
    let ended = eventually("it ends", secs(30), || again.try_wait().expect("our child").ok_or("running"));
    assert_eq!(ended.code(), Some(0));
}
