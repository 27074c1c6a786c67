//! Sites that ask for client certificates: who comes in, on which connection, and what the app is told.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use gateway::{
    edge::{live::Live, tls::OnBadPair},
    ipc::message::{Config, Generation, Materials, Roots},
};
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    harness::{Answer, Edge, ask, echo, origin, run},
    tls::{Any, BOTH, client, handshake},
};

const CA: &str = "/clients/ca.pem";

/// A CA of clients.
struct Club {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Member {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Club {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a CA").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn roots(&self) -> Roots {
        Roots { path: CA.into(), pem: Ok(self.pem.clone().into_bytes()) }
    }

    fn member(&self, name: &str, days: i64) -> Member {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Club");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let day = std::time::Duration::from_secs(86_400);
        let now = SystemTime::now();
        params.not_before = (now - 20 * day).into();
        params.not_after = if days < 0 { now - day } else { now + day }.into();
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Member { chain: vec![made.der().clone()], key: key.serialize_der() }
    }
}

impl Member {
    fn connector(&self, alpn: &str, version: &'static SupportedProtocolVersion) -> TlsConnector {
        gateway::edge::tls::install_provider();
        let builder = ClientConfig::builder_with_protocol_versions(&[version]).dangerous().with_custom_certificate_verifier(Arc::new(Any));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = builder.with_client_auth_cert(self.chain.clone(), key).expect("a pair");
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// `a.test` asks for certificates, `b.test` does not; both echo.
async fn edge(roots: Vec<Roots>, bad: OnBadPair) -> Edge {
    let app = origin(echo).await;
    let site = |name: &str| format!("[[site]]\nhost = \"{name}\"\ntls = \"internal\"\nupstream = \"app\"\n");
    let text = format!("trusted_proxies = [\"127.0.0.0/8\"]\n[upstream.app]\nservers = [\"{app}\"]\n{}{}", site("a.test"), site("b.test"));
    Edge::made(&text, Materials { pairs: Vec::new(), roots }, |plan| plan.sites[0].client_ca = Some(PathBuf::from(CA)), bad)
}

const FORGED: &str =
    "X-Client-Cert-Subject: CN=root\r\nX-Client-Cert-Serial: 01\r\nX-Client-Cert-Fingerprint: 00\r\nX_Client_Cert_Subject: CN=root\r\n";

async fn get(stream: &mut TlsStream<TcpStream>, host: &str) -> Answer {
    ask(stream, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n{FORGED}\r\n")).await
}

/// What the client hears that is not let in: with TLS 1.3 only after its own part is done.
async fn refusal(edge: &Edge, connector: &TlsConnector) -> String {
    let mut stream = match handshake(edge, connector, "a.test").await {
        Ok(stream) => stream,
        Err(error) => return format!("{error:?}"),
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.ok();
    match stream.read(&mut [0; 64]).await {
        Ok(n) => format!("{n} bytes"),
        Err(error) => format!("{error:?}"),
    }
}

fn failed(edge: &Edge) -> u64 {
    let mut text = String::new();
    edge.metrics.render(&mut text);
    let line = text.lines().find(|line| line.starts_with("gateway_tls_handshakes_total{result=\"failed\"}"));
    line.and_then(|line| line.rsplit_once(' ')).map_or(0, |(_, n)| n.parse().expect("a number"))
}

#[test]
fn a_members_name_reaches_the_app_and_nobody_can_forge_it() {
    run(async {
        let club = Club::new("Club CA");
        let ann = club.member("Ann, the first", 1);
        let edge = edge(vec![club.roots()], OnBadPair::Refuse).await;
        for version in BOTH {
            let connector = ann.connector("http/1.1", version);
            for kind in ["first", "resumed"] {
                let mut stream = handshake(&edge, &connector, "a.test").await.expect("let in");
                let answer = get(&mut stream, "a.test").await;
                let told = answer.body.to_lowercase();
                assert_eq!(answer.status, 200, "{version:?} {kind}");
                assert!(told.contains("x-client-cert-subject: cn=ann\\, the first,o=club\r\n"), "{told}");
                assert!(!told.contains("cn=root") && told.matches("x-client-cert-").count() == 3, "{told}");
                assert_eq!(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed), kind == "resumed", "{version:?}");
                stream.shutdown().await.ok();
            }
        }
        let mut stream = handshake(&edge, &client(&["http/1.1"], BOTH), "b.test").await.expect("served");
        let answer = get(&mut stream, "b.test").await;
        assert!(answer.status == 200 && !answer.body.to_lowercase().contains("client"), "{answer:?}");
    });
}

#[test]
fn strangers_are_turned_away_by_an_alert_and_counted() {
    run(async {
        let (club, other) = (Club::new("Club CA"), Club::new("Other CA"));
        let edge = edge(vec![club.roots()], OnBadPair::Refuse).await;
        for version in BOTH {
            for (connector, alert) in [
                (client(&["http/1.1"], &[version]), "AlertReceived"),
                (other.member("Eve", 1).connector("http/1.1", version), "AlertReceived(UnknownC"),
                (club.member("Old", -1).connector("http/1.1", version), "AlertReceived(CertificateExpired"),
            ] {
                let before = failed(&edge);
                let heard = refusal(&edge, &connector).await;
                assert!(heard.contains(alert), "{alert}: {heard}");
                // The client may hear of it first.
                while failed(&edge) == before {
                    tokio::task::yield_now().await;
                }
                assert_eq!(failed(&edge), before + 1, "{alert}");
            }
        }
    });
}

#[test]
fn a_request_on_another_sites_connection_is_misdirected() {
    run(async {
        let club = Club::new("Club CA");
        let ann = club.member("Ann", 1);
        let edge = edge(vec![club.roots()], OnBadPair::Refuse).await;
        let (stranger, member) = (client(&["http/1.1"], BOTH), ann.connector("http/1.1", &rustls::version::TLS13));
        for (connector, sni, host, status) in [
            (&stranger, "b.test", "a.test", 421),
            (&stranger, "b.test", "A.TEST:443", 421),
            (&stranger, "b.test", "b.test", 200),
            (&stranger, "127.0.0.1", "a.test", 421),
            (&stranger, "127.0.0.1", "b.test", 200),
            (&member, "a.test", "b.test", 421),
            (&member, "b.test", "a.test", 421),
            (&member, "a.test", "a.test", 200),
        ] {
            let mut stream = handshake(&edge, connector, sni).await.expect("served");
            let answer = get(&mut stream, host).await;
            assert_eq!(answer.status, status, "{sni} {host}: {answer:?}");
            if status == 421 {
                assert_eq!(answer.field("x-frame-options"), Some("SAMEORIGIN"));
            }
        }
        let mut plain = edge.connect().await;
        let answer = ask(&mut plain, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!((answer.status, answer.field("location").map(|to| to.starts_with("https://a.test"))), (301, Some(true)));
    });
}

#[test]
fn a_browser_that_puts_both_sites_on_one_http2_connection_is_sent_back() {
    run(async {
        let club = Club::new("Club CA");
        let edge = edge(vec![club.roots()], OnBadPair::Refuse).await;
        let stream = handshake(&edge, &client(&["h2"], BOTH), "b.test").await.expect("served");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        for (host, status) in [("b.test", 200), ("a.test", 421), ("b.test", 200)] {
            let request = Request::get(format!("https://{host}/")).body(()).expect("a request");
            let (answer, _) = send.clone().ready().await.expect("open").send_request(request, true).expect("sent");
            assert_eq!(answer.await.expect("answered").status(), status, "{host}");
        }
    });
}

#[test]
fn other_cas_end_what_was_opened_under_the_old_ones_and_bad_ones_change_nothing() {
    run(async {
        let (club, other) = (Club::new("Club CA"), Club::new("Other CA"));
        let (ann, bob) = (club.member("Ann", 1), other.member("Bob", 1));
        let edge = edge(vec![club.roots()], OnBadPair::Refuse).await;
        for version in BOTH {
            let (ann, bob) = (ann.connector("http/1.1", version), bob.connector("http/1.1", version));
            let swap = |pem: Result<Vec<u8>, String>| {
                let roots = vec![Roots { path: CA.into(), pem }];
                let live = edge.live.load().with_materials(&edge.base, Materials { pairs: Vec::new(), roots }).expect("kept or swapped");
                edge.live.store(Arc::new(live.enter(&edge.base)));
            };
            let mut open = handshake(&edge, &ann, "a.test").await.expect("let in");
            assert_eq!(get(&mut open, "a.test").await.status, 200);
            for bad in
                [Ok(b"noise".to_vec()), Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()), Err("gone".into())]
            {
                swap(bad);
                assert_eq!(get(&mut open, "a.test").await.status, 200, "the old one is kept");
                let live = edge.live.load();
                assert!(live.tls.as_ref().expect("TLS").served()[0].problem.as_ref().is_some_and(|why| why.contains(CA)));
            }
            swap(Ok(other.pem.clone().into_bytes()));
            assert_eq!(get(&mut open, "a.test").await.status, 421, "nobody is let in by the old ones");
            assert!(refusal(&edge, &ann).await.contains("AlertReceived"), "nor is the session taken up");
            let mut stream = handshake(&edge, &bob, "a.test").await.expect("let in");
            assert_eq!(get(&mut stream, "a.test").await.status, 200);
            swap(Ok(club.pem.clone().into_bytes()));
        }
    });
}

#[test]
fn a_reload_with_bad_cas_is_refused_and_names_the_file() {
    run(async {
        let edge = edge(vec![Club::new("Club CA").roots()], OnBadPair::Refuse).await;
        let live = edge.live.load_full();
        for pem in [Ok(Vec::new()), Ok(b"noise".to_vec()), Err("gone".to_owned())] {
            let materials = Materials { pairs: Vec::new(), roots: vec![Roots { path: CA.into(), pem }] };
            let config = Config { generation: Generation(2), plan: live.plan.clone(), listeners: live.listeners.clone(), materials };
            let Err(error) = Live::prepare(edge.base.ground(Some(&live)), &config, OnBadPair::Refuse) else { panic!("taken") };
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            assert!(causes.map(ToString::to_string).any(|why| why.contains(CA)), "{error:?}");
        }
    });
}

#[test]
fn a_site_whose_cas_cannot_be_read_is_shut_and_the_others_are_served() {
    run(async {
        let club = Club::new("Club CA");
        let ann = club.member("Ann", 1).connector("http/1.1", &rustls::version::TLS13);
        let edge = edge(Vec::new(), OnBadPair::Keep).await;
        assert!(refusal(&edge, &ann).await.contains("UnrecognisedName"));
        let mut stream = handshake(&edge, &client(&["http/1.1"], BOTH), "b.test").await.expect("served");
        assert_eq!(get(&mut stream, "b.test").await.status, 200);
        assert_eq!(get(&mut stream, "a.test").await.status, 421);
    });
}
