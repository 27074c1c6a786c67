//! The recording backend: keeps every byte of every connection and reads them as strictly as the RFC is written.
//!
//! What it calls a fault is anything that two readers may read in two ways. Source: RFC 9112 §2.2, §3, §5, §6, §7.1.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// One whole request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// What lies in the bytes of one connection.
#[derive(Debug, Default)]
pub struct Reading {
    pub whole: Vec<Seen>,
    pub faults: Vec<String>,
    /// Where the last whole one ends.
    end: usize,
}

/// How much of each connection had been read.
pub struct Mark(Vec<(usize, usize)>);

/// A server on 127.0.0.1. Dropped: it and all its connections end.
pub struct Backend {
    pub addr: SocketAddr,
    wires: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let wires: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (mut tasks, memory) = (JoinSet::new(), wires.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                let at = {
                    let mut all = memory.lock().expect("not poisoned");
                    all.push(Vec::new());
                    all.len() - 1
                };
                connections.spawn(serve(stream, memory.clone(), at));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, wires, _tasks: tasks }
    }

    pub fn mark(&self) -> Mark {
        let wires = self.wires.lock().expect("not poisoned");
        Mark(wires.iter().map(|wire| read(wire)).map(|reading| (reading.whole.len(), reading.faults.len())).collect())
    }

    /// What has come since; every connection is read from its first byte, so that nothing left behind is missed.
    pub fn since(&self, mark: &Mark) -> Reading {
        let mut all = Reading::default();
        for (at, wire) in self.wires.lock().expect("not poisoned").iter().enumerate() {
            let Reading { whole, faults, .. } = read(wire);
            let (old, known) = mark.0.get(at).copied().unwrap_or_default();
            all.whole.extend(whole.into_iter().skip(old));
            all.faults.extend(faults.into_iter().skip(known));
        }
        all
    }
}

/// Answers what is whole, in order, with what it was; `/early` before its body has come. It switches to nothing.
async fn serve(mut stream: TcpStream, wires: Arc<Mutex<Vec<Vec<u8>>>>, at: usize) {
    let (mut answered, mut early) = (0, None);
    let mut buffer = [0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        let (reading, begins_early) = {
            let mut wires = wires.lock().expect("not poisoned");
            let wire = &mut wires[at];
            wire.extend_from_slice(&buffer[..count]);
            let reading = read(wire);
            let begins_early = wire[reading.end..].starts_with(b"POST /early");
            (reading, begins_early)
        };
        let mut answer = Vec::new();
        for seen in reading.whole.iter().skip(answered) {
            let body = format!("{} {} {}", seen.method, seen.target, seen.body.len());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            answer.extend_from_slice(head.as_bytes());
            if seen.method != "HEAD" {
                answer.extend_from_slice(body.as_bytes());
            }
        }
        answered = answered.max(reading.whole.len());
        if begins_early && early != Some(reading.end) {
            early = Some(reading.end);
            // Counts as answered when the rest of it comes, if it does.
            answered += 1;
            answer.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        }
        if !answer.is_empty() && stream.write_all(&answer).await.is_err() {
            return;
        }
        if !reading.faults.is_empty() {
            return;
        }
    }
}

fn read(wire: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut rest = wire;
    while !rest.is_empty() {
        match one(rest, &mut reading.faults) {
            Some((seen, len)) => {
                reading.whole.push(seen);
                reading.end += len;
                rest = &rest[len..];
            }
            None => break,
        }
    }
    reading
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// The first request and its length; `None`: it is not complete, or nobody can say where it ends.
fn one(bytes: &[u8], faults: &mut Vec<String>) -> Option<(Seen, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n");
    let before = faults.len();
    let mut fault = |what: String| faults.push(what);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&head[from..], b"\r\n") {
        lines.push(&head[from..from + at]);
        from += at + 2;
    }
    lines.push(&head[from..]);
    if let Some(line) = lines.iter().find(|line| line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))) {
        // The last line of what is not complete may end between CR and LF.
        if end.is_some() || !line.ends_with(b"\r") {
            fault(format!("a bare CR, LF or NUL in {:?}", String::from_utf8_lossy(line)));
        }
    }
    let end = end?;
    let parts: Vec<&[u8]> = lines[0].split(|b| *b == b' ').collect();
    let [method, target, version] = parts[..] else {
        fault(format!("a request line of {} words", parts.len()));
        return None;
    };
    if !is_token(method) || version != b"HTTP/1.1" {
        fault(format!("a bad method or version: {:?}", String::from_utf8_lossy(lines[0])));
    }
    if !(target.starts_with(b"/") || target == b"*") || !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        fault(format!("a bad target: {:?}", String::from_utf8_lossy(target)));
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            fault(format!("a line without a colon: {:?}", String::from_utf8_lossy(line)));
            continue;
        };
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
        if !is_token(&name) || name.contains(&b'_') {
            fault(format!("a bad name: {:?}", String::from_utf8_lossy(&name)));
        }
        if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            fault(format!("a control byte in {:?}", String::from_utf8_lossy(line)));
        }
        match &name[..] {
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            b"host" => hosts.push(value),
            b"http2-settings" | b"te" | b"proxy-connection" | b"keep-alive" | b"trailer" => {
                fault(format!("a field of the hop before: {:?}", String::from_utf8_lossy(line)));
            }
            _ => {}
        }
    }
    let host_is_plain = |host: &&[u8]| host.iter().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(b)) && !host.is_empty();
    if hosts.len() != 1 || !hosts.iter().all(host_is_plain) {
        fault(format!("hosts: {:?}", hosts.iter().map(|host| String::from_utf8_lossy(host)).collect::<Vec<_>>()));
    }
    if lengths.len() + codings.len() > 1 {
        fault("more than one framing".into());
    }
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| text.parse::<usize>().ok());
    let body = &bytes[end + 4..];
    let (body, len) = if let Some(coding) = codings.first() {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            fault(format!("a coding that is not chunked: {:?}", String::from_utf8_lossy(coding)));
        }
        chunks(body, &mut fault)?
    } else if let Some(length) = lengths.first() {
        let Some(n) = number(length).filter(|n| n.to_string().as_bytes() == *length) else {
            fault(format!("a length that is not plain: {:?}", String::from_utf8_lossy(length)));
            return None;
        };
        (body.get(..n)?.to_vec(), n)
    } else {
        (Vec::new(), 0)
    };
    if faults.len() > before {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((Seen { method: text(method), target: text(target), body }, end + 4 + len))
}

/// A chunked body and its length on the wire.
fn chunks(bytes: &[u8], fault: &mut impl FnMut(String)) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let end = memchr::memmem::find(&bytes[at..], b"\r\n")?;
        let line = &bytes[at..at + end];
        let size = std::str::from_utf8(line).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(size) = size.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            fault(format!("a chunk's size: {:?}", String::from_utf8_lossy(line)));
            return None;
        };
        at += end + 2;
        let data = bytes.get(at..at.checked_add(size)?.checked_add(2)?)?;
        if !data.ends_with(b"\r\n") {
            fault("a chunk that does not end, or trailers".into());
            return None;
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// A checker that finds nothing would pass everything.
#[test]
fn the_backend_finds_the_faults_that_it_is_there_for() {
    for good in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ] {
        let Reading { whole, faults, .. } = read(good.repeat(2).as_bytes());
        assert!(whole.len() == 2 && faults.is_empty(), "{good}: {faults:?}");
    }
    for bad in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX_Y: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 02\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    ] {
        assert!(!read(bad.as_bytes()).faults.is_empty(), "{bad:?}");
    }
}
