//! Sessions are taken up again by an edge that was not there when they began.

use std::{path::Path, process::Command};

use nix::sys::signal::Signal;
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Gateway, eventually, proc, raw,
    tls::TlsClient,
    wait::{eventually_async, secs},
};

const TEXT: &str = "[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";

/// One request by `openssl s_client`; what it says of the session.
fn openssl(gateway: &Gateway, version: &str, session: &str, file: &Path) -> String {
    let address = gateway.https().to_string();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "localhost", version, "-ign_eof", session])
        .arg(file)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), request).expect("sent");
    let said = child.wait_with_output().expect("it ends with the answer");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("200 OK"), "{said}");
    said
}

async fn rustls(gateway: &Gateway, tls: &TlsClient) -> Result<HandshakeKind, std::io::Error> {
    let stream = TcpStream::connect(gateway.https()).await?;
    let mut stream = tls.connect(stream, "localhost", &[b"http/1.1"]).await?;
    let kind = stream.get_ref().1.handshake_kind().expect("a finished handshake");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut all = Vec::new();
    drop(stream.read_to_end(&mut all).await);
    assert_eq!(raw::status(&String::from_utf8_lossy(&all)), 200);
    Ok(kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_on_after_the_edge_was_killed() {
    let gateway = Gateway::start(TEXT);
    let tls = TlsClient::internal(&gateway);
    rustls(&gateway, &tls).await.expect("served");
    let versions = ["-tls1_2", "-tls1_3"];
    let file = |version: &str| gateway.dir().join(format!("session{version}"));
    for version in versions {
        let said = openssl(&gateway, version, "-sess_out", &file(version));
        assert!(said.contains("New, TLSv1"), "{said}");
    }
    let old = gateway.edge();
    proc::kill(old, Signal::SIGKILL);
    eventually("another edge has come", secs(10), || gateway.edge_pid().filter(|pid| *pid != old).ok_or("none yet"));
    let kind = eventually_async("the new edge serves", secs(20), || rustls(&gateway, &tls)).await;
    assert_eq!(kind, HandshakeKind::Resumed);
    for version in versions {
        let said = openssl(&gateway, version, "-sess_in", &file(version));
        assert!(said.contains("Reused, TLSv1"), "{version}: {said}");
    }
}
