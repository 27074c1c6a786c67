//! `gateway logs APP`: what an app said, and what it says.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Gateway, binary, child, demo_app, eventually, get, heavy, proc, wait::secs};

/// A worker that says a line on each stream and then one for each file that appears: `say-N`.
const TALKS: &str = r#"
echo "hello from $GATEWAY_INSTANCE"; printf '\tat \033[31mline 1\n' >&2
n=0; while [ $n -lt 3000 ]; do
  for f in say-*; do [ -e "$f" ] && { cat "$f"; rm -f "$f"; }; done
  n=$((n+1)); sleep 0.05
done
"#;

fn talks(more: &str) -> String {
    format!("[app.talks]\ncommand = [\"sh\", \"talks.sh\"]\ndir = \".\"\n{more}\n")
}

fn gateway(config: &str) -> Gateway {
    Gateway::start_beside(&[("talks.sh", TALKS)], config)
}

/// Makes the worker say this.
fn say(gateway: &Gateway, words: &str) {
    // A name of its own each time: the worker may still be about to remove the one before.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("say-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    fs::write(gateway.dir().join("aside"), format!("{words}\n")).expect("written");
    fs::rename(gateway.dir().join("aside"), gateway.dir().join(name)).expect("put in place");
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `gateway logs WORDS…`, running.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(gateway: &Gateway, words: &[&str]) -> Self {
        let mut child = spawn(gateway, words);
        let out = child.stdout.take().expect("piped");
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that contains this.
    fn hears(&self, wanted: &str) -> String {
        let mut heard = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => heard.push(line),
                Err(error) => panic!("{wanted:?} did not come ({error}); heard: {heard:#?}"),
            }
        }
    }

    fn end(&mut self) -> Option<i32> {
        eventually("it ends", secs(20), || self.child.try_wait().expect("our child").ok_or("it runs")).code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(gateway: &Gateway, words: &[&str]) -> Child {
    Command::new(binary())
        .arg("-c")
        .arg(gateway.dir().join("gateway.toml"))
        .arg("logs")
        .args(words)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

fn shows(gateway: &Gateway, words: &[&str], enough: impl Fn(&str) -> bool) -> String {
    let words: Vec<&str> = ["logs"].iter().chain(words).copied().collect();
    eventually("the lines are there", secs(20), || {
        let shown = gateway.cli(&words);
        if shown.status.success() && enough(&text(&shown)) { Ok(text(&shown)) } else { Err(format!("{shown:?}")) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_lines_of_every_instance_with_their_stream_and_no_control_bytes() {
    let gateway = gateway(&talks("procs = 2"));
    let all = shows(&gateway, &["talks"], |text| text.lines().count() >= 4);
    for line in ["talks.0 | hello from 0", "talks.1 | hello from 1", "talks.0 !     at \\u{1b}[31mline 1", "talks.1 !     at"] {
        assert!(all.lines().any(|shown| shown.contains(&format!(" {line}"))), "{line}: {all}");
    }
    assert!(!all.contains('\u{1b}'));
    assert_eq!(text(&gateway.cli(&["logs", "talks", "-n", "2"])).lines().count(), 2);
    assert_eq!(text(&gateway.cli(&["logs", "talks", "-n", "0"])), "");
    for line in text(&gateway.cli(&["logs", "talks", "--json"])).lines() {
        let envelope: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(envelope["t"].is_string() && envelope["app"] == "talks" && envelope["n"].is_u64(), "{envelope}");
        assert!(envelope["pid"].as_u64() > Some(1) && envelope["stream"].is_string() && envelope["msg"].is_string(), "{envelope}");
    }
    let unknown = gateway.cli(&["logs", "tolks"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no app \"tolks\"; there is talks"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_what_comes_over_rotation_and_reload_until_the_app_is_removed() {
    let config =
        |more: &str| format!("{}{more}[log]\ndir = \"logs\"\nrotate = {{ size = \"1KB\", keep = 3, compress = false }}\n", talks(""));
    let gateway = gateway(&config(""));
    let mut following = Following::start(&gateway, &["talks", "-f"]);
    following.hears("talks.0 | hello from 0");
    let long = "x".repeat(900);
    for n in 0..4 {
        say(&gateway, &format!("{n} {long}"));
        following.hears(&format!("talks.0 | {n} xxx"));
    }
    eventually("its log was rotated meanwhile", secs(20), || {
        let files = fs::read_dir(gateway.dir().join("logs")).expect("logs").filter_map(Result::ok);
        let names: Vec<_> = files.map(|file| file.file_name()).filter(|name| name.to_string_lossy().starts_with("talks.log")).collect();
        if names.len() >= 2 { Ok(()) } else { Err(names) }
    });
    gateway.reload(&config("[app.other]\ncommand = \"sleep 1000\"\n")).expect("reloaded");
    say(&gateway, "after the reload");
    following.hears("talks.0 | after the reload");

    // Another one comes and goes: INT is a clean end.
    let mut second = Following::start(&gateway, &["talks", "--follow", "-n", "1"]);
    second.hears("after the reload");
    proc::kill(second.child.id(), Signal::SIGINT);
    assert_eq!(second.end(), Some(0));

    gateway.reload("[app.other]\ncommand = \"sleep 1000\"\n[log]\ndir = \"logs\"\n").expect("reloaded");
    assert_eq!(following.end(), Some(0));
    let mut words = String::new();
    following.child.stderr.take().expect("piped").read_to_string(&mut words).expect("read");
    assert!(words.contains("removed by the configuration"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_the_gateway_was_started_again_comes_from_the_file() {
    let mut gateway = gateway(&format!("{}[log]\ndir = \"logs\"\n", talks("")));
    shows(&gateway, &["talks"], |text| text.contains("hello from 0"));
    say(&gateway, "the first life");
    shows(&gateway, &["talks"], |text| text.contains("the first life"));
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(40));
    gateway.start_again();
    let all = shows(&gateway, &["talks"], |text| text.contains("talks.0 | hello from 0") && text.contains("talks | hello from 0"));
    let places: Vec<usize> = ["talks | hello from 0", "talks | the first life", "talks.0 | hello from 0"]
        .map(|line| all.find(line).unwrap_or_else(|| panic!("{line}: {all}")))
        .into();
    assert!(places.is_sorted(), "{all}");
    assert_eq!(all.matches("hello from 0").count(), 2, "nothing is told twice: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_flood_loses_lines_with_a_count_and_holds_nobody_up() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&format!(
        "[app.vice]\ncommand = {}\n[app.good]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"good\"\n[log]\ndir = \"logs\"\nrotate = {{ size = \"1MB\", keep = 2, compress = false }}\n",
        child::floods_stdout(),
        demo_app("--port {port}")
    ));
    let vice = gateway.wait_app("vice", "ready")[0].pid.expect("alive");
    gateway.wait_app("good", "ready");
    // It reads a little and then nothing at all.
    let mut stalled = spawn(&gateway, &["vice", "-f"]);
    let mut out: ChildStdout = stalled.stdout.take().expect("piped");
    let mut some = [0; 1000];
    out.read_exact(&mut some).expect("lines come");
    let before = memory(gateway.pid());
    let written = || proc_io(vice);
    let start = written();
    eventually("the flood goes on for 50 MB", secs(60), || {
        let more = written() - start;
        if more > 50 << 20 { Ok(()) } else { Err(more) }
    });
    assert_eq!(get(gateway.http(), "a.test", "/healthz").await.expect("an answer").status, 200);
    assert!(gateway.cli(&["status"]).status.success(), "the master answers");
    let after = memory(gateway.pid());
    assert!(after < before + (24 << 20), "the master grew from {before} to {after}");
    assert_eq!(gateway.instance("vice", 0).restarts, 0);

    // It reads on, and hears what it missed.
    let (to, lost) = channel();
    std::thread::spawn(move || {
        let missing = BufReader::new(out).lines().map_while(Result::ok).find(|line| line.contains("lines are missing here"));
        // The test may have given up.
        let _ = to.send(missing);
    });
    let said = lost.recv_timeout(secs(60)).expect("in time").expect("it is told");
    let count: u64 = said.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no count: {said}"));
    assert!(count > 0, "{said}");
    stalled.kill().expect("killed");
    stalled.wait().expect("reaped");

    // So many may follow, and the next is told. The flood is over: what it said last is still known.
    assert!(gateway.cli(&["stop", "vice"]).status.success());
    let followers: Vec<Following> = (0..16).map(|_| Following::start(&gateway, &["vice", "-f", "-n", "1"])).collect();
    for follower in &followers {
        follower.hears("vice.0 |");
    }
    let refused = gateway.cli(&["logs", "vice", "-f"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("16 follow logs already"), "{refused:?}");
    assert!(gateway.cli(&["logs", "vice"]).status.success(), "a look is not refused");
}

/// Resident, without what is only mapped.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Bytes that a process has written.
fn proc_io(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives, and is ours");
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("wchar").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_lives_through_an_upgrade_and_misses_nothing_and_hears_nothing_twice() {
    let count = "[app.counts]\ncommand = [\"sh\", \"-c\", \"n=0; while :; do n=$((n+1)); echo number $n; sleep 0.02; done\"]\n";
    for more in ["", "[log]\ndir = \"logs\"\n"] {
        let gateway = Gateway::start_copy(&format!("{count}{more}"), &[]);
        let follower = Following::start(&gateway, &["counts", "-f", "-n", "0"]);
        let number = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        let mut last = number(&follower.hears("number ")).expect("a number");
        for _ in 0..2 {
            let upgraded = gateway.cli(&["upgrade"]);
            assert!(upgraded.status.success(), "{upgraded:?}");
            // Well beyond what was said meanwhile.
            for _ in 0..100 {
                let next = number(&follower.hears("number ")).expect("a number");
                assert_eq!(next, last + 1, "in a row");
                last = next;
            }
        }
    }
}
