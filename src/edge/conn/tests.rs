use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";

fn allowance() -> Allowance {
    Allowance {
        caps: Caps { head: 1024, target: 256, fields: 10 },
        header: 10 * SECOND,
        idle: 75 * SECOND,
        body: 30 * SECOND,
        send: 30 * SECOND,
        drain: 30 * SECOND,
        streams: 100,
        resets: Pace::new(100, 10 * SECOND).expect("a pace"),
    }
}

struct Pair {
    conn: Conn,
    peer: DuplexStream,
    lingering: mpsc::Receiver<Io>,
}

fn pair(capacity: usize) -> Pair {
    let (ours, peer) = duplex(capacity);
    let (linger, lingering) = mpsc::channel(4);
    let client = Client::plain("192.0.2.1:4711".parse().expect("an address"), CancellationToken::new());
    Pair { conn: Conn::new(Io::Fake(ours), Arc::new(client), &allowance(), linger), peer, lingering }
}

/// As the engine does: takes the request, reads it, answers it.
async fn serve(conn: &mut Conn, answer: &str) {
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    let mut request = vec![0; HEAD.len() + 4];
    conn.read_exact(&mut request).await.expect("the request");
    conn.write_all(answer.as_bytes()).await.expect("taken");
    conn.flush().await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn a_head_has_a_deadline_from_its_first_byte_however_it_drips() {
    let Pair { mut conn, mut peer, .. } = pair(1024);
    let began = Instant::now();
    let drip = async {
        tokio::time::sleep(5 * SECOND).await;
        for byte in HEAD.bytes().cycle() {
            if peer.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(9 * SECOND).await;
        }
    };
    let next = tokio::select! {
        next = async { conn.next(&allowance()).await } => next,
        () = drip => Next::Closed,
    };
    assert_eq!(next, Next::Refuse(StatusCode::REQUEST_TIMEOUT));
    assert_eq!(began.elapsed(), 15 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_closed_without_a_word() {
    let Pair { mut conn, mut peer, .. } = pair(1024);
    let began = Instant::now();
    assert_eq!(conn.next(&allowance()).await, Next::Closed);
    assert_eq!(began.elapsed(), 10 * SECOND, "a first request is owed within the header's time");
    let Pair { conn: mut kept, peer: mut other, .. } = pair(1024);
    other.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    serve(&mut kept, "HTTP/1.1 200 OK\r\n\r\n").await;
    let began = Instant::now();
    assert_eq!(kept.next(&allowance()).await, Next::Closed);
    assert_eq!(began.elapsed(), 75 * SECOND, "keep-alive");
    drop((conn, kept));
    let mut nothing = Vec::new();
    peer.read_to_end(&mut nothing).await.expect("closed");
    assert!(nothing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn header_and_body_go_out_in_one_piece_and_not_before_the_flush() {
    let Pair { mut conn, mut peer, .. } = pair(64 * 1024);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    conn.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("taken");
    conn.write_all(b"body").await.expect("taken");
    let mut seen = [0; 256];
    let early = tokio::time::timeout(SECOND, peer.read(&mut seen)).await;
    assert!(early.is_err(), "nothing yet");
    conn.flush().await.expect("sent");
    let n = peer.read(&mut seen).await.expect("there");
    assert_eq!(&seen[..n], b"HTTP/1.1 200 OK\r\n\r\nbody");
}

#[tokio::test(start_paused = true)]
async fn what_is_collected_goes_out_before_a_wait_for_the_client() {
    let Pair { mut conn, mut peer, .. } = pair(1024);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    let mut request = vec![0; HEAD.len() + 4];
    conn.read_exact(&mut request).await.expect("the request");
    conn.write_all(b"event").await.expect("taken");
    let waits = tokio::time::timeout(SECOND, conn.read_u8()).await;
    assert!(waits.is_err(), "the client sends nothing more");
    let mut seen = [0; 16];
    let n = peer.read(&mut seen).await.expect("there");
    assert_eq!(&seen[..n], b"event");
}

#[tokio::test(start_paused = true)]
async fn the_next_request_is_held_back_until_its_turn() {
    let Pair { mut conn, mut peer, .. } = pair(1024);
    peer.write_all(format!("{HEAD}body{HEAD}next").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    let mut request = vec![0; HEAD.len() + 4];
    conn.read_exact(&mut request).await.expect("the request");
    assert!(request.ends_with(b"body"));
    assert!(tokio::time::timeout(SECOND, conn.read_u8()).await.is_err(), "more would be another's");
    serve(&mut conn, "HTTP/1.1 200 OK\r\n\r\n").await;
    drop(peer);
    assert_eq!(conn.next(&allowance()).await, Next::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_given_up() {
    let Pair { mut conn, mut peer, .. } = pair(256);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    let began = Instant::now();
    let large = vec![0; 1 << 20];
    let error = conn.write_all(&large).await.expect_err("too slow");
    assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn each_byte_that_is_read_gives_a_slow_client_more_time() {
    let Pair { mut conn, mut peer, .. } = pair(1024);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    let large = vec![7; 64 * 1024];
    let write = async {
        conn.write_all(&large).await.expect("taken");
        conn.flush().await.expect("sent");
    };
    let read = async {
        let mut seen = 0;
        while seen < large.len() {
            tokio::time::sleep(20 * SECOND).await;
            seen += peer.read(&mut [0; 4096]).await.expect("there");
        }
    };
    tokio::join!(write, read);
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_who_waits_and_lets_a_begun_head_come() {
    let Pair { mut conn, peer: _peer, .. } = pair(1024);
    conn.client().draining.cancel();
    let began = Instant::now();
    assert_eq!(conn.next(&allowance()).await, Next::Closed);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let Pair { mut conn, mut peer, .. } = pair(1024);
    peer.write_all(&HEAD.as_bytes()[..20]).await.expect("sent");
    let draining = conn.client().draining.clone();
    let (next, ()) = tokio::join!(async { conn.next(&allowance()).await }, async {
        tokio::time::sleep(SECOND).await;
        draining.cancel();
        peer.write_all(&HEAD.as_bytes()[20..]).await.expect("sent");
    });
    assert_eq!(next, Next::Request);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_keeps_next_to_nothing() {
    let Pair { mut conn, mut peer, .. } = pair(64 * 1024);
    let mut answer = "HTTP/1.1 200 OK\r\n\r\n".to_owned();
    answer.push_str(&"x".repeat(10_000));
    for _ in 0..3 {
        peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
        serve(&mut conn, &answer).await;
        peer.read_exact(&mut vec![0; answer.len()]).await.expect("there");
    }
    assert!(tokio::time::timeout(SECOND, conn.next(&allowance())).await.is_err(), "waits");
    assert!(conn.inbox.capacity() <= IDLE_INBOX && conn.outbox.capacity() == 0, "{} {}", conn.inbox.capacity(), conn.outbox.capacity());
}

#[tokio::test(start_paused = true)]
async fn the_engines_bare_refusal_becomes_an_answer_of_ours() {
    let Pair { mut conn, mut peer, .. } = pair(64 * 1024);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nServer: Pingora\r\n\r\n").await.expect("taken");
    conn.write_all(b"more").await.expect("taken");
    conn.flush().await.expect("sent");
    drop(conn);
    let mut all = String::new();
    peer.read_to_string(&mut all).await.expect("all of it");
    let lower = all.to_lowercase();
    assert!(
        all.starts_with("HTTP/1.1 405 ") && lower.contains("x-frame-options: sameorigin") && lower.contains("connection: close"),
        "{all}"
    );
    assert!(!lower.contains("pingora") && !all.contains("more"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_an_unread_body_is_closed_gently() {
    let Pair { mut conn, mut peer, mut lingering } = pair(64 * 1024);
    peer.write_all(HEAD.as_bytes()).await.expect("sent");
    assert_eq!(conn.next(&allowance()).await, Next::Request);
    conn.client().accepted();
    conn.read_exact(&mut vec![0; HEAD.len()]).await.expect("the head");
    conn.write_all(b"HTTP/1.1 413 x\r\n\r\n").await.expect("taken");
    conn.flush().await.expect("sent");
    drop(conn);
    assert!(lingering.try_recv().is_ok(), "handed over");
    let Pair { mut conn, mut peer, mut lingering } = pair(64 * 1024);
    peer.write_all(format!("{HEAD}body").as_bytes()).await.expect("sent");
    serve(&mut conn, "HTTP/1.1 200 OK\r\n\r\n").await;
    drop(conn);
    assert!(lingering.try_recv().is_err(), "nothing is owed");
}
