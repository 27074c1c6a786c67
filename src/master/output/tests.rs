//! The room with real pipes and files.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::*;
use crate::vocab::ByteSize;

fn files(dir: Option<&Path>, format: LogFormat) -> Files {
    let rotate = Rotation { size: ByteSize(1 << 30), age: None, keep: 3, compress: false };
    Files { dir: dir.map(Into::into), access: true, rotate, apps: BTreeMap::new(), format }
}

fn id(app: &str) -> InstanceId {
    InstanceId { app: AppName::parse(app).expect("valid"), n: 1 }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn output_of_an_app_is_in_its_file_and_the_end_of_its_stderr_in_memory() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let (out, err, tail) = output.app_pipes(&id("web"), Kept::Stderr, None).expect("pipes");
    let (mut out, mut err) = (fs::File::from(out), fs::File::from(err));
    out.write_all(b"hello\nwor").expect("written");
    for i in 0..30 {
        writeln!(err, "error {i}").expect("written");
    }
    out.write_all(b"ld").expect("written");
    drop((out, err));
    let log = dir.path().join("web.log");
    until("all lines", || text(&log).lines().count() == 32);
    assert!(text(&log).contains("hello\n") && text(&log).contains("world\n"));
    assert_eq!(tail.lines().len(), TAIL_LINES);
    assert_eq!(tail.lines().last().map(String::as_str), Some("error 29"));
}

#[test]
fn json_lines_tell_who_wrote_them() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Json)).expect("started");
    let (out, _err, tail) = output.app_pipes(&id("web"), Kept::Stderr, None).expect("pipes");
    tail.pid.store(42, Relaxed);
    fs::File::from(out).write_all(b"say \"hi\"\n").expect("written");
    let log = dir.path().join("web.log");
    until("the line", || text(&log).ends_with('\n'));
    let json: serde_json::Value = serde_json::from_str(&text(&log)).expect("json");
    assert_eq!((&json["app"], &json["n"], &json["pid"]), (&"web".into(), &1.into(), &42.into()));
    assert_eq!((&json["stream"], &json["msg"]), (&"stdout".into(), &"say \"hi\"".into()));
}

#[test]
fn an_awaited_line_is_seen_once() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let seen = Arc::new(AtomicBool::new(false));
    let awaited = Awaited {
        pattern: Regex::new("listening on [0-9]+").expect("valid"),
        seen: Box::new({
            let seen = seen.clone();
            move || assert!(!seen.swap(true, Ordering::SeqCst))
        }),
    };
    let (_out, err, _) = output.app_pipes(&id("web"), Kept::Stderr, Some(awaited)).expect("pipes");
    let mut err = fs::File::from(err);
    err.write_all(b"starting\n").expect("written");
    assert!(!seen.load(Ordering::SeqCst));
    err.write_all(b"listening on 80\nlistening on 81\n").expect("written");
    until("seen", || seen.load(Ordering::SeqCst));
}

#[test]
fn a_flood_never_blocks_the_one_who_writes_it() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let (out, _err, _) = output.app_pipes(&id("web"), Kept::Stderr, None).expect("pipes");
    let mut out = fs::File::from(out);
    let block = [vec![b'x'; 99], vec![b'\n']].concat().repeat(655);
    let started = Instant::now();
    for _ in 0..1600 {
        out.write_all(&block).expect("written");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "100 MB took {:?}", started.elapsed());
    out.write_all(b"last\n").expect("written");
    drop(out);
    let log = dir.path().join("web.log");
    until("the last line", || text(&log).ends_with("last\n"));
    let text = text(&log);
    let dropped: u64 = text.lines().filter_map(|l| l.strip_prefix("gateway: ")?.split(' ').next()?.parse::<u64>().ok()).sum();
    let written = text.lines().filter(|l| l.starts_with('x')).count() as u64;
    assert_eq!(written + dropped, 1600 * 655, "every line is there or counted");
}

#[test]
fn the_edge_writes_its_log_and_the_access_log() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let (access, log) = output.edge_pipes().expect("pipes");
    fs::File::from(access).write_all(b"GET / 200\ncut").expect("written");
    fs::File::from(log).write_all(b"<6>all is well\n<3>on fire\nat line 7\n<4>hm\n").expect("written");
    until("the access log", || text(&dir.path().join("access.log")) == "GET / 200\ncut\n");
    until("the log", || text(&dir.path().join("gateway.log")) == "all is well\non fire\nat line 7\nhm\n");
    until("the errors", || text(&dir.path().join("error.log")) == "on fire\nat line 7\n");
}

#[test]
fn what_was_said_before_the_end_is_written() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let log = output.own_log();
    log.make_writer().write_all(b"goodbye\n").expect("written");
    output.finish(Duration::from_secs(20));
    assert_eq!(text(&dir.path().join("gateway.log")), "goodbye\n");
}
