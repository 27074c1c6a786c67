//! Which gateway a command reaches: two projects whose configurations name one `run` have one control socket, and only one of them runs.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::harness::{Gateway, binary, get, wait::secs};

const SITE: &str = "[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"one\" }\n[app.web]\ncommand = \"sleep 1000\"\n";

/// Another project beside a gateway that runs: its own file, the same `run`.
fn project(gateway: &Gateway) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let run = gateway.dir().join("r");
    let text = format!(
        "run = {run:?}\nstate = \"s\"\n[[site]]\nhost = \"b.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"two\" }}\n"
    );
    fs::write(dir.path().join("gateway.toml"), text).expect("written");
    dir
}

fn run(dir: &Path, words: &[&str]) -> Output {
    Command::new(binary()).args(words).current_dir(dir).env("NO_COLOR", "1").output().expect("it runs")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_in_another_projects_directory_is_refused_and_names_both_files() {
    let gateway = Gateway::start(SITE);
    let other = project(&gateway);
    let (ours, theirs) = (gateway.config().display().to_string(), other.path().join("gateway.toml").display().to_string());
    let pid = gateway.wait_app_for("web", "ready", secs(30))[0].pid;
    let named = ["-c", &theirs, "reload"];
    for words in
        [&["reload"][..], &named, &["stop", "web"], &["restart", "web"], &["scale", "web", "2"], &["deploy", "web"], &["rollback", "web"]]
    {
        let output = run(other.path(), words);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(
            text.contains(&ours) && text.contains(&theirs) && text.contains("nothing was changed") && text.contains("help: "),
            "{words:?}: {text}"
        );
    }
    for words in [&["ban", "192.0.2.1"][..], &["unban", "192.0.2.1"], &["maintenance", "a.test", "on"], &["upgrade"], &["start", "web"]] {
        let output = run(other.path(), words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", told(&output));
    }
    assert_eq!(gateway.status()["process"]["generation"], 1, "nothing was reloaded");
    assert_eq!(gateway.instance("web", 0).pid, pid, "nothing was stopped");
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").text(), "one");
    // Who only looks is told whose gateway he sees.
    let looked = run(other.path(), &["apps"]);
    assert!(
        looked.status.success() && told(&looked).contains(&format!("note: this is the gateway of {ours}, not of {theirs}")),
        "{looked:?}"
    );
    // A socket that is named alone stands for whoever answers there.
    let socket = gateway.dir().join("r/gateway.sock").display().to_string();
    let output = run(other.path(), &["--socket", &socket, "reload"]);
    assert!(output.status.success() && told(&output).contains(&format!("configuration 2 is in force: {ours}")), "{}", told(&output));
}

#[test]
fn a_reload_by_another_name_of_the_same_file_is_one() {
    let gateway = Gateway::start(SITE);
    let link = gateway.dir().join("link.toml");
    std::os::unix::fs::symlink("gateway.toml", &link).expect("linked");
    let output = run(gateway.dir(), &["-c", "link.toml", "reload"]);
    assert!(output.status.success(), "{}", told(&output));
    let output = run(gateway.dir(), &["reload"]);
    assert!(output.status.success(), "{}", told(&output));
    fs::rename(gateway.config(), gateway.dir().join("moved.toml")).expect("moved");
    let output = run(gateway.dir(), &["-c", "gateway.toml", "reload"]);
    assert_ne!(output.status.code(), Some(0), "its file is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_in_force_stands_in_status_on_the_page_and_in_the_start_line() {
    let gateway = Gateway::start(SITE);
    let file = gateway.config().display().to_string();
    assert_eq!(gateway.status()["process"]["config"], file.as_str());
    let text = gateway.cli(&["status"]);
    assert!(told(&text).contains(&format!("configuration 1 of {file}")), "{}", told(&text));
    let page = get(gateway.admin(), "localhost", "/").await.expect("a page").text();
    assert!(page.contains(&format!("<code>{file}</code>")), "{page}");
    assert!(gateway.output().lines().any(|line| line.contains(" serves http://") && line.contains(&file)), "{}", gateway.output());
}
