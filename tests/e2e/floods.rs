//! HTTP/2 floods: frames that cost a server more than the client who sends them, beside a client that means well.
//!
//! Each is ended by the server in its own words (GOAWAY, ENHANCE_YOUR_CALM where the frames themselves are in order), memory comes back, and the one beside is answered.
//! Source: CVE-2019-9511 to 9518 (Netflix), CVE-2023-44487 (rapid reset), CVE-2024-27316 and VU#421644 (CONTINUATION), CVE-2025-8671 (MadeYouReset), CVE-2016-6581 (HPACK bomb).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::harness::{
    Gateway, demo_app,
    h2raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Fate, GOAWAY, H2, HEADERS, PADDED, PING, PREFACE, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, headers,
    },
    heavy, proc,
    tls::TlsClient,
    wait::{eventually, ms, secs},
};

/// How many attack at a time, each again when it has been cut off.
const ATTACKERS: usize = 2;
/// What the edge may grow by; it comes back to half of that.
const GROWTH: u64 = 50 << 20;

fn gateway(more: &str) -> Gateway {
    let gateway = Gateway::start(&format!(
        "{more}\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"web\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    gateway
}

fn get_on(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &get(b"localhost", path.as_bytes()))
}

/// The n-th stream of a client.
fn nth(n: usize) -> u32 {
    u32::try_from(2 * n + 1).expect("few streams")
}

/// A flood: what comes once, and what comes again and again.
struct Flood {
    name: &'static str,
    once: Vec<u8>,
    again: fn(usize) -> Vec<u8>,
    /// The server's word for it; `None`: any end will do, for the frames are malformed too.
    word: Option<u32>,
}

fn floods() -> Vec<Flood> {
    let calm = Some(ENHANCE_YOUR_CALM);
    let flood = |name, word, again| Flood { name, once: Vec::new(), again, word };
    vec![
        flood("rapid reset", calm, |n| [get_on(nth(n), "/"), frame(RST_STREAM, 0, nth(n), &8_u32.to_be_bytes())].concat()),
        flood("reset by the server's hand (a window grown by nothing)", None, |n| {
            [get_on(nth(n), "/"), frame(WINDOW_UPDATE, 0, nth(n), &[0; 4])].concat()
        }),
        flood("reset by the server's hand (a window beyond its limit)", calm, |n| {
            [get_on(nth(n), "/"), frame(WINDOW_UPDATE, 0, nth(n), &[0x7f, 0xff, 0xff, 0xff])].concat()
        }),
        flood("reset by the server's hand (DATA after the end)", None, |n| [get_on(nth(n), "/"), frame(DATA, 0, nth(n), b"x")].concat()),
        flood("heads without fields", calm, |n| frame(HEADERS, END_HEADERS | END_STREAM, nth(n), &[])),
        Flood {
            name: "CONTINUATION",
            once: frame(HEADERS, END_STREAM, 1, &block(&get(b"localhost", b"/"))),
            again: |_| frame(CONTINUATION, 0, 1, &block(&[(b"x", b"y")])),
            word: calm,
        },
        Flood {
            name: "empty CONTINUATION",
            once: frame(HEADERS, END_STREAM, 1, &[]),
            again: |_| frame(CONTINUATION, 0, 1, &[]),
            word: calm,
        },
        flood("PING", calm, |n| frame(PING, 0, 0, &(n as u64).to_be_bytes())),
        flood("SETTINGS", calm, |_| frame(SETTINGS, 0, 0, &[])),
        flood("SETTINGS that change", calm, |n| {
            let window = u32::try_from(n % 60_000).expect("small").to_be_bytes();
            frame(SETTINGS, 0, 0, &[0, 4, window[0], window[1], window[2], window[3], 0, 1, 0, 0, window[2], window[3]])
        }),
        flood("PRIORITY", calm, |n| frame(PRIORITY, 0, nth(n), &[0, 0, 0, 0, 16])),
        flood("WINDOW_UPDATE", calm, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        flood("a kind that nobody knows", calm, |_| frame(0xaa, 0, 0, &[])),
        Flood {
            name: "empty DATA",
            once: headers(1, 0, &[(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/upload")]),
            again: |_| frame(DATA, 0, 1, &[]),
            word: calm,
        },
        Flood {
            name: "DATA of padding alone",
            once: headers(1, 0, &[(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/upload")]),
            again: |_| frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
            word: calm,
        },
        Flood {
            name: "a header bomb",
            // Into the table once; then named again and again, a byte each.
            once: Vec::new(),
            again: |n| {
                let mut bomb = block(&get(b"localhost", b"/"));
                if n == 0 {
                    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
                    bomb.extend([b'y'; 4000]);
                }
                bomb.extend(vec![0xbe; 10_000]);
                frame(HEADERS, END_HEADERS | END_STREAM, nth(n), &bomb)
            },
            word: None,
        },
    ]
}

/// Sends it until the server has had enough; how that ended. `None`: it was let be until the end.
async fn attack(addr: SocketAddr, tls: &TlsClient, flood: &Flood, until: Instant) -> Option<Fate> {
    let mut h2 = H2::connect(addr, tls, "localhost").await;
    let mut taken = h2.send(&flood.once).await.is_ok();
    let mut n = 0;
    while taken && Instant::now() < until {
        let mut burst = Vec::new();
        for _ in 0..32 {
            burst.extend((flood.again)(n));
            n += 1;
        }
        taken = h2.send(&burst).await.is_ok();
        // A server that answers each frame wants to be read.
        while let Ok(frame) = h2.frame(Duration::ZERO).await {
            match frame {
                Some(frame) if frame.kind == GOAWAY => return Some(Fate::Closed(frame.code())),
                Some(_) => {}
                None => return Some(Fate::Closed(None)),
            }
        }
    }
    if taken { None } else { Some(h2.end(secs(5)).await) }
}

/// What a client has of it that means well: one connection, one request at a time.
#[derive(Debug)]
struct Beside {
    requests: usize,
    p50: Duration,
    p99: Duration,
}

async fn beside(addr: SocketAddr, tls: TlsClient, until: Instant) -> Beside {
    let mut h2 = H2::connect(addr, &tls, "localhost").await;
    let mut took = Vec::new();
    while Instant::now() < until || took.len() < 20 {
        let (begun, stream) = (Instant::now(), nth(took.len()));
        h2.send(&get_on(stream, "/")).await.expect("its connection lives on");
        let fate = h2.fate(stream, secs(20)).await;
        assert!(matches!(fate, Fate::Answered(200, _)), "the client beside: {fate:?}");
        took.push(begun.elapsed());
        tokio::time::sleep(ms(2)).await;
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    Beside { requests: took.len(), p50: at(50), p99: at(99) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_cut_off_costs_no_memory_and_holds_nobody_up() {
    floods_for(ms(700)).await;
}

/// How long each goes on.
pub async fn floods_for(span: Duration) {
    let _turn = heavy().await;
    let gateway = gateway("");
    let (edge, tls, addr) = (gateway.edge(), TlsClient::internal(&gateway), gateway.https());
    let alone = beside(addr, tls.clone(), Instant::now() + ms(500)).await;
    let before = proc::memory(edge);
    println!("{:<60} p50 {:>9.1?} p99 {:>9.1?} {} MB", "alone", alone.p50, alone.p99, before >> 20);
    let mut wrong = Vec::new();
    for flood in floods() {
        let (until, flood) = (Instant::now() + span, Arc::new(flood));
        let mut attackers = JoinSet::new();
        for _ in 0..ATTACKERS {
            let (tls, flood) = (tls.clone(), flood.clone());
            attackers.spawn(async move {
                let mut fates = Vec::new();
                while Instant::now() < until {
                    fates.push(attack(addr, &tls, &flood, until).await);
                }
                fates
            });
        }
        let beside = beside(addr, tls.clone(), until).await;
        let most = proc::memory(edge);
        let fates: Vec<_> = attackers.join_all().await.into_iter().flatten().collect();
        let cut = fates.iter().filter(|fate| fate.is_some()).count();
        let told = fates.iter().filter(|fate| matches!(fate, Some(Fate::Closed(Some(_))))).count();
        println!(
            "{:<60} p50 {:>9.1?} p99 {:>9.1?} {} MB, {cut} of {} cut off, {told} with a GOAWAY, {} requests beside",
            flood.name,
            beside.p50,
            beside.p99,
            most >> 20,
            fates.len(),
            beside.requests
        );
        if !fates.iter().any(|fate| matches!(fate, Some(Fate::Closed(Some(code))) if flood.word.is_none_or(|word| word == *code))) {
            wrong.push(format!("{}: {fates:?}", flood.name));
        }
        if most.saturating_sub(before) > GROWTH {
            wrong.push(format!("{}: the edge grew from {before} to {most}", flood.name));
        }
        // A figure of a machine that others share is no promise; ten times the bound is a fault anywhere.
        if beside.p99 > secs(1) {
            wrong.push(format!("{}: {beside:?}", flood.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eventually("memory comes back", secs(10), || {
        let now = proc::memory(edge);
        if now.saturating_sub(before) < GROWTH / 2 { Ok(()) } else { Err(format!("{before} to {now}")) }
    });
    assert_eq!(gateway.edge(), edge, "the edge was replaced");
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_and_a_head_that_drip_have_the_deadline_of_a_header() {
    let gateway = gateway("[timeouts]\nheader = \"1s\"\n");
    let (tls, addr) = (TlsClient::internal(&gateway), gateway.https());
    let drip = async |h2: &mut H2, bytes: &[u8]| {
        let begun = Instant::now();
        for byte in bytes {
            if h2.send(&[*byte]).await.is_err() || !matches!(h2.frame(ms(90)).await, Err(_) | Ok(Some(_))) {
                break;
            }
        }
        begun.elapsed()
    };
    let mut slow = H2::silent(addr, &tls, "localhost").await;
    let took = drip(&mut slow, &PREFACE.repeat(5)).await;
    assert!((ms(800)..secs(6)).contains(&took), "the preface: {took:?}");
    let mut slow = H2::connect(addr, &tls, "localhost").await;
    let mut bytes = frame(HEADERS, END_STREAM, 1, &block(&get(b"localhost", b"/")));
    for _ in 0..20 {
        bytes.extend(frame(CONTINUATION, 0, 1, &block(&[(b"x", b"y")])));
    }
    slow.send(&bytes[..20]).await.expect("sent");
    let took = drip(&mut slow, &bytes[20..]).await;
    assert!((ms(800)..secs(6)).contains(&took), "the head: {took:?}");
    // One that is quiet between its requests is another matter.
    let mut quiet = H2::connect(addr, &tls, "localhost").await;
    quiet.send(&get_on(1, "/")).await.expect("sent");
    assert!(matches!(quiet.fate(1, secs(10)).await, Fate::Answered(200, _)));
    assert_eq!(quiet.fate(3, ms(1500)).await, Fate::Silence);
    quiet.send(&get_on(3, "/")).await.expect("sent");
    assert!(matches!(quiet.fate(3, secs(10)).await, Fate::Answered(200, _)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_given_up_and_their_memory_with_them() {
    let _turn = heavy().await;
    let gateway = gateway("[timeouts]\nsend = \"2s\"\n");
    let (edge, tls, addr) = (gateway.edge(), TlsClient::internal(&gateway), gateway.https());
    beside(addr, tls.clone(), Instant::now() + ms(200)).await;
    let before = proc::memory(edge);
    // No window at all, and a hundred answers of a megabyte on each connection.
    let mut hoarders = Vec::new();
    for _ in 0..2 {
        let mut h2 = H2::silent(addr, &tls, "localhost").await;
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
        for n in 0..100 {
            bytes.extend(get_on(nth(n), "/bytes/1000000"));
        }
        h2.send(&bytes).await.expect("sent");
        hoarders.push(h2);
    }
    let beside = beside(addr, tls.clone(), Instant::now() + ms(1500)).await;
    let most = proc::memory(edge);
    println!("200 answers that nobody takes: {} MB to {} MB, beside p99 {:?}", before >> 20, most >> 20, beside.p99);
    assert!(most.saturating_sub(before) < GROWTH, "{before} to {most}");
    gateway.counts("gateway_http_in_flight", &["site=\"localhost\""], 0.0).await;
    for mut h2 in hoarders {
        let mut resets = 0;
        while let Ok(Some(frame)) = h2.frame(ms(300)).await {
            resets += usize::from(frame.kind == RST_STREAM);
        }
        assert_eq!(resets, 100);
    }
    eventually("memory comes back", secs(10), || {
        let now = proc::memory(edge);
        if now.saturating_sub(before) < GROWTH / 2 { Ok(()) } else { Err(format!("{before} to {now}")) }
    });
}
