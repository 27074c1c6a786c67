//! The configurations that ship, and the commands around them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Conn, Gateway, binary, client::request, gateway::workdir, get, tls::TlsClient};

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

#[test]
fn every_configuration_that_ships_passes_check() {
    let mut seen = Vec::new();
    for entry in fs::read_dir(conf()).expect("conf/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let checked = Command::new(binary()).arg("-c").arg(&path).arg("check").env("NO_COLOR", "1").output().expect("the binary runs");
        assert!(
            checked.status.success(),
            "{}: {}{}",
            path.display(),
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
        seen.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
    }
    for name in ["demo", "piazzati", "chatbot-platform", "vps-backend"] {
        assert!(seen.iter().any(|seen| seen == name), "conf/{name}.toml is missing; there are {seen:?}");
    }
}

/// The demo as it ships, but on ports and directories of the test's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_serves() {
    let shipped = fs::read_to_string(conf().join("demo.toml")).expect("conf/demo.toml");
    let own: Vec<String> = shipped
        .lines()
        .map(|line| match line.split('=').next().map(str::trim) {
            Some("http") if line.contains("8080") => "http = [\"127.0.0.1:0\"]".into(),
            Some("https") => "https = [\"127.0.0.1:0\"]".into(),
            Some("listen") => "listen = \"127.0.0.1:0\"".into(),
            Some("state" | "run") => String::new(),
            _ => line.to_owned(),
        })
        .collect();
    let gateway = Gateway::start(&own.join("\n"));
    for app in gateway.instances().into_iter().map(|instance| instance.app).collect::<std::collections::BTreeSet<_>>() {
        gateway.wait_app(&app, "ready");
    }
    let tls = TlsClient::internal(&gateway);
    let mut conn = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let answer = conn
        .send(crate::harness::client::request_h2("GET", "localhost", "/").body(http_body_util::Full::default()).expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(get(gateway.http(), "localhost", "/").await.expect("an answer").status.is_redirection());
    assert_eq!(get(gateway.admin(), "localhost", "/health").await.expect("an answer").status, 200);
    let mut h1 = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    assert_eq!(
        h1.send(request("GET", "localhost", "/").body(http_body_util::Full::default()).expect("a request"))
            .await
            .expect("an answer")
            .status,
        200
    );
}

#[test]
fn init_writes_a_configuration_that_passes_check_and_overwrites_none() {
    let dir = workdir();
    let run =
        |words: &[&str]| Command::new(binary()).args(words).current_dir(dir.path()).env("NO_COLOR", "1").output().expect("the binary runs");
    let made = run(&["init"]);
    assert!(made.status.success(), "{made:?}");
    assert!(dir.path().join("gateway.toml").exists());
    let checked = run(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    let before = fs::read(dir.path().join("gateway.toml")).expect("readable");
    assert!(!run(&["init"]).status.success());
    assert_eq!(fs::read(dir.path().join("gateway.toml")).expect("readable"), before);
    let schema = run(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert!(schema.to_string().contains("burst"));
    let shown = run(&["config", "show"]);
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("[listen]"), "{shown:?}");
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let dir = workdir();
    let file = dir.path().join("gateway.toml");
    for text in
        ["[alerts]\nwebhooks = []\n", "[[site]]\nhost = \"a.test\"\nroot = \"/srv\"\n", "[[site]]\nhost = \"a.test\"\ncompress = true\n"]
    {
        fs::write(&file, text).expect("written");
        let checked = Command::new(binary()).arg("-c").arg(&file).arg("check").output().expect("the binary runs");
        let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert_eq!(checked.status.code(), Some(78), "{text}: {said}");
        assert!(said.contains("not supported yet"), "{text}: {said}");
    }
}
