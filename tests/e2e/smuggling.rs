//! Request smuggling: whatever a client sends, the backend sees one request for one, each in a form that has one reading.
//!
//! After each case a request on the same connection, where it lives on, and one on a new connection over the same kept connections to the backend: each gets its own answer.

use std::{collections::BTreeSet, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Gateway,
    h2raw::{self, Fate, H2},
    raw,
    tls::TlsClient,
    wait::secs,
};

mod h1;
mod h2;
mod peers;
mod wire;

use h1::{Case, Want};
use peers::Peer;
use wire::{Backend, Mark};

/// Short where a case makes the gateway wait; one thread, so that one pool has every connection to the backend.
fn before(backend: SocketAddr) -> String {
    format!(
        "workers = 1\n[timeouts]\nheader = \"1s\"\nbody = \"400ms\"\n[upstream.api]\nservers = [\"{backend}\"]\ntimeouts = {{ send = \"400ms\" }}\n\
         [defaults]\nfilters = []\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n"
    )
}

/// What a client saw of one connection.
#[derive(Debug, Default)]
pub struct Heard {
    /// Status and body.
    pub answers: Vec<(u16, String)>,
    /// The next request on it, where it lived on, got its own answer.
    pub probe: Option<bool>,
}

/// Reads one answer; `None`: closed, or not in time.
async fn answer(stream: &mut TcpStream, inbox: &mut Vec<u8>, bodiless: bool) -> Option<(u16, String, bool)> {
    let end = tokio::time::Instant::now() + secs(4);
    let mut read = async |inbox: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        match tokio::time::timeout_at(end, stream.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => {
                inbox.extend_from_slice(&buffer[..count]);
                true
            }
            Ok(Ok(0) | Err(_)) | Err(_) => false,
        }
    };
    let head = loop {
        match memchr::memmem::find(inbox, b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if !read(inbox).await => return None,
            None => {}
        }
    };
    let text = String::from_utf8_lossy(&inbox[..head]).to_lowercase();
    let status = text.get(9..12)?.parse().ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()));
    let length = if status < 200 || bodiless { 0 } else { field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0) };
    while inbox.len() < head + length {
        if !read(inbox).await {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&inbox[head..head + length]).into_owned();
    inbox.drain(..head + length);
    Some((status, body, field("connection").is_some_and(|value| value == "close")))
}

/// Sends the case and hears what comes; then tries the connection.
async fn speak(addr: SocketAddr, case: &Case) -> Heard {
    let mut stream = raw::connect(addr).await;
    let mut heard = Heard::default();
    drop(stream.write_all(&case.bytes).await);
    let mut inbox = Vec::new();
    let expected = if let Want::Taken(n) = case.want { n } else { 1 };
    let mut bodiless = case.bytes.starts_with(b"HEAD ");
    while heard.answers.len() < expected {
        let Some((status, body, last)) = answer(&mut stream, &mut inbox, std::mem::take(&mut bodiless)).await else { return heard };
        if status < 200 {
            continue;
        }
        heard.answers.push((status, body));
        if last {
            while let Some((status, body, _)) = answer(&mut stream, &mut inbox, false).await {
                heard.answers.push((status, body));
            }
            return heard;
        }
    }
    // It lives on: its next request is answered as such, or it is closed; never with another's answer.
    drop(stream.write_all(b"GET /probe HTTP/1.1\r\nHost: a.test\r\n\r\n").await);
    if let Some((status, body, _)) = answer(&mut stream, &mut inbox, false).await {
        // What was behind the case is not a request, or is one: either way it is told so, and nobody takes it for ours.
        heard.probe = (status == 200).then(|| body == "GET /probe 0");
        heard.answers.extend((heard.probe != Some(true)).then_some((status, body)));
    }
    heard
}

/// A client that means well gets its own answer.
async fn good(addr: SocketAddr, turn: usize) -> Result<(), String> {
    let mut stream = raw::connect(addr).await;
    drop(stream.write_all(format!("GET /good/{turn} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await);
    match answer(&mut stream, &mut Vec::new(), false).await {
        Some((200, body, _)) if body == format!("GET /good/{turn} 0") => Ok(()),
        other => Err(format!("a request that means well was answered with {other:?}")),
    }
}

/// What the backend saw of a case that is not to be seen.
fn complaints(backend: &Backend, mark: &Mark, own: &[&str]) -> Vec<String> {
    let reading = backend.since(mark);
    let foreign =
        reading.whole.iter().filter(|seen| !own.iter().any(|own| seen.target == *own || (own.len() > 1 && seen.target.starts_with(own))));
    foreign.map(|seen| format!("the backend was asked for {}", seen.target)).chain(reading.faults).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_on_http1_make_the_backend_see_other_requests_than_we_answer() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&before(backend.addr));
    let edge = gateway.edge();
    let cases = h1::cases();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert!(names.len() >= 150, "{} cases", names.len());
    let (mut bad, mut taken) = (Vec::new(), 0);
    for (turn, case) in cases.iter().enumerate() {
        let mark = backend.mark();
        let heard = speak(gateway.http(), case).await;
        let well = good(gateway.http(), turn).await;
        let mut wrong =
            complaints(&backend, &mark, &["/case", "/next", "/early", "*", "//a.test/case", "/%5Ca.test/case", "/probe", "/good"]);
        wrong.extend(well.err());
        let seen = backend.since(&mark).whole;
        let of_case = seen.iter().filter(|seen| !seen.target.starts_with("/good") && seen.target != "/probe").count();
        let answered = heard.answers.iter().filter(|(status, _)| *status == 200).count();
        taken += usize::from(of_case > 0);
        match case.want {
            Want::Refused if of_case > 0 || answered > 0 => wrong.push(format!("it was taken {of_case} times")),
            Want::Refused if heard.probe.is_some() => wrong.push("the connection lived on".into()),
            Want::Refused | Want::Either => {}
            Want::Taken(n) if of_case != n || answered != n => wrong.push(format!("{of_case} were seen and {answered} answered of {n}")),
            Want::Taken(_) => {}
        }
        if heard.probe == Some(false) {
            wrong.push("the next on the connection got another answer".into());
        }
        // An early answer is one to a request that never came whole.
        if answered > of_case + usize::from(case.bytes.starts_with(b"POST /early")) {
            wrong.push(format!("{answered} answers to {of_case} requests"));
        }
        if !wrong.is_empty() {
            bad.push(format!(
                "{}\n    {}\n    heard {heard:?}\n    sent {:?}",
                case.name,
                wrong.join("\n    "),
                String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(400)])
            ));
        }
    }
    println!("HTTP/1: {} cases, {taken} taken, {} refused", cases.len(), cases.len() - taken);
    assert!(bad.is_empty(), "{} of {} cases:\n{}", bad.len(), cases.len(), bad.join("\n"));
    assert_eq!(gateway.edge(), edge, "the edge was replaced");
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frames_on_http2_make_the_backend_see_other_requests_than_we_answer() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&before(backend.addr));
    let (edge, tls) = (gateway.edge(), TlsClient::internal(&gateway));
    let cases = h2::cases();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert!(names.len() >= 150, "{} cases", names.len());
    let (mut bad, mut taken) = (Vec::new(), 0);
    for (turn, case) in cases.iter().enumerate() {
        let mark = backend.mark();
        let mut front = H2::connect(gateway.https(), &tls, "localhost").await;
        drop(front.send(&case.frames).await);
        let fate = front.fate(1, secs(4)).await;
        // Its neighbour on the connection, where that lives on.
        let probe = match fate {
            Fate::Closed(_) => Fate::Closed(None),
            Fate::Answered(..) | Fate::Reset(_) | Fate::Silence => {
                drop(front.send(&h2raw::headers(101, h2raw::END_STREAM, &h2raw::get(b"localhost", b"/probe"))).await);
                front.fate(101, secs(4)).await
            }
        };
        let well = good(gateway.http(), turn).await;
        let mut wrong = complaints(&backend, &mark, &["/", "/case", "//b.test/case", "/%5Cb.test/case", "/probe", "/good"]);
        wrong.extend(well.err());
        let of_case = backend.since(&mark).whole.iter().filter(|seen| !seen.target.starts_with("/good") && seen.target != "/probe").count();
        let answered = matches!(fate, Fate::Answered(200, _));
        taken += usize::from(of_case > 0);
        match case.want {
            Want::Refused if of_case > 0 || answered || fate == Fate::Silence => wrong.push(format!("it was taken {of_case} times")),
            Want::Taken(n) if of_case != n || !answered => wrong.push(format!("{of_case} were seen of {n}")),
            Want::Refused | Want::Taken(_) | Want::Either => {}
        }
        if !matches!(&probe, Fate::Answered(200, body) if body == "GET /probe 0") && !matches!(probe, Fate::Closed(_)) {
            wrong.push(format!("its neighbour: {probe:?}"));
        }
        if answered && of_case != 1 {
            wrong.push(format!("an answer to {of_case} requests"));
        }
        if !wrong.is_empty() {
            bad.push(format!("{}\n    {}\n    {fate:?}", case.name, wrong.join("\n    ")));
        }
    }
    println!("HTTP/2: {} cases, {taken} taken, {} refused", cases.len(), cases.len() - taken);
    assert!(bad.is_empty(), "{} of {} cases:\n{}", bad.len(), cases.len(), bad.join("\n"));
    assert_eq!(gateway.edge(), edge, "the edge was replaced");
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
}

/// What one proxy made of one case, in a word or two.
async fn verdict(addr: SocketAddr, backend: &Backend, case: &Case) -> (String, Vec<String>) {
    let mark = backend.mark();
    let heard = speak(addr, case).await;
    let reading = backend.since(&mark);
    let of_case = reading.whole.iter().filter(|seen| seen.target != "/probe").count();
    let faults = complaints(backend, &mark, &["/case", "/next", "/early", "*", "//a.test/case", "/%5Ca.test/case", "/probe"]);
    let word = match (of_case, heard.answers.first()) {
        (0, Some((status, _))) => format!("refused {status}"),
        (0, None) => "closed".into(),
        (n, _) => format!("forwarded {n}"),
    };
    (word, faults)
}

/// Not a judgement of theirs: where one of them refuses what we forward, ours must be plain, and the table says where to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_forward_and_others_refuse_has_one_reading() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&before(backend.addr));
    let peers = Peer::all().await;
    let mut dirty = [0; 3];
    let mut table = String::new();
    for case in h1::cases() {
        let ours = verdict(gateway.http(), &backend, &case);
        let [a, b, c] = &peers;
        let (ours, a, b, c) =
            tokio::join!(ours, verdict(a.addr, &a.backend, &case), verdict(b.addr, &b.backend, &case), verdict(c.addr, &c.backend, &case));
        assert!(ours.1.is_empty(), "{}: {:?}", case.name, ours.1);
        let theirs = [a, b, c];
        let refuses = |word: &str| !word.starts_with("forwarded");
        if theirs.iter().any(|(word, faults)| refuses(word) != refuses(&ours.0) || !faults.is_empty()) {
            table += &format!("{:<70} {:<12}", case.name.chars().take(70).collect::<String>(), ours.0);
            for (word, faults) in &theirs {
                table += &format!(" {:<13}", format!("{word}{}", if faults.is_empty() { "" } else { " !" }));
            }
            table += "\n";
        }
        for (count, (_, faults)) in dirty.iter_mut().zip(&theirs) {
            *count += usize::from(!faults.is_empty());
        }
    }
    println!(
        "{:<70} {:<12} {:<13} {:<13} {:<13}\n{table}",
        "case ('!': our reader found fault with what the backend got)", "ours", peers[0].name, peers[1].name, peers[2].name
    );
    println!(
        "cases after which our reader found fault with what the backend got: ours 0, nginx {}, haproxy {}, caddy {}",
        dirty[0], dirty[1], dirty[2]
    );
}
