//! HTTP/1.1, from a client's socket to an origin's and back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::harness::{Answer, Edge, ask, closed, drip, echo, head, origin, run, sink, site};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn a_request_reaches_its_app_and_comes_back_dressed() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut client = edge.connect().await;
        for _ in 0..3 {
            let answer = ask(&mut client, "GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nX_Bad: 1\r\n\r\n").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{answer:?}");
            assert_eq!(answer.field("x-frame-options"), Some("SAMEORIGIN"));
            assert_eq!(answer.field("server"), None);
            assert!(answer.body.to_lowercase().contains("x-real-ip: 127.0.0.1"), "{answer:?}");
            assert!(!answer.body.to_lowercase().contains("x_bad"), "{answer:?}");
            let id = answer.field("x-request-id").expect("an id");
            assert!(answer.body.contains(id), "{answer:?}");
        }
        let answer = ask(&mut client, "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
        assert_eq!((answer.status, answer.field("x-frame-options")), (404, Some("SAMEORIGIN")), "{answer:?}");
        assert_eq!(ask(&mut client, GET).await.status, 200, "an answer of ours keeps the connection");
    });
}

#[test]
fn an_absolute_form_is_taken_for_its_path_and_judged_by_it() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let answer = ask(&mut edge.connect().await, "GET HTTP://a.test/x?y=1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{answer:?}");
        for (target, status) in
            [("http://a.test/.git/config", 403), ("http://b.test/x", 400), ("http://me@a.test/x", 400), ("ftp://a.test/x", 400)]
        {
            let answer = ask(&mut edge.connect().await, &format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            assert_eq!(answer.status, status, "{target}: {answer:?}");
        }
    });
}

#[test]
fn a_field_with_an_underscore_passes_where_it_may_unless_it_reads_as_another() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(
            &[app],
            "[limits]\nunderscores = \"pass\"\n",
            "",
            "[site.route.\"/env/\"]\nupstream = \"app\"\nrequest_headers = { \"X-Env\" = \"prod\" }\n",
        ));
        let fields = "Api_Key: k\r\nX_Real_IP: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX_Env: test\r\nX-User: me\r\nX_User: you\r\nContent_Length: 7\r\n";
        let answer = ask(&mut edge.connect().await, &format!("GET /env/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
        let said = answer.body.to_lowercase();
        assert!(said.contains("api_key: k\r\n") && said.contains("x-user: me\r\n") && said.contains("x-env: prod\r\n"), "{said}");
        for gone in ["9.9.9.9", "x_env", "x_user", "content_length"] {
            assert!(!said.contains(gone), "{gone}: {said}");
        }
    });
}

#[test]
fn a_raw_target_reaches_the_app_encoded_and_is_judged_by_what_it_means() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", "[site.route.\"/\u{e4}/\"]\nrespond = \"ours\"\n"));
        let mut client = edge.connect().await;
        for (raw, encoded) in [
            ("/b\u{fc}cher?q=stra\u{df}e", "/b%C3%BCcher?q=stra%C3%9Fe"),
            ("/a|b^c`d\\e\"f<g>?filter={\"id\":1}", "/a%7Cb%5Ec%60d%5Ce%22f%3Cg%3E?filter=%7B%22id%22:1%7D"),
            ("http://a.test/{x}", "/%7Bx%7D"),
        ] {
            let answer = ask(&mut client, &format!("GET {raw} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            assert_eq!(answer.status, 200, "{raw}: {answer:?}");
            assert!(answer.body.starts_with(&format!("GET {encoded} HTTP/1.1\r\n")), "{raw}: {answer:?}");
        }
        // With no UTF-8 in it either, and a body behind it.
        client.write_all(b"POST /\xff HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi").await.expect("sent");
        let answer = Answer::read(&mut client).await.expect("an answer");
        assert!(answer.body.starts_with("POST /%FF HTTP/1.1\r\n"), "{answer:?}");
        let answer = ask(&mut client, "GET /\u{e4}/x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.body, "ours", "routes see the same: {answer:?}");
        let answer = ask(&mut client, "GET /?q=<script>alert(1)</script> HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        for bad in ["/a b", "/a\tb", "/a\x01", "/\x7f"] {
            let answer = ask(&mut edge.connect().await, &format!("GET {bad} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            assert_eq!(answer.status, 400, "{bad:?}: {answer:?}");
        }
    });
}

#[test]
fn what_a_stranger_says_of_itself_does_not_reach_the_app() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let request =
            "GET / HTTP/1.1\r\nHost: a.test\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-Prefix: /evil\r\nX-Original-URL: /evil\r\n\r\n";
        let answer = ask(&mut edge.connect().await, request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.body.contains("9.9.9.9") && !answer.body.contains("evil"), "{answer:?}");
    });
}

#[test]
fn bodies_travel_whole_whatever_their_framing_and_pieces() {
    run(async {
        let app = origin(|mut stream: TcpStream| async move {
            while let Some(head) = head(&mut stream).await {
                let body = if head.to_lowercase().contains("chunked") {
                    let mut all = String::new();
                    loop {
                        let mut size = String::new();
                        while !size.ends_with("\r\n") {
                            size.push(stream.read_u8().await.expect("more").into());
                        }
                        let mut piece = vec![0; usize::from_str_radix(size.trim(), 16).expect("hex") + 2];
                        stream.read_exact(&mut piece).await.expect("a piece");
                        all.push_str(std::str::from_utf8(&piece[..piece.len() - 2]).expect("text"));
                        if piece.len() == 2 {
                            break all;
                        }
                    }
                } else {
                    let length = crate::harness::field(&head, "content-length").map_or(0, |v| v.parse().expect("a length"));
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.expect("the body");
                    String::from_utf8(body).expect("text")
                };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.expect("sent");
            }
        })
        .await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut client = edge.connect().await;
        let long = "0123456789".repeat(20_000);
        let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(ask(&mut client, &post("short")).await.body, "short");
        assert_eq!(ask(&mut client, &post(&long)).await.body, long);
        let chunked = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        assert_eq!(ask(&mut client, chunked).await.body, "hello world");
        drip(&mut client, &post("in pieces"), 7, Duration::from_millis(1)).await;
        assert_eq!(Answer::read(&mut client).await.expect("an answer").body, "in pieces");
    });
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut client = edge.connect().await;
        let all: String = (0..20)
            .map(|n| match n % 2 {
                0 => format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
                _ => format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"),
            })
            .collect();
        client.write_all(all.as_bytes()).await.expect("sent");
        for n in 0..20 {
            let answer = Answer::read(&mut client).await.expect("an answer");
            assert!(answer.body.contains(&format!("/{n} HTTP/1.1")), "{n}: {answer:?}");
        }
    });
}

#[test]
fn what_is_no_request_is_told_so_with_every_header() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "[limits]\nheaders = \"2KB\"\nuri = \"512B\"\nheader_count = 20\n", "", ""));
        let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "A: b\r\n".repeat(30));
        let cases = [
            ("\x16\x03\x01\x02\x00", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("GET / HTTP/9.9\r\nHost: a.test\r\n\r\n", 400),
            ("G@T / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nBad Name: 1\r\nHost: a.test\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", 400),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405),
            (&*format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(600)), 414),
            (&*format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "a".repeat(3000)), 431),
            (&*many, 431),
        ];
        for (request, status) in cases {
            let mut client = edge.connect().await;
            let answer = ask(&mut client, request).await;
            assert_eq!((answer.status, answer.field("x-frame-options")), (status, Some("SAMEORIGIN")), "{request:?} {answer:?}");
            assert_eq!(answer.field("server"), None);
        }
        assert_eq!(ask(&mut edge.connect().await, GET).await.status, 200);
    });
}

#[test]
fn a_head_has_a_deadline_in_total() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "[timeouts]\nheader = \"400ms\"\nidle = \"300ms\"\n", "", ""));
        let began = Instant::now();
        let mut client = edge.connect().await;
        let slow = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}", "X: y\r\n".repeat(100));
        let (mut reader, mut writer) = client.split();
        let (answer, ()) = tokio::join!(Answer::read(&mut reader), async {
            tokio::select! {
                () = drip(&mut writer, &slow, 1, Duration::from_millis(20)) => {}
                () = tokio::time::sleep(Duration::from_millis(700)) => {}
            }
        });
        assert_eq!(answer.expect("told").status, 408);
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        let (silent, mut idle) = (edge.connect().await, edge.connect().await);
        assert_eq!(ask(&mut idle, GET).await.status, 200);
        let began = Instant::now();
        for mut client in [silent, idle] {
            assert!(closed(&mut client).await, "without a word");
        }
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    });
}

#[test]
fn a_body_has_a_deadline_between_reads() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "[timeouts]\nbody = \"300ms\"\n", "", ""));
        let mut client = edge.connect().await;
        let answer = ask(&mut client, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert_eq!((answer.status, answer.field("x-frame-options")), (408, Some("SAMEORIGIN")));
        assert!(closed(&mut client).await);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    run(async {
        let app = origin(|mut stream: TcpStream| async move {
            while head(&mut stream).await.is_some() {
                let body = vec![b'x'; 64 << 20];
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                if stream.write_all(&[answer.as_bytes(), &body].concat()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let edge = Edge::start(&site(&[app], "[timeouts]\nsend = \"300ms\"\n", "", ""));
        let mut client = edge.connect().await;
        client.write_all(GET.as_bytes()).await.expect("sent");
        let began = Instant::now();
        while edge.metrics.totals().requests == 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "still on it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(edge.metrics.totals().sent_bytes < 32 << 20);
    });
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_client_learns_it() {
    run(async {
        let app = origin(sink).await;
        let edge = Edge::start(&site(&[app], "[limits]\nbody = \"64KB\"\n", "", ""));
        let body = "x".repeat(4 << 20);
        let length = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let chunked =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for request in [length, chunked] {
            let mut client = edge.connect().await;
            let (mut reader, mut writer) = client.split();
            // The client reads only when it has sent all, as most do.
            let sent = writer.write_all(request.as_bytes()).await;
            let answer = Answer::read(&mut reader).await;
            assert_eq!(answer.as_ref().map(|a| a.status), Some(413), "{sent:?} {answer:?}");
        }
    });
}

#[test]
fn events_are_passed_on_as_they_come() {
    run(async {
        for framing in ["Transfer-Encoding: chunked", "Content-Length: 9", "Connection: close"] {
            let (next, mut go) = mpsc::channel::<()>(1);
            let go = Arc::new(tokio::sync::Mutex::new({
                let (forward, receiver) = mpsc::channel::<()>(1);
                tokio::runtime::Handle::current().spawn(async move {
                    while let Some(()) = go.recv().await {
                        forward.send(()).await.expect("heard");
                    }
                });
                receiver
            }));
            let app = origin(move |mut stream: TcpStream| {
                let go = go.clone();
                async move {
                    head(&mut stream).await.expect("a request");
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.expect("sent");
                    for event in ["one", "two", "end"] {
                        let piece = if framing.contains("chunked") { format!("3\r\n{event}\r\n") } else { event.to_owned() };
                        stream.write_all(piece.as_bytes()).await.expect("sent");
                        go.lock().await.recv().await;
                    }
                }
            })
            .await;
            let edge = Edge::start(&site(&[app], "", "", ""));
            let mut client = edge.connect().await;
            client.write_all(GET.as_bytes()).await.expect("sent");
            let mut seen = String::new();
            for event in ["one", "two", "end"] {
                while !seen.contains(event) {
                    let mut piece = [0; 1024];
                    let n = tokio::time::timeout(Duration::from_secs(5), client.read(&mut piece)).await;
                    let n = n.unwrap_or_else(|_| panic!("{framing}: {event} does not come: {seen:?}")).expect("read");
                    assert!(n > 0, "{framing}: {seen:?}");
                    seen.push_str(std::str::from_utf8(&piece[..n]).expect("text"));
                }
                next.send(()).await.expect("heard");
            }
        }
    });
}

#[test]
fn a_dead_server_is_not_seen_and_all_dead_is_told_at_once() {
    run(async {
        let dead = {
            let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            socket.local_addr().expect("bound")
        };
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[dead, app], "", "", ""));
        let mut client = edge.connect().await;
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi").await.status, 200);
        }
        let edge = Edge::start(&site(&[dead], "", "", ""));
        let answer = ask(&mut edge.connect().await, GET).await;
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        assert!(answer.field("retry-after").is_some() && answer.field("x-frame-options") == Some("SAMEORIGIN"), "{answer:?}");
    });
}

#[test]
fn what_may_have_had_effect_is_sent_once() {
    run(async {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let dies = origin(move |mut stream: TcpStream| {
            let count = count.clone();
            async move {
                if head(&mut stream).await.is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[dies, app], "", "", ""));
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
        let mut posts = Vec::new();
        for _ in 0..2 {
            let before = seen.load(Ordering::Relaxed);
            posts.push((ask(&mut edge.connect().await, post).await.status, seen.load(Ordering::Relaxed) - before));
        }
        for _ in 0..4 {
            assert_eq!(ask(&mut edge.connect().await, GET).await.status, 200, "a GET goes on to the next");
        }
        assert!(seen.load(Ordering::Relaxed) > 1, "and was on the other before");
        assert!(posts.contains(&(502, 1)), "{posts:?}");
        assert!(posts.iter().all(|post| matches!(post, (502, 1) | (200, 0))), "{posts:?}");
    });
}

#[test]
fn a_kept_connection_that_was_given_up_costs_no_request_where_there_is_one_server() {
    run(async {
        let app = origin(|mut stream: TcpStream| async move {
            if head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("sent");
            }
            // Gone when it is asked again.
            head(&mut stream).await;
        })
        .await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut client = edge.connect().await;
        for n in 0..4 {
            assert_eq!(ask(&mut client, GET).await.status, 200, "request {n}");
        }
    });
}

#[test]
fn what_only_calls_itself_an_upgrade_has_every_deadline() {
    run(async {
        let app = origin(|mut stream: TcpStream| async move {
            if head(&mut stream).await.is_some_and(|head| head.starts_with("GET")) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok").await.expect("sent");
            }
            std::future::pending::<()>().await;
        })
        .await;
        let edge = Edge::start(&site(&[app], "[timeouts]\nbody = \"200ms\"", "timeouts = { read = \"400ms\" }", ""));
        for upgrade in ["h2c", "websocket"] {
            let post =
                format!("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nContent-Length: 9\r\n\r\nhi");
            assert_eq!(ask(&mut edge.connect().await, &post).await.status, 408, "{upgrade}");
        }
        let mut client = edge.connect().await;
        let get = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert!(ask_head(&mut client, get).await.contains("200"));
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(3), client.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest == b"ok", "an answer that stalls is no tunnel: {rest:?}");
    });
}

#[test]
fn a_client_that_keeps_its_body_to_itself_is_not_held_against_the_server() {
    run(async {
        let app = origin(sink).await;
        let upstream = "timeouts = { read = \"200ms\" }\npassive = { fails = 1, within = \"10s\", for = \"10s\" }";
        // A body that is waited for before a server is chosen is not its business at all.
        let edge = Edge::start(&site(&[app], "", upstream, "limits = { buffer = \"off\" }"));
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhi";
        assert_eq!(ask(&mut edge.connect().await, post).await.status, 408);
        let live = edge.live.load_full();
        let states: Vec<_> = live.pools.iter().flat_map(|pool| pool.view(live.now()).servers).map(|server| server.state).collect();
        assert_eq!(states, ["up"]);
    });
}

#[test]
fn an_answer_that_may_be_better_elsewhere_is_not_the_last_word() {
    run(async {
        let answers = |status: &'static str| {
            move |mut stream: TcpStream| async move {
                while head(&mut stream).await.is_some() {
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        };
        let (bad, good) = (origin(answers("503 Service Unavailable")).await, origin(echo).await);
        let retry = "retry = { tries = 2, on = [\"connect\", \"503\"] }\npassive = { fails = 1000, within = \"1s\", for = \"1s\" }";
        let edge = Edge::start(&site(&[bad, good], "", retry, ""));
        let mut client = edge.connect().await;
        for _ in 0..10 {
            assert_eq!(ask(&mut client, GET).await.status, 200);
        }
        let edge = Edge::start(&site(&[bad], "", retry, ""));
        let answer = ask(&mut edge.connect().await, GET).await;
        assert_eq!((answer.status, &*answer.body), (503, "no"), "nobody else to ask: the app's own words");
    });
}

#[test]
fn a_server_that_hangs_is_given_up() {
    run(async {
        let hangs = origin(|mut stream: TcpStream| async move {
            head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let edge = Edge::start(&site(&[hangs], "", "timeouts = { read = \"200ms\" }", ""));
        let answer = ask(&mut edge.connect().await, GET).await;
        assert_eq!((answer.status, answer.field("retry-after").is_some()), (504, true), "{answer:?}");
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let answer = ask(&mut edge.connect().await, upgrade).await;
        assert_eq!(answer.status, 504, "{answer:?}");
    });
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_may_be_silent() {
    run(async {
        let app = origin(|mut stream: TcpStream| async move {
            let head = head(&mut stream).await.expect("a request");
            assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.expect("sent");
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await.ok();
        })
        .await;
        let edge = Edge::start(&site(
            &[app],
            "[timeouts]\nbody = \"100ms\"\nidle = \"100ms\"\nheader = \"1s\"\n[limits]\nbody = \"1KB\"\n",
            "timeouts = { read = \"100ms\" }",
            "",
        ));
        let mut client = edge.connect().await;
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
        assert_eq!(ask(&mut client, upgrade).await.status, 101);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let sent = vec![7; 2048];
            client.write_all(&sent).await.expect("sent");
            let mut back = vec![0; 2048];
            client.read_exact(&mut back).await.expect("echoed");
            assert_eq!(back, sent);
        }
    });
}

#[test]
fn stopping_closes_the_idle_and_finishes_what_is_under_way() {
    let (edge, mut idle) = run(async {
        let app = origin(|mut stream: TcpStream| async move {
            head(&mut stream).await.expect("a request");
            tokio::time::sleep(Duration::from_millis(400)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.expect("sent");
        })
        .await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut idle = edge.connect().await;
        assert_eq!(ask(&mut idle, "GET / HTTP/1.1\r\nHost: none.test\r\n\r\n").await.status, 404);
        let mut busy = edge.connect().await;
        busy.write_all(GET.as_bytes()).await.expect("sent");
        while edge.metrics.totals().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        edge.stop(Duration::from_secs(5)).await;
        let answer = Answer::read(&mut busy).await.expect("finished");
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{answer:?}");
        assert!(closed(&mut busy).await && closed(&mut idle).await);
        (edge, idle)
    });
    edge.join();
    run(async { assert!(closed(&mut idle).await) });
}

#[test]
fn tunnels_end_at_the_deadline() {
    let edge = run(async {
        let app = origin(|mut stream: TcpStream| async move {
            head(&mut stream).await.expect("a request");
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.expect("sent");
            std::future::pending::<()>().await;
        })
        .await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut client = edge.connect().await;
        assert_eq!(
            ask(&mut client, "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.status,
            101
        );
        let began = Instant::now();
        edge.stop(Duration::from_millis(300)).await;
        assert!(closed(&mut client).await);
        assert!(began.elapsed() >= Duration::from_millis(300));
        edge
    });
    edge.join();
}

#[test]
fn connections_over_the_cap_are_closed_and_counted() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "[listen]\nmax_connections = 3\n", "", ""));
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut client = edge.connect().await;
            assert_eq!(ask(&mut client, GET).await.status, 200);
            open.push(client);
        }
        assert!(closed(&mut edge.connect().await).await);
        open.pop();
        let began = Instant::now();
        loop {
            let mut client = edge.connect().await;
            client.write_all(GET.as_bytes()).await.ok();
            if Answer::read(&mut client).await.is_some() {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "a seat is never free again");
        }
    });
}

#[test]
fn routes_strip_rewrite_redirect_and_respond() {
    run(async {
        let app = origin(echo).await;
        let routes = "[site.route.\"/api/\"]\nupstream = \"app\"\nstrip = \"/api\"\n\
            [site.route.\"/old/\"]\nupstream = \"app\"\nrewrite = [\"^/old/(.*)\", \"/new/$1\"]\n\
            [site.route.\"/go\"]\nredirect = { to = \"https://b.test{path}{query}\", status = 302 }\n\
            [site.route.\"= /ping\"]\nrespond = { status = 200, body = \"pong\" }\n";
        let edge = Edge::start(&site(&[app], "", "", routes));
        let mut client = edge.connect().await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(ask(&mut client, &get("/api/users?x=1")).await.body.starts_with("GET /users?x=1 "));
        assert!(ask(&mut client, &get("/old/a%20b?x")).await.body.starts_with("GET /new/a%20b?x "));
        let answer = ask(&mut client, &get("/go/there?x=1")).await;
        assert_eq!((answer.status, answer.field("location")), (302, Some("https://b.test/go/there?x=1")));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(ask(&mut client, &get("/ping")).await.body, "pong");
        let head = ask_head(&mut client, "HEAD /ping HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(head.contains("200") && head.to_lowercase().contains("content-length: 4"), "{head}");
        assert_eq!(ask(&mut client, &get("/ping")).await.body, "pong", "HEAD left no body behind");
    });
}

async fn ask_head(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).await.expect("sent");
    head(client).await.expect("an answer")
}
