//! Releases: deployed beside the old one, refused, taken back, and still there after a restart. What people in front of it see is nothing.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Gateway, Load, binary, get, heavy,
    load::How,
    proc,
    wait::{eventually, eventually_async, secs},
};

/// An app of `gateway demo-app` that names its release, run by a script in its directory.
fn config(dir: &str, more: &str) -> String {
    format!(
        "[app.web]\ncommand = [\"sh\", \"run.sh\", \"{{socket}}\"]\ndir = \"{dir}\"\nprocs = 2\nready = {{ http = \"/healthz\", timeout = \"10s\" }}\nstop = {{ timeout = \"5s\", drain = \"5s\" }}\n{more}[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n"
    )
}

const SHORT_GUARD: &str = "deploy = { guard = \"1s\" }\n";

/// The demo app under this name, with these options.
fn demo(name: &str, options: &str) -> String {
    format!("exec {} demo-app --socket \"$1\" --name {name} {options}\n", binary())
}

/// Writes files of a release.
fn release(gateway: &Gateway, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = gateway.dir().join("releases").join(name);
    fs::create_dir_all(&dir).expect("a directory");
    for (file, text) in files {
        fs::write(dir.join(file), text).expect("written");
    }
    dir
}

/// A gateway whose app runs the release `one`, by the link `current`.
fn shop(more: &str) -> Gateway {
    let gateway =
        Gateway::start("[[site]]\nhost = \"b.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n");
    for name in ["one", "two", "three"] {
        release(&gateway, name, &[("run.sh", &demo(name, ""))]);
    }
    symlink("releases/one", gateway.dir().join("current")).expect("a link");
    gateway.reload(&config("current", more)).expect("in force");
    gateway.wait_app("web", "ready");
    gateway
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every process says that it is of this release.
async fn serves(gateway: &Gateway, name: &str) {
    gateway.wait_app("web", "ready");
    eventually_async(&format!("{name} serves everywhere"), secs(20), || async {
        for _ in 0..8 {
            let answer = get(gateway.http(), "a.test", "/").await.map_err(|error| error.to_string())?;
            if answer.status != 200 || answer.header("x-demo-app") != name {
                return Err(format!("{} from {:?}", answer.status, answer.header("x-demo-app")));
            }
        }
        Ok(())
    })
    .await;
}

fn history(gateway: &Gateway) -> Vec<Value> {
    // None before the first deploy.
    let Ok(text) = fs::read(gateway.state().join("releases/web.json")) else { return Vec::new() };
    let all: Value = serde_json::from_slice(&text).expect("json");
    all["releases"].as_array().expect("a list").clone()
}

pub fn in_background(gateway: &Gateway, words: &[&str]) -> Child {
    Command::new(binary())
        .arg("-c")
        .arg(gateway.dir().join("gateway.toml"))
        .args(words)
        .current_dir(gateway.dir())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_serves_and_outlives_the_gateway_until_it_is_taken_back() {
    let mut gateway = shop(SHORT_GUARD);
    serves(&gateway, "one").await;
    let old = gateway.pids("web");
    let done = gateway.cli(&["deploy", "web", "--dir", "releases/two"]);
    assert!(done.status.success(), "{done:?}");
    for word in ["starting release", "is ready after", "switched", "web is deployed"] {
        assert!(text(&done).contains(word), "{word}: {}", text(&done));
    }
    serves(&gateway, "two").await;
    assert!(old.iter().all(|pid| !gateway.pids("web").contains(pid)), "every process is new");
    let file = gateway.state().join("releases/web.json");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let releases = history(&gateway);
    let states: Vec<_> = releases.iter().map(|release| release["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["previous", "current"], "what ran before can be returned to");
    let id = releases[1]["id"].as_str().expect("an id");
    let apps = gateway.cli(&["apps"]);
    assert!(text(&apps).contains("RELEASE") && text(&apps).contains(id), "{}", text(&apps));

    // A reload that changes nothing of it touches nothing; a restart of the gateway starts the same.
    let pids = gateway.pids("web");
    gateway.reload(&config("current", SHORT_GUARD)).expect("in force");
    assert_eq!(gateway.pids("web"), pids);
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(20));
    gateway.start_again();
    serves(&gateway, "two").await;
    assert!(text(&gateway.cli(&["apps"])).contains(id));

    for (name, word) in [("one", "rolled back"), ("two", "rolled back")] {
        let done = gateway.cli(&["rollback", "web"]);
        assert!(done.status.success() && text(&done).contains(word), "{done:?}");
        serves(&gateway, name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dir_that_is_changed_in_the_configuration_wins_over_a_release() {
    let mut gateway = shop(SHORT_GUARD);
    let done = gateway.cli(&["deploy", "web", "--dir", "releases/two"]);
    assert!(done.status.success(), "{done:?}");
    gateway.reload(&config("releases/three", SHORT_GUARD)).expect("in force");
    serves(&gateway, "three").await;
    assert!(gateway.output().contains("was changed since the deploy"), "{}", gateway.output());
    // The release can be returned to, and the old value of `dir` does not bring it back by itself.
    gateway.reload(&config("current", SHORT_GUARD)).expect("in force");
    serves(&gateway, "one").await;
    let done = gateway.cli(&["rollback", "web"]);
    assert!(done.status.success(), "{done:?}");
    serves(&gateway, "two").await;
    // Its directory goes: what runs goes on, but at a start there is only the configuration's.
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(20));
    fs::rename(gateway.dir().join("releases/two"), gateway.dir().join("releases/gone")).expect("moved");
    gateway.start_again();
    serves(&gateway, "one").await;
    assert!(gateway.output().contains("the directory of its release is gone"), "{}", gateway.output());
    // A history that is damaged is none.
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(20));
    fs::write(gateway.state().join("releases/web.json"), "{\"configured\":").expect("written");
    gateway.start_again();
    serves(&gateway, "one").await;
    assert!(gateway.output().contains("what was deployed of it is not known"), "{}", gateway.output());
    let none = gateway.cli(&["rollback", "web"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert!(text(&none).contains("no release before"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_turned_is_deployed_without_dir_and_can_be_taken_back() {
    let gateway = shop(SHORT_GUARD);
    let turn = |to: &str| {
        let (new, link) = (gateway.dir().join("current.new"), gateway.dir().join("current"));
        symlink(format!("releases/{to}"), &new).expect("a link");
        fs::rename(new, link).expect("turned");
    };
    turn("two");
    let done = gateway.cli(&["deploy", "web"]);
    assert!(done.status.success(), "{done:?}");
    serves(&gateway, "two").await;
    // The link may be turned again: a release does not follow it.
    turn("three");
    let done = gateway.cli(&["restart", "web"]);
    assert!(done.status.success(), "{done:?}");
    serves(&gateway, "two").await;
    let done = gateway.cli(&["rollback", "web"]);
    assert!(done.status.success(), "{done:?}");
    serves(&gateway, "one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_does_not_come_up_changes_nothing() {
    let _turn = heavy().await;
    let gateway = shop("before = [\"sh before.sh\"]\ndeploy = { guard = \"1s\" }\n");
    let good = "pwd >> ../../before.log; echo migrated\n";
    for name in ["one", "two"] {
        release(&gateway, name, &[("before.sh", good)]);
    }
    release(&gateway, "syntax", &[("before.sh", good), ("run.sh", "echo starting >&2; if then else\n")]);
    release(&gateway, "never", &[("before.sh", good), ("run.sh", &demo("never", "--never-listen"))]);
    release(&gateway, "unmigrated", &[("before.sh", "seq 30; echo no such table >&2; exit 3\n"), ("run.sh", &demo("unmigrated", ""))]);
    let old = gateway.wait_app("web", "ready");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 4).start();
    for (name, word) in [("syntax", "exit 2"), ("never", "not ready"), ("unmigrated", "no such table")] {
        load.more(20).await;
        let failed = gateway.cli(&["deploy", "web", "--dir", &format!("releases/{name}")]);
        assert_eq!(failed.status.code(), Some(1), "{name}: {failed:?}");
        assert!(text(&failed).contains(word), "{name} without {word:?}: {}", text(&failed));
        let now = gateway.wait_app("web", "ready");
        let pids = |of: &[crate::harness::gateway::Instance]| of.iter().map(|i| i.pid).collect::<Vec<_>>();
        assert_eq!(pids(&now), pids(&old), "{name}");
        let last = history(&gateway).pop().expect("a release");
        assert_eq!(last["state"], "failed", "{last}");
    }
    load.more(20).await;
    load.stop().await.assert_all_200();
    // The last lines of a command are shown, not all of them.
    let failed = gateway.cli(&["deploy", "web", "--dir", "releases/unmigrated"]);
    assert!(text(&failed).contains("\n  30\n") && !text(&failed).contains("\n  2\n"), "{}", text(&failed));
    let before = fs::read_to_string(gateway.dir().join("before.log")).expect("written");
    let dirs: Vec<_> = before.lines().map(|line| Path::new(line).file_name().expect("a name").to_owned()).collect();
    assert_eq!(dirs, ["syntax", "never"], "once a deploy, in its directory");
    let nothing = gateway.cli(&["rollback", "web"]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_deploy_at_a_time_and_it_goes_on_without_whoever_asked() {
    let gateway = shop("before = [\"sh before.sh\"]\ndeploy = { guard = \"1s\" }\n");
    let wait = "touch ../../began; until test -e ../../go; do sleep 0.05; done\n";
    release(&gateway, "two", &[("before.sh", wait)]);
    let mut first = in_background(&gateway, &["deploy", "web", "--dir", "releases/two"]);
    // Asked for before that, the second would be the first.
    eventually("the first is under way", secs(20), || if gateway.dir().join("began").exists() { Ok(()) } else { Err("not begun") });
    let second = gateway.cli(&["deploy", "web", "--dir", "releases/three"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(text(&second).contains("releases/two") && text(&second).contains("user "), "it says which: {}", text(&second));
    assert!(text(&gateway.cli(&["rollback", "web"])).contains("under way"));
    // A reload does not have to wait for a command.
    gateway.reload(&config("current", "before = [\"sh before.sh\"]\ndeploy = { guard = \"2s\" }\n")).expect("in force");
    proc::kill(first.id(), Signal::SIGINT);
    let ended = eventually("the client ends", secs(20), || first.try_wait().expect("our child").ok_or("running"));
    assert_eq!(ended.code(), Some(130));
    let said = first.wait_with_output().expect("its output");
    assert!(text(&said).contains("goes on"), "{said:?}");
    fs::write(gateway.dir().join("go"), "").expect("written");
    serves(&gateway, "two").await;
    eventually("it is remembered", secs(20), || match history(&gateway).last() {
        Some(last) if last["state"] == "current" => Ok(()),
        last => Err(format!("{last:?}")),
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_deployed_or_scaled_is_refused_with_the_reason() {
    let gateway = shop(
        "[app.fixed]\ncommand = \"sleep 1000\"\nport = 1\nprocs = 2\n[app.job]\ncommand = \"true\"\nschedule = \"0 0 1 1 *\"\n[app.bare]\ncommand = \"sleep 1000\"\n",
    );
    let stopped = gateway.cli(&["stop", "bare"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let dir = "releases/two";
    for (words, reason) in [
        (&["deploy", "nobody", "--dir", dir][..], "no app"),
        (&["deploy", "web", "--dir", "releases/none"], "No such file"),
        (&["deploy", "web", "--dir", "gateway.toml"], "no directory"),
        (&["deploy", "fixed", "--dir", dir], "fixed port"),
        (&["deploy", "job", "--dir", dir], "is a job"),
        (&["deploy", "bare", "--dir", dir], "gateway start"),
        (&["rollback", "web"], "no release before"),
        (&["rollback", "nobody"], "no app"),
        (&["scale", "nobody", "2"], "no app"),
        (&["scale", "fixed", "3"], "1 to 2"),
        (&["scale", "job", "2"], "job"),
    ] {
        let refused = gateway.cli(words);
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {refused:?}");
        assert!(text(&refused).contains(reason), "{words:?} without {reason:?}: {}", text(&refused));
    }
    assert!(
        gateway
            .ask(&serde_json::json!({ "command": "deploy", "app": "web", "dir": "releases/two" }))
            .is_err_and(|why| why.contains("not absolute"))
    );
    for number in ["0", "1001"] {
        assert_eq!(gateway.cli(&["scale", "web", number]).status.code(), Some(64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_has_as_many_processes_as_it_is_scaled_to() {
    let _turn = heavy().await;
    let gateway = shop(SHORT_GUARD);
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 4).start();
    for count in ["4", "1", "3"] {
        load.more(20).await;
        let done = gateway.cli(&["scale", "web", count]);
        assert!(done.status.success(), "{done:?}");
        eventually(&format!("{count} processes"), secs(20), || {
            let now = gateway.instances();
            if now.len().to_string() == count && now.iter().all(|i| i.state == "ready") { Ok(()) } else { Err(now) }
        });
    }
    // A new release has as many.
    let done = gateway.cli(&["deploy", "web", "--dir", "releases/two"]);
    assert!(done.status.success(), "{done:?}");
    load.more(20).await;
    load.stop().await.assert_all_200();
    serves(&gateway, "two").await;
    assert_eq!(gateway.wait_app("web", "ready").len(), 3);
}

/// A FastAPI app that says which release it is.
fn fastapi(name: &str, root: &str) -> String {
    format!(
        "from fastapi import FastAPI, Response\napp = FastAPI()\n\n@app.get(\"/healthz\")\ndef healthz(): return {{\"ok\": True}}\n\n@app.get(\"/\")\ndef root(response: Response):\n    response.headers[\"x-demo-app\"] = \"{name}\"\n    {root}\n"
    )
}

fn python(program: &str, more: &str) -> (Gateway, String) {
    let gateway =
        Gateway::start("[[site]]\nhost = \"b.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n");
    release(&gateway, "one", &[("main.py", &fastapi("one", "return {}"))]);
    release(&gateway, "two", &[("main.py", &fastapi("two", "return {}"))]);
    release(&gateway, "syntax", &[("main.py", "from fastapi import FastAPI\napp = FastAPI(\n")]);
    release(&gateway, "errors", &[("main.py", &fastapi("errors", "raise RuntimeError(\"broken\")"))]);
    let config = format!(
        "[app.web]\ncommand = \"{}/bin/{program}\"\ndir = \"releases/one\"\nprocs = 2\nready = {{ http = \"/healthz\", timeout = \"60s\" }}\n{more}[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        crate::real::venv().display()
    );
    gateway.reload(&config).expect("in force");
    gateway.wait_app_for("web", "ready", secs(60));
    (gateway, config)
}

/// Under load: a release with a syntax error changes nothing, a good one is everywhere, and nobody in front notices.
async fn python_releases(program: &str) {
    let (gateway, _) = python(program, SHORT_GUARD);
    let old = gateway.pids("web");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 4).start();
    load.more(20).await;
    let failed = gateway.cli(&["deploy", "web", "--dir", "releases/syntax"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    // What was tried may still be on its way out.
    gateway.wait_app("web", "ready");
    assert_eq!(gateway.pids("web"), old, "{}", text(&failed));
    let done = gateway.cli(&["deploy", "web", "--dir", "releases/two"]);
    assert!(done.status.success(), "{done:?}");
    load.more(20).await;
    load.stop().await.assert_all_200();
    serves(&gateway, "two").await;
    assert!(old.iter().all(|pid| !gateway.pids("web").contains(pid)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fastapi_on_uvicorn_is_deployed_without_a_word_to_its_users() {
    let _turn = heavy().await;
    python_releases("uvicorn main:app --uds {socket}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fastapi_on_gunicorn_is_deployed_without_a_word_to_its_users() {
    let _turn = heavy().await;
    // On a port: gunicorn gives its socket to its own group, where an edge of another user cannot reach it.
    python_releases("gunicorn --worker-class asgi --workers 1 --bind 127.0.0.1:{port} main:app").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_answers_500_is_taken_back_and_nobody_has_seen_it() {
    let _turn = heavy().await;
    let (gateway, _) = python("uvicorn main:app --uds {socket}", "deploy = { guard = \"20s\" }\n");
    let old = gateway.pids("web");
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/", 4).start();
    load.more(20).await;
    let failed = gateway.cli(&["deploy", "web", "--dir", "releases/errors"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed).contains("requests to the new release failed"), "{}", text(&failed));
    load.more(20).await;
    load.stop().await.assert_all_200();
    serves(&gateway, "one").await;
    assert_eq!(gateway.pids("web"), old);
}
