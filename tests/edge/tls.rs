//! Certificates: which one for which name, and what happens when they change.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use gateway::{
    ipc::message::{Material, Materials, Pem},
    vocab::Secret,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Edge, ask, keys, run};

/// Takes any certificate: the tests look at what came.
#[derive(Debug)]
pub struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ED25519]
    }
}

pub fn client(alpn: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
    gateway::edge::tls::install_provider();
    let builder = ClientConfig::builder_with_protocol_versions(versions).dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Any)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

pub async fn handshake(edge: &Edge, connector: &TlsConnector, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(edge.https).await?;
    connector.connect(ServerName::try_from(name.to_owned()).expect("a name"), tcp).await
}

fn subject(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("sent")[0].to_vec()
}

pub const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn pair(dir: &str, name: &str) -> (Material, Vec<u8>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params").self_signed(&key).expect("a certificate");
    let path = |end: &str| PathBuf::from(format!("{dir}/{}.{end}", name.replace('*', "any")));
    let pem = Pem { chain: cert.pem().into_bytes(), key: Secret::new(key.serialize_pem().into_bytes()) };
    (Material { cert: path("pem"), key: path("key"), pem: Ok(pem) }, cert.der().to_vec())
}

#[test]
fn the_internal_ca_serves_every_name_of_its_sites_in_both_versions() {
    run(async {
        let text = "[[site]]\nhost = [\"a.test\", \"*.b.test\"]\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"hi\" }\n";
        let edge = Edge::start(text);
        for name in ["a.test", "x.b.test"] {
            for version in BOTH {
                let mut stream = handshake(&edge, &client(&["http/1.1"], &[version]), name).await.expect("served");
                let answer = ask(&mut stream, &format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
                assert_eq!((answer.status, &*answer.body), (200, "hi"));
                assert_eq!(answer.field("strict-transport-security"), None, "our own CA is for development, where other ports have no TLS");
            }
        }
        let stream = handshake(&edge, &client(&[], &[&rustls::version::TLS13]), "a.test").await.expect("served");
        assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name()), Some(rustls::NamedGroup::X25519MLKEM768));
    });
}

#[test]
fn an_unknown_name_is_told_so_and_the_catch_all_takes_it() {
    run(async {
        let text = "[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"hi\" }\n";
        let edge = Edge::start(text);
        let error = handshake(&edge, &client(&[], BOTH), "other.test").await.expect_err("no certificate");
        assert!(format!("{error:?}").contains("UnrecognisedName"), "{error:?}");
        let edge = Edge::start(&text.replace("\"a.test\"", "\"_\""));
        assert!(handshake(&edge, &client(&[], BOTH), "other.test").await.is_ok());
    });
}

#[test]
fn a_changed_certificate_is_served_at_once_and_a_bad_one_never() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().display().to_string();
        let (first, first_der) = pair(&base, "a.test");
        let text = format!(
            "[[site]]\nhost = \"a.test\"\ntls = {{ cert = \"{0}/a.test.pem\", key = \"{0}/a.test.key\" }}\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"hi\" }}\n",
            base
        );
        for end in ["pem", "key"] {
            let Ok(Pem { chain, key }) = &first.pem else { panic!("just made") };
            let path = format!("{base}/a.test.{end}");
            std::fs::write(&path, if end == "pem" { chain } else { key.reveal() }).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        }
        let edge = Edge::with(&text, vec![first.clone()]);
        let connector = client(&["http/1.1"], &[&rustls::version::TLS13]);
        let mut before = handshake(&edge, &connector, "a.test").await.expect("served");
        assert_eq!(subject(&before), first_der);
        let swap = |material: Material| {
            let live = edge
                .live
                .load()
                .with_materials(&edge.base, Materials { pairs: vec![material], roots: Vec::new() })
                .expect("kept or swapped");
            edge.live.store(Arc::new(live.enter(&edge.base)));
        };
        let (second, second_der) = pair(&base, "a.test");
        swap(second.clone());
        let fresh = client(&["http/1.1"], &[&rustls::version::TLS13]);
        assert_eq!(subject(&handshake(&edge, &fresh, "a.test").await.expect("served")), second_der);
        let Ok(Pem { chain, .. }) = second.pem.clone() else { panic!("just made") };
        let Ok(Pem { key, .. }) = first.pem.clone() else { panic!("just made") };
        for bad in [
            Ok(Pem { chain, key }),
            Err("permission denied".to_owned()),
            Ok(Pem { chain: b"noise".to_vec(), key: Secret::new(Vec::new()) }),
        ] {
            swap(Material { pem: bad, ..second.clone() });
            let fresh = client(&["http/1.1"], &[&rustls::version::TLS13]);
            assert_eq!(subject(&handshake(&edge, &fresh, "a.test").await.expect("served")), second_der);
            let live = edge.live.load();
            let served = live.tls.as_ref().expect("TLS").served();
            assert!(served[0].problem.is_some(), "{served:?}");
        }
        let answer = ask(&mut before, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.status, 200, "a connection of before lives on");
    });
}

#[test]
fn a_session_is_taken_up_again() {
    run(async {
        let edge =
            Edge::start("[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"hi\" }\n");
        for version in BOTH {
            let connector = client(&["http/1.1"], &[version]);
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let mut stream = handshake(&edge, &connector, "a.test").await.expect("served");
                // Tickets come with the first answer.
                ask(&mut stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                kinds.push(stream.get_ref().1.handshake_kind());
                stream.shutdown().await.ok();
            }
            assert_eq!(kinds[1], Some(rustls::HandshakeKind::Resumed), "{version:?} {kinds:?}");
        }
    });
}

#[test]
fn a_session_goes_on_in_the_next_edge_and_over_one_rotation_of_keys() {
    run(async {
        let text = "[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"hi\" }\n";
        for version in BOTH {
            let connector = client(&["http/1.1"], &[version]);
            let kind = async |edge: &Edge| {
                let mut stream = handshake(edge, &connector, "a.test").await.expect("served");
                ask(&mut stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                let kind = stream.get_ref().1.handshake_kind().expect("finished");
                stream.shutdown().await.ok();
                kind
            };
            let edge = Edge::start(text);
            assert_ne!(kind(&edge).await, HandshakeKind::Resumed);
            drop(edge);
            let next = Edge::start(text);
            assert_eq!(kind(&next).await, HandshakeKind::Resumed, "{version:?}");
            next.base.tls.rotate_tickets(keys(2, Some(1)));
            assert_eq!(kind(&next).await, HandshakeKind::Resumed, "{version:?}");
            next.base.tls.rotate_tickets(keys(4, Some(3)));
            assert_ne!(kind(&next).await, HandshakeKind::Resumed, "{version:?}: its keys are gone");
        }
    });
}

#[test]
fn plain_http_is_sent_to_https_and_a_silent_handshake_ends() {
    run(async {
        let text = "[timeouts]\nheader = \"300ms\"\n[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"hi\" }\n";
        let edge = Edge::start(text);
        let mut plain = edge.connect().await;
        let answer = ask(&mut plain, "GET /x?y HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let to = format!("https://a.test:{}/x?y", edge.https.port());
        assert_eq!((answer.status, answer.field("location")), (301, Some(&*to)), "{answer:?}");
        assert_eq!(ask(&mut plain, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await.status, 308);
        let mut silent = TcpStream::connect(edge.https).await.expect("accepted");
        let end = tokio::time::timeout(Duration::from_secs(3), silent.read(&mut [0; 8])).await.expect("closed in time");
        assert!(matches!(end, Ok(0) | Err(_)));
    });
}

#[test]
fn a_balancers_word_is_taken_from_trusted_peers_alone() {
    run(async {
        let app = crate::harness::origin(crate::harness::echo).await;
        let text = |trusted: &str| {
            crate::harness::site(&[app], &format!("trusted_proxies = [\"{trusted}\"]\n[listen]\nproxy_protocol = true\n"), "", "")
        };
        let edge = Edge::start(&text("127.0.0.0/8"));
        let mut client = edge.connect().await;
        let answer = ask(&mut client, "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(answer.body.to_lowercase().contains("x-real-ip: 203.0.113.7"), "{answer:?}");
        let mut without = edge.connect().await;
        without.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("sent");
        assert!(crate::harness::closed(&mut without).await);
        let edge = Edge::start(&text("10.0.0.0/8"));
        let answer =
            ask(&mut edge.connect().await, "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(answer.status, 400, "garbage from anyone else");
    });
}
