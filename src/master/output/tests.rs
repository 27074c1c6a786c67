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
fn a_look_at_the_past_does_not_take_away_the_count_of_lines_that_were_dropped() {
    let dir = tempfile::tempdir().expect("dir");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let web = id("web").app;
    let block = [vec![b'x'; 99], vec![b'\n']].concat().repeat(655);
    let flood = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        // As `gateway logs` does, all the while.
        scope.spawn(|| {
            while flood.load(Ordering::SeqCst) {
                output.flush(Duration::from_secs(20));
            }
        });
        (0..1600).for_each(|_| output.queue.push(&Target::App(web.clone()), &block));
        flood.store(false, Ordering::SeqCst);
    });
    assert!(output.flush(Duration::from_secs(20)));
    let text = text(&dir.path().join("web.log"));
    let dropped: u64 = text.lines().filter_map(|l| l.strip_prefix("gateway: ")?.split(' ').next()?.parse::<u64>().ok()).sum();
    let written = text.lines().filter(|l| l.starts_with('x')).count() as u64;
    assert!(dropped > 0, "nothing was dropped: the test shows nothing");
    assert_eq!(written + dropped, 1600 * 655, "every line is there or counted");
}

#[test]
fn access_records_that_cannot_be_written_are_counted() {
    let dir = tempfile::tempdir().expect("dir");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("access.log")).expect("a disk that is full");
    let output = Output::start(&files(Some(dir.path()), LogFormat::Text)).expect("started");
    let (access, _log) = output.edge_pipes().expect("pipes");
    fs::File::from(access).write_all(b"one\ntwo\nthree\n").expect("written");
    until("three are lost", || output.access_lost() == 3);
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

/// As [`files`], and the app is one of the configuration.
fn with_web(dir: &Path, format: LogFormat) -> Files {
    let mut files = files(Some(dir), format);
    files.apps.insert(id("web").app, files.rotate.clone());
    files
}

async fn told(output: &Output, lines: usize, enough: impl Fn(&[LogLine]) -> bool) -> Vec<LogLine> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let told = output.last(&id("web").app, lines).await.expect("known");
        if enough(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_past_is_told_from_memory_and_what_was_before_from_the_file() {
    for (format, before) in [
        (LogFormat::Text, "old\nsame\nsame\n"),
        (LogFormat::Json, "{\"app\":\"web\",\"msg\":\"old\"}\n{\"app\":\"web\",\"msg\":\"same\"}\n{\"app\":\"web\",\"msg\":\"same\"}\n"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("web.log"), before).expect("written");
        let output = Output::start(&with_web(dir.path(), format)).expect("started");
        let (out, err, tail) = output.app_pipes(&id("web"), Kept::Stderr, None).expect("pipes");
        tail.pid.store(42, Relaxed);
        fs::File::from(out).write_all(b"same\n").expect("written");
        told(&output, 1, |told| told.iter().any(|line| line.n == Some(1))).await;
        fs::File::from(err).write_all(b"new\n").expect("written");
        let all = told(&output, 10, |told| told.iter().any(|line| line.msg == "new")).await;
        let seen: Vec<_> = all.iter().map(|line| (&*line.msg, line.n, line.pid, line.stream.as_deref())).collect();
        let (out, err) = ((Some(1), Some(42), Some("stdout")), (Some(1), Some(42), Some("stderr")));
        let expected = [
            ("old", None, None, None),
            ("same", None, None, None),
            ("same", None, None, None),
            ("same", out.0, out.1, out.2),
            ("new", err.0, err.1, err.2),
        ];
        assert_eq!(seen, expected, "{format:?}");
        assert_eq!(told(&output, 4, |told| told.len() == 4).await, all[1..], "{format:?}");
    }
}

#[test]
fn last_words_are_cut_and_hold_nothing_that_a_terminal_obeys() {
    let tail = Tail::default();
    for _ in 0..30 {
        tail.add(&[b'x'; 16 * 1024]);
    }
    let lines = tail.lines();
    assert_eq!(lines.len(), TAIL_LINES);
    assert!(lines.iter().all(|line| line.len() <= TAIL_LINE && !line.chars().any(char::is_control)));
    let tail = Tail::default();
    tail.add(&[0xff; 16 * 1024]);
    tail.add(b"\t\x1b[31mred\x07\r");
    let lines = tail.lines();
    assert!(lines[0].len() <= TAIL_LINE && lines[0].starts_with('\u{fffd}'), "{}", lines[0].len());
    assert_eq!(lines[1], "  [31mred");
}
