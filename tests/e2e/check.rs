//! `gateway check` on a machine where something would not work, and nothing but that.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::harness::{Gateway, binary, demo_app, gateway::workdir, wait::secs};

const SITE: &str = "[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";
/// Ports that nobody asks for, and a state of its own.
const ALONE: &str =
    "state = \"s\"\nrun = \"r\"\n[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// As root every app names its user.
fn user() -> &'static str {
    if is_root() { "user = \"root\"\n" } else { "" }
}

fn check_in(dir: &Path, words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(binary())
        .args(["check", "-c", "gateway.toml"])
        .args(words)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .output()
        .expect("it runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout)))
}

fn check(dir: &Path, text: &str) -> String {
    fs::write(dir.join("gateway.toml"), format!("{ALONE}{SITE}{text}")).expect("written");
    let (code, told) = check_in(dir, &[]);
    assert_eq!(code, Some(0), "a warning is no error: {told}");
    told
}

fn script(dir: &Path, name: &str, text: &str, mode: u32) {
    fs::write(dir.join(name), text).expect("written");
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("its mode");
}

fn app(command: &str, more: &str) -> String {
    format!("[app.web]\n{}command = {command:?}\n{more}", if more.contains("user =") { "" } else { user() })
}

#[test]
fn a_configuration_that_works_here_has_no_warning() {
    let dir = workdir();
    script(dir.path(), "run.sh", "#!/bin/sh\nexit 0\n", 0o755);
    script(dir.path(), "env.py", "#!/usr/bin/env python3\n", 0o755);
    for (command, more) in [
        (demo_app("--port {port}").as_str(), "procs = 2\n"),
        ("./run.sh", ""),
        ("./env.py --x=$lower 'a && b'", ""),
        ("sh -c 'cd / && FOO=1 exec sleep 1 > /dev/null'", ""),
        ("env FOO=1 sleep 1000", "before = [\"./not-there-yet migrate\", \"sleep 0\"]\n"),
        ("{exe} demo-app --socket {socket} --forwarded-allow-ips *", ""),
        ("sleep 1000", "env = { PATH = \"/usr/bin:/bin\" }\nschedule = \"@daily\"\n"),
    ] {
        let told = check(dir.path(), &app(command, more));
        assert!(told.starts_with("ok: ") && !told.contains("warning"), "{command}: {told}");
        assert_eq!(check_in(dir.path(), &["--strict"]).0, Some(0), "{command}");
    }
}

#[test]
fn what_cannot_start_is_a_warning_with_its_place_and_its_cure() {
    let dir = workdir();
    script(dir.path(), "plain.sh", "#!/bin/sh\n", 0o644);
    script(dir.path(), "orphan.rb", "#!/opt/no/such/ruby\n", 0o755);
    script(dir.path(), "by-env.py", "#!/usr/bin/env no-such-python\n", 0o755);
    script(dir.path(), "windows.sh", "#!/bin/sh\r\nexit 0\r\n", 0o755);
    symlink("/no/such/python3.9", dir.path().join("stale")).expect("linked");
    for (command, more, code, words) in [
        ("no-such-program-at-all", "", "missing-program", &["there is no program \"no-such-program-at-all\" in PATH"][..]),
        ("./none", "", "missing-program", &["there is no file", "/none"]),
        ("./plain.sh", "", "missing-program", &["is not executable", "chmod +x"]),
        ("./stale x.py", "", "missing-program", &["is a link to /no/such/python3.9, which does not exist"]),
        ("./orphan.rb", "", "bad-interpreter", &["is a script for /opt/no/such/ruby, which is not there"]),
        ("./by-env.py", "", "bad-interpreter", &["no-such-python"]),
        ("./windows.sh", "", "bad-interpreter", &["carriage return", "sed -i"]),
        ("sleep 1", "dir = \"gone\"\n", "missing-directory", &["its directory", "gone does not exist"]),
        ("sleep 1", "dir = \"plain.sh\"\n", "missing-directory", &["is no directory"]),
        ("sleep 1", "user = \"no-such-user\"\n", "unknown-user", &["no-such-user", "useradd"]),
        ("sleep 1", "group = \"no-such-group\"\n", "unknown-group", &["no-such-group", "groupadd"]),
        ("FOO=1 sleep 1", "", "no-shell", &["`FOO=…`", "env = { FOO"]),
        ("cd /srv && ./run", "", "no-shell", &["`cd`", "`&&`", "set `dir`"]),
        ("sleep 1 > out.log", "", "no-shell", &["`>`"]),
        ("cat x | sleep 1", "", "no-shell", &["`|`"]),
        ("sleep --home=$HOME", "", "no-shell", &["`$HOME`", "{env.HOME}"]),
        ("~/bin/serve", "", "no-shell", &["`~/bin/serve`", "whole path"]),
        ("cat *.sh", "", "no-shell", &["`*.sh`", "quotes"]),
        ("sleep 1", "before = [\"A=1 sleep 0\", \"true && false\"]\n", "no-shell", &["a command of `before`"]),
    ] {
        let told = check(dir.path(), &app(command, more));
        let place = told.contains(&format!("warning[{code}] gateway.toml:"));
        assert!(place && told.contains(" help: ") && words.iter().all(|word| told.contains(word)), "{command}: {told}");
        assert!(told.contains("ok: 1 site") && told.contains("about this machine"), "{command}: {told}");
        let (strict, told) = check_in(dir.path(), &["--strict"]);
        assert_eq!(strict, Some(78), "{command}: {told}");
    }
}

#[test]
fn a_port_of_somebody_else_is_a_warning_and_our_own_is_not() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = stranger.local_addr().expect("bound").port();
    let dir = workdir();
    let text = format!(
        "state = \"s\"\nrun = \"r\"\n[listen]\nhttp = \"127.0.0.1:{taken}\"\nhttps = \"127.0.0.1:0\"\n[admin]\nlisten = \"off\"\n{SITE}"
    );
    fs::write(dir.path().join("gateway.toml"), text).expect("written");
    let (code, told) = check_in(dir.path(), &[]);
    assert_eq!(code, Some(0));
    assert!(told.contains("warning[port-taken] gateway.toml:4:8: could not listen on 127.0.0.1:") && told.contains("ss -ltnp"), "{told}");
    let told = check(dir.path(), &app("sleep 1000", &format!("port = {taken}\n")));
    assert!(told.contains("warning[port-taken]") && told.contains(&format!("listen on port {taken}")), "{told}");
    drop(stranger);

    let [http, admin, own] = crate::harness::pebble::free();
    let text = format!(
        "[listen]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n{SITE}[app.web]\ncommand = \"{}\"\nport = {own}\n",
        demo_app("--port {port}")
    );
    let gateway = Gateway::start(&text);
    gateway.wait_app_for("web", "ready", secs(30));
    let (code, told) = check_in(gateway.dir(), &["--strict"]);
    assert_eq!(code, Some(0), "the gateway's own ports, while it runs: {told}");
}

#[test]
fn what_we_write_must_be_where_it_can_be_written() {
    let dir = workdir();
    fs::write(dir.path().join("file"), "").expect("written");
    for (text, key) in [
        ("state = \"file/s\"\nrun = \"r\"\n", "`state`"),
        ("state = \"s\"\nrun = \"file/r\"\n", "`run`"),
        ("state = \"s\"\nrun = \"r\"\nlog = { dir = \"file\" }\n", "`log.dir`"),
    ] {
        let rest = "[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n[admin]\nlisten = \"off\"\n";
        fs::write(dir.path().join("gateway.toml"), format!("{text}{rest}{SITE}")).expect("written");
        let (_, told) = check_in(dir.path(), &[]);
        assert!(told.contains("warning[unreachable] gateway.toml:") && told.contains(key) && told.contains("is no directory"), "{told}");
    }
}

/// The edge of a root is another user: what it cannot reach is found before it dies of it, again and again.
#[test]
fn a_state_that_the_edge_cannot_reach_is_refused_at_the_start_and_at_a_reload() {
    if !is_root() {
        return eprintln!("only root has an edge of another user");
    }
    let dir = workdir();
    let shut = dir.path().join("shut");
    fs::create_dir(&shut).expect("made");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).expect("its mode");
    let text = ALONE.replace("state = \"s\"", "state = \"shut/s\"");
    fs::write(dir.path().join("gateway.toml"), format!("{text}{SITE}")).expect("written");
    let start =
        || Command::new(binary()).args(["-c", "gateway.toml"]).current_dir(dir.path()).env("NO_COLOR", "1").output().expect("it ends");
    let ended = start();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(78), "{told}");
    assert!(told.contains("\"nobody\" may not enter") && told.contains("chmod o+x"), "{told}");
    let (code, told) = check_in(dir.path(), &[]);
    assert!(code == Some(0) && told.contains("warning[unreachable] gateway.toml:1:9") && told.contains("chmod o+x"), "{told}");

    // What an earlier `user` left there.
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o755)).expect("its mode");
    let certs = shut.join("s/edge/certs");
    fs::create_dir_all(&certs).expect("made");
    fs::write(certs.join("a.pem"), "").expect("written");
    fs::set_permissions(certs.join("a.pem"), fs::Permissions::from_mode(0o600)).expect("its mode");
    chown(certs.join("a.pem"), Some(1), Some(1)).expect("its owner");
    let ended = start();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(78), "{told}");
    assert!(told.contains("chown -R nobody:") && told.contains("certs"), "{told}");
}

#[test]
fn a_reload_of_a_state_that_was_closed_meanwhile_is_refused() {
    if !is_root() {
        return eprintln!("only root has an edge of another user");
    }
    let gateway = Gateway::start(SITE);
    let mode = |mode: u32| fs::set_permissions(gateway.dir(), fs::Permissions::from_mode(mode)).expect("its mode");
    mode(0o700);
    let refused = gateway.cli(&["reload"]);
    mode(0o755);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("may not enter") && told.contains("chmod o+x"), "{told}");
    gateway.ask(&json!({ "command": "reload" })).expect("as it was");
}

#[test]
fn a_program_that_its_user_may_not_run_is_a_warning() {
    if !is_root() {
        return eprintln!("only root starts apps as others");
    }
    let dir = workdir();
    fs::create_dir(dir.path().join("private")).expect("made");
    script(dir.path(), "private/serve", "#!/bin/sh\n", 0o755);
    fs::set_permissions(dir.path().join("private"), fs::Permissions::from_mode(0o700)).expect("its mode");
    let told = check(dir.path(), &app("private/serve", "user = \"nobody\"\n"));
    assert!(
        told.contains("warning[missing-program]")
            && told.contains("user \"nobody\" may not run")
            && told.contains("private is closed to it"),
        "{told}"
    );
    let told = check(dir.path(), &app("sleep 1", "user = \"nobody\"\ndir = \"private\"\n"));
    assert!(told.contains("warning[unreachable]") && told.contains("\"nobody\" may not enter"), "{told}");
    script(dir.path(), "unread.sh", "#!/bin/sh\n", 0o711);
    let told = check(dir.path(), &app("./unread.sh", "user = \"nobody\"\n"));
    assert!(told.contains("may not read") && told.contains("which is a script"), "{told}");
}
