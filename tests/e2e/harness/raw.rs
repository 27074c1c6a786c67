//! Bytes on a socket, for what no proper client would send.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wait::{secs, within};

/// Sends the bytes and reads until the peer closes (or 10 s have passed).
pub async fn speak(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr).await;
    drop(stream.write_all(bytes).await);
    read_to_end(&mut stream, secs(10)).await
}

/// As [`speak`], and says that nothing more will come.
pub async fn speak_and_finish(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr).await;
    drop(stream.write_all(bytes).await);
    drop(stream.shutdown().await);
    read_to_end(&mut stream, secs(10)).await
}

pub async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.expect("connected");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

/// What arrives until the peer closes or the time is over; a reset ends it too.
pub async fn read_to_end(stream: &mut TcpStream, longest: Duration) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let end = tokio::time::Instant::now() + longest;
    while let Ok(Ok(count @ 1..)) = tokio::time::timeout_at(end, stream.read(&mut buffer)).await {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until these bytes have come.
pub async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut buffer = [0; 16 * 1024];
        while !String::from_utf8_lossy(&all).contains(wanted) {
            let count = stream.read(&mut buffer).await.expect("readable");
            assert!(count > 0, "closed before {wanted:?} came; came: {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..count]);
        }
    };
    within(secs(15), &format!("{wanted:?} arrives"), read).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// How long the peer keeps this connection open, at most `longest`.
pub async fn lifetime(stream: &mut TcpStream, longest: Duration) -> Duration {
    let begin = Instant::now();
    read_to_end(stream, longest).await;
    begin.elapsed()
}

/// The status of the first answer in these bytes; 0 when there is none.
pub fn status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| answer.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or_default()
}
