//! Which certificate is served to whom, and what is refused.

use std::{path::Path, time::SystemTime};

use nix::sys::signal::Signal;
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Conn, Gateway,
    client::request,
    gateway::workdir,
    get, proc, raw,
    tls::{TlsClient, write_certificate, write_certificate_of},
    upstream,
    wait::{eventually_async, secs},
};

const RESPOND: &str = "[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_chooses_the_certificate_and_new_files_are_served_without_a_reload() {
    let certs = workdir();
    let one = write_certificate(certs.path(), "one", &["one.test"]);
    let two = write_certificate(certs.path(), "two", &["two.test", "*.two.test"]);
    let gateway = Gateway::start(&format!(
        "[[site]]\nhost = \"one.test\"\ntls = {{ cert = \"{0}/one.pem\", key = \"{0}/one.key\" }}\n{RESPOND}[[site]]\nhost = [\"two.test\"]\naliases = [\"*.two.test\"]\ntls = {{ cert = \"{0}/two.pem\", key = \"{0}/two.key\" }}\n{RESPOND}",
        certs.path().display()
    ));
    let client = TlsClient::gullible();
    assert_eq!(client.shown(gateway.https(), "one.test").await.expect("a handshake"), one);
    assert_eq!(client.shown(gateway.https(), "two.test").await.expect("a handshake"), two);
    assert_eq!(client.shown(gateway.https(), "deep.two.test").await.expect("a handshake"), two);
    // An open connection outlives the change.
    let mut open = Conn::h1_tls(gateway.https(), &client, "one.test").await.expect("connected");
    let ask = || request("GET", "one.test", "/").body(http_body_util::Full::default()).expect("a request");
    assert_eq!(open.send(ask()).await.expect("an answer").status, 200);
    let renewed = write_certificate(certs.path(), "one", &["one.test"]);
    eventually_async("the renewed certificate is served", secs(20), || async {
        let shown = client.shown(gateway.https(), "one.test").await.map_err(|error| error.to_string())?;
        if shown == renewed { Ok(()) } else { Err("the old one is still served".to_owned()) }
    })
    .await;
    assert_eq!(open.send(ask()).await.expect("an answer").status, 200);
    assert_eq!(client.shown(gateway.https(), "two.test").await.expect("a handshake"), two);
    // A broken file is reported, and what was good is kept.
    std::fs::write(certs.path().join("one.pem"), "no certificate").expect("written");
    eventually_async("the log names the broken file", secs(20), || async {
        if gateway.output().contains("one.pem") { Ok(()) } else { Err(gateway.output()) }
    })
    .await;
    assert_eq!(client.shown(gateway.https(), "one.test").await.expect("a handshake"), renewed);
}

/// What certbot leaves behind: `live/NAME/KIND.pem` links to `../../archive/NAME/KIND{n}.pem`.
fn point_lineage_at(root: &Path, n: u32) -> Vec<u8> {
    let (archive, live) = (root.join("archive/a.test"), root.join("live/a.test"));
    for dir in [&archive, &live] {
        std::fs::create_dir_all(dir).expect("made");
    }
    let der = write_certificate(&archive, &n.to_string(), &["a.test"]);
    for (kind, written) in [("privkey", "key"), ("fullchain", "pem")] {
        std::fs::rename(archive.join(format!("{n}.{written}")), archive.join(format!("{kind}{n}.pem"))).expect("renamed");
    }
    // As certbot does it: the old link goes first, one file after the other.
    for kind in ["privkey", "fullchain"] {
        let link = live.join(format!("{kind}.pem"));
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(format!("../../archive/a.test/{kind}{n}.pem"), &link).expect("linked");
    }
    der
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lineage_of_certbot_is_followed_when_it_is_renewed() {
    let etc = workdir();
    let first = point_lineage_at(etc.path(), 1);
    let live = etc.path().join("live/a.test");
    let gateway = Gateway::start(&format!(
        "[[site]]\nhost = \"a.test\"\ntls = {{ cert = \"{0}/fullchain.pem\", key = \"{0}/privkey.pem\" }}\n{RESPOND}",
        live.display()
    ));
    let client = TlsClient::gullible();
    assert_eq!(client.shown(gateway.https(), "a.test").await.expect("a handshake"), first);
    for n in 2..=3 {
        let renewed = point_lineage_at(etc.path(), n);
        eventually_async("the renewed lineage is served", secs(20), || async {
            let shown = client.shown(gateway.https(), "a.test").await.map_err(|error| error.to_string())?;
            if shown == renewed { Ok(()) } else { Err("the old one is still served".to_owned()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_cannot_be_served_never_takes_the_place_of_a_good_one() {
    let certs = workdir();
    let dir = certs.path();
    let good = write_certificate(dir, "a", &["a.test"]);
    let text = format!("[[site]]\nhost = \"a.test\"\ntls = {{ cert = \"{0}/a.pem\", key = \"{0}/a.key\" }}\n{RESPOND}", dir.display());
    let gateway = Gateway::start(&text);
    let client = TlsClient::gullible();
    let now = SystemTime::now();
    let day = secs(86_400);
    let write = |from, to| drop(write_certificate_of(dir, "a", &["a.test"], from, to));
    // In one step: the pair that the certificate came with may not be met, for that one is good.
    let mismatch = || {
        write_certificate(dir, "other", &["a.test"]);
        std::fs::rename(dir.join("other.pem"), dir.join("a.pem")).expect("put in place");
    };
    let bad: [(&dyn Fn(), &str); 3] = [
        (&|| write(now - 3 * day, now - day), "expired at"),
        (&|| write(now + day, now + 3 * day), "not valid before"),
        (&mismatch, "a key that is not that of the certificate"),
    ];
    for (make, reason) in bad {
        make();
        eventually_async("the log says what is wrong", secs(20), || async {
            let said = gateway.output().lines().any(|line| line.contains("a.pem") && line.contains(reason));
            if said { Ok(()) } else { Err(gateway.output()) }
        })
        .await;
        assert_eq!(client.shown(gateway.https(), "a.test").await.expect("a handshake"), good, "{reason}");
        let refused = gateway.reload(&text).expect_err(reason);
        assert!(refused.contains(reason) && refused.contains("a.pem"), "{refused}");
        assert_eq!(client.shown(gateway.https(), "a.test").await.expect("a handshake"), good, "{reason}, after a reload");
        let checked = gateway.cli(&["check"]);
        let said = String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(78), "{said}");
        assert!(said.contains("error[bad-certificate]"), "{said}");
    }
    // Nor is it lost with the edge that served it.
    let edge = gateway.edge();
    proc::kill(edge, Signal::SIGKILL);
    eventually_async("the next edge serves the good pair", secs(20), || async {
        let next = gateway.edge_pid().filter(|pid| *pid != edge).ok_or("no next edge")?;
        let shown = client.shown(gateway.https(), "a.test").await.map_err(|_| "no handshake")?;
        if shown == good { Ok(next) } else { Err("another certificate") }
    })
    .await;
    let renewed = write_certificate(dir, "a", &["a.test"]);
    eventually_async("a good pair is served again", secs(20), || async {
        let shown = client.shown(gateway.https(), "a.test").await.map_err(|error| error.to_string())?;
        if shown == renewed { Ok(()) } else { Err("the old one is still served".to_owned()) }
    })
    .await;
    gateway.reload(&text).expect("a good pair is no obstacle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_ca_signs_for_every_name_and_survives_a_restart() {
    let text = format!("[[site]]\nhost = [\"localhost\", \"app.localhost\"]\ntls = \"internal\"\n{RESPOND}");
    let gateway = Gateway::start(&text);
    let tls = TlsClient::internal(&gateway);
    for name in ["localhost", "app.localhost"] {
        Conn::h2_tls(gateway.https(), &tls, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let root = std::fs::read(gateway.state().join("edge/internal-ca.pem")).expect("the root");
    crate::harness::proc::kill(gateway.edge(), nix::sys::signal::Signal::SIGKILL);
    eventually_async("the next edge serves with the same CA", secs(20), || async {
        Conn::h1_tls(gateway.https(), &tls, "localhost").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(std::fs::read(gateway.state().join("edge/internal-ca.pem")).expect("the root"), root);
    let private: Vec<_> = walk(&gateway.state())
        .into_iter()
        .filter(|path| {
            use std::os::unix::fs::PermissionsExt;
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.contains("PRIVATE KEY") && std::fs::metadata(path).expect("metadata").permissions().mode() & 0o077 != 0
        })
        .collect();
    assert!(private.is_empty(), "keys that others may read: {private:?}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            out.extend(walk(&entry.path()));
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_client_resumes_its_session() {
    let gateway = Gateway::start(&format!("[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n{RESPOND}"));
    let tls = TlsClient::internal(&gateway);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let stream = TcpStream::connect(gateway.https()).await.expect("connected");
        let mut stream = tls.connect(stream, "localhost", &[b"http/1.1"]).await.expect("a handshake");
        kinds.push(stream.get_ref().1.handshake_kind().expect("a finished handshake"));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
        // The tickets come with the first bytes.
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all).await);
        assert_eq!(raw::status(&String::from_utf8_lossy(&all)), 200);
    }
    assert_ne!(kinds[0], HandshakeKind::Resumed);
    assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
}

/// A ClientHello of TLS 1.1, byte by byte: no library of today would send one.
fn hello_1_1() -> Vec<u8> {
    let mut body = vec![0x03, 0x02];
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&[0, 6, 0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f, 1, 0]);
    let name = b"localhost";
    let mut sni = vec![0, 0, 0, 14, 0, 12, 0, 0, 9];
    sni.extend_from_slice(name);
    body.extend_from_slice(&u16::try_from(sni.len()).expect("short").to_be_bytes());
    body.extend_from_slice(&sni);
    let mut handshake = vec![1, 0];
    handshake.extend_from_slice(&u16::try_from(body.len()).expect("short").to_be_bytes());
    handshake.extend_from_slice(&body);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend_from_slice(&u16::try_from(handshake.len()).expect("short").to_be_bytes());
    record.extend_from_slice(&handshake);
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_1_and_plain_http_are_refused_on_the_tls_port() {
    let gateway = Gateway::start(&format!("[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n{RESPOND}"));
    let mut stream = raw::connect(gateway.https()).await;
    stream.write_all(&hello_1_1()).await.expect("sent");
    let mut answer = Vec::new();
    drop(tokio::time::timeout(secs(10), stream.read_to_end(&mut answer)).await.expect("refused in time"));
    // An alert (21), fatal (2), protocol_version (70) or handshake_failure (40).
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "{answer:?}");
    assert!(matches!(answer.get(6), Some(70 | 40)), "{answer:?}");
    let said = raw::speak(gateway.https(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_ne!(raw::status(&said), 200, "{said}");
    // A name that no site has is not served as if it were one.
    let stranger =
        TlsClient::gullible().connect(TcpStream::connect(gateway.https()).await.expect("connected"), "stranger.test", &[b"http/1.1"]).await;
    if let Ok(stream) = stranger {
        let mut conn = Conn::h1_over(stream).await.expect("connected");
        let answer = conn
            .send(request("GET", "stranger.test", "/").body(http_body_util::Full::default()).expect("a request"))
            .await
            .expect("an answer");
        assert!(answer.status.is_client_error(), "{}", answer.status);
    }
    let failed = gateway.metric("gateway_tls_handshakes_total", &[]).await;
    assert!(failed >= 2.0, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minimum_1_3_is_a_choice() {
    let gateway = Gateway::start(&format!("[tls]\nmin = \"1.3\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n{RESPOND}"));
    let spoken = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &gateway.https().to_string(), "-servername", "localhost", "-tls1_2"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl runs");
    assert!(!spoken.status.success() || String::from_utf8_lossy(&spoken.stdout).contains("(NONE)"), "{spoken:?}");
    Conn::h2_tls(gateway.https(), &TlsClient::internal(&gateway), "localhost").await.expect("TLS 1.3 is spoken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_is_sent_to_https_and_stays_in_the_clear_only_where_it_was_said() {
    let gateway = Gateway::start(&format!(
        "[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n{RESPOND}[[site]]\nhost = \"a.test\"\ntls = \"off\"\n{RESPOND}"
    ));
    let sent = get(gateway.http(), "localhost", "/x?y=z").await.expect("an answer");
    assert!(sent.status.is_redirection());
    assert!(sent.header("location").starts_with("https://localhost"));
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
}

/// A CA of its own and a client's certificate by it, as PEM files: `ca.pem`, `client.pem`, `client.key`.
fn client_certificate() -> [(&'static str, String); 3] {
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "clients");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let ca_pem = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let mut client = rcgen::CertificateParams::default();
    client.distinguished_name = rcgen::DistinguishedName::new();
    client.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = client.signed_by(&key, &issuer).expect("signed").pem();
    [("ca.pem", ca_pem), ("client.pem", pem), ("client.key", key.serialize_pem())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_asks_for_client_certificates_tells_its_app_whose_it_was_and_no_one_else_can() {
    let echo = upstream::echo("echo").await;
    let files = client_certificate();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let gateway = Gateway::start_beside(
        &files,
        &format!(
            "[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"closed.test\"\ntls = \"internal\"\nclient_ca = \"ca.pem\"\nupstream = \"api\"\n\
             [[site]]\nhost = \"open.test\"\ntls = \"internal\"\nupstream = \"api\"\n",
            echo.addr
        ),
    );
    let root = gateway.state().join("edge/internal-ca.pem").canonicalize().expect("the internal CA");
    let port = gateway.https().port();
    let curl = |name: &str, more: &[&str]| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        let done = std::process::Command::new("curl")
            .args(["-sS", "-m", "20", "-w", "\n%{http_code}", "--cacert"])
            .arg(&root)
            .args(["--resolve", &resolve])
            .args(more)
            .arg(&url)
            .current_dir(gateway.dir())
            .output()
            .expect("curl runs");
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let own = ["--cert", "client.pem", "--key", "client.key"];
    let (good, said) = curl("closed.test", &own);
    assert!(good && said.contains("\"x-client-cert-subject\":[\"CN=ann\"]") && said.contains("x-client-cert-fingerprint"), "{said}");
    assert!(!curl("closed.test", &[]).0, "no certificate, no handshake");
    let forged = [&own[..], &["-H", "X-Client-Cert-Subject: CN=root", "-H", "x_client_cert_subject: CN=root"]].concat();
    let (_, said) = curl("closed.test", &forged);
    assert!(said.contains("CN=ann") && !said.contains("CN=root"), "{said}");
    let (good, said) = curl("open.test", &["-H", "X-Client-Cert-Subject: CN=root"]);
    assert!(good && !said.contains("CN=root"), "{said}");
    // The connection of one site is no way into the other.
    let (_, said) = curl("open.test", &["-H", "Host: closed.test"]);
    assert!(said.ends_with("\n421"), "{said}");
    let (_, said) = curl("closed.test", &[&own[..], &["-H", "Host: open.test"]].concat());
    assert!(said.ends_with("\n421"), "{said}");
}
