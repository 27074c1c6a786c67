//! A CA in the test's own process that speaks what Debian's pebble does not: renewal windows, profiles, refusals to the second, and faults on purpose.
//!
//! Shape: the flow is that of RFC 8555; signatures and nonces are not looked at. An order is ready when it is made, unless names are to be proven ([`Manner::prove_at`]).

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{client::request, gateway::workdir, send, tls::write_certificate};

/// What it does instead of answering.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A problem document: status, kind, Retry-After.
    Refuses(u16, &'static str, Option<String>),
    /// As [`Fault::Refuses`], of orders that name what they replace.
    RefusesReplacement,
    /// 200 and no JSON.
    Garbage,
    /// 503 of a proxy in front of it.
    Wordless,
    /// A body of 10 MB.
    Huge,
    Closes,
    Hangs,
    /// A good answer that asks for more time than clocks have.
    AsksForEver,
}

/// What it signs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signs {
    WhatIsAsked,
    OtherNames,
    OtherKey,
    WhatIsOver,
}

/// How it behaves; may be changed while it runs.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Of its certificates, in seconds.
    pub life: u64,
    /// The window for every certificate, in Unix seconds; `None`: it offers no windows.
    pub window: Option<(i64, i64)>,
    /// Retry-After of the window.
    pub look_again: String,
    pub profiles: &'static [&'static str],
    /// By what is asked for: "dir", "nonce", "account", "order" (a new one), "state" (of an order), "finalize", "cert", "window".
    pub faults: BTreeMap<&'static str, Fault>,
    pub signs: Signs,
    /// Where it looks for http-01; `None`: every name is believed.
    pub prove_at: Option<u16>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            life: 90 * 24 * 3600,
            window: None,
            look_again: "3600".into(),
            profiles: &[],
            faults: BTreeMap::new(),
            signs: Signs::WhatIsAsked,
            prove_at: None,
        }
    }
}

/// An order that was made or refused.
#[derive(Clone, Debug, Default)]
pub struct Order {
    pub names: Vec<String>,
    pub replaces: Option<String>,
    pub profile: Option<String>,
    pub refused: bool,
    proven: Vec<bool>,
    chain: Option<String>,
    der: Vec<u8>,
}

/// A CA on 127.0.0.1. Dropped: it ends.
pub struct CaDouble {
    addr: SocketAddr,
    dir: TempDir,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    base: String,
    manner: Mutex<Manner>,
    orders: Mutex<Vec<Order>>,
    asked: Mutex<Vec<String>>,
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl CaDouble {
    pub async fn start(manner: Manner) -> Self {
        let dir = workdir();
        write_certificate(dir.path(), "ca", &["localhost", "127.0.0.1"]);
        let pem = |file: &str| std::fs::read(dir.path().join(file)).expect("written");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem("ca.pem")).collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&pem("ca.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3");
        let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("its own")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (issuer, root) = issuer();
        let state = Arc::new(State {
            base: format!("https://localhost:{}", addr.port()),
            manner: Mutex::new(manner),
            orders: Mutex::default(),
            asked: Mutex::default(),
            issuer,
            root,
        });
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut conns = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                conns.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| answer(state.clone(), request));
                    // A client that goes away is no fault of the CA's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self { addr, dir, state, _tasks: tasks }
    }

    /// As `[tls] ca` names it.
    pub fn ca(&self) -> String {
        format!("{{ directory = \"{}\", root = \"{}\" }}", self.directory(), self.root_path().display())
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.addr.port())
    }

    fn root_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The root that its certificates lead to, in PEM.
    pub fn issuing_root(&self) -> &str {
        &self.state.root
    }

    pub fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut lock(&self.state.manner));
    }

    pub fn orders(&self) -> Vec<Order> {
        lock(&self.state.orders).clone()
    }

    /// How often this was asked for, by the words of [`Manner::faults`].
    pub fn asked(&self, what: &str) -> usize {
        lock(&self.state.asked).iter().filter(|asked| *asked == what).count()
    }

    /// The certificate of an order, as its renewal names it.
    pub fn id(&self, order: usize) -> String {
        let der = lock(&self.state.orders)[order].der.clone();
        let (_, cert) = x509_parser::parse_x509_certificate(&der).expect("its own");
        let key = cert.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        format!("{}.{}", encode(&key.expect("an authority key")), encode(cert.raw_serial()))
    }

    /// The certificate of an order.
    pub fn certificate(&self, order: usize) -> Vec<u8> {
        lock(&self.state.orders)[order].der.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn issuer() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "The double's root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("signed").pem();
    (Issuer::new(params, key), root)
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let what = match (path[0], head.method == Method::POST, path.len()) {
        ("order", true, 2) => "state",
        (_, _, _) => path[0],
    };
    lock(&state.asked).push(what.to_owned());
    let payload = payload(&body);
    let fault = lock(&state.manner).faults.get(what).cloned();
    let refusal = |status, kind: &str| {
        let problem =
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": format!("{kind}, says the double"), "status": status });
        reply(status, problem.to_string())
    };
    let good = || state.answer(what, &path, &payload);
    let mut response = match fault {
        None => good().await?,
        Some(Fault::RefusesReplacement) if payload["replaces"].is_null() => good().await?,
        Some(Fault::RefusesReplacement) => {
            state.refused(&payload);
            refusal(409, "alreadyReplaced")
        }
        Some(Fault::Refuses(status, kind, again)) => {
            if what == "order" {
                state.refused(&payload);
            }
            let mut refusal = refusal(status, kind);
            if let Some(again) = again {
                refusal.headers_mut().insert("retry-after", again.parse().expect("a header"));
            }
            refusal
        }
        Some(Fault::Garbage) => reply(200, "<html>welcome to the hotel's network</html>"),
        Some(Fault::Wordless) => reply(503, "<html>no backend</html>"),
        Some(Fault::Huge) => reply(200, vec![b'x'; 10 * 1024 * 1024]),
        Some(Fault::Closes) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Hangs) => std::future::pending().await,
        Some(Fault::AsksForEver) => {
            let mut response = good().await?;
            response.headers_mut().insert("retry-after", "18446744073709551615".parse().expect("a header"));
            response
        }
    };
    response.headers_mut().insert("replay-nonce", format!("nonce{}", lock(&state.asked).len()).parse().expect("a header"));
    Ok(response)
}

impl State {
    async fn answer(&self, what: &str, path: &[&str], payload: &Value) -> io::Result<Response<Full<Bytes>>> {
        let Self { base, .. } = self;
        let manner = lock(&self.manner).clone();
        let index = path.get(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        let part = path.get(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        Ok(match what {
            "dir" => {
                let mut directory = json!({
                    "newNonce": format!("{base}/nonce"),
                    "newAccount": format!("{base}/account"),
                    "newOrder": format!("{base}/order"),
                    "meta": { "profiles": manner.profiles.iter().map(|name| (*name, "a profile")).collect::<BTreeMap<_, _>>() },
                });
                if manner.window.is_some() {
                    directory["renewalInfo"] = format!("{base}/window").into();
                }
                reply(200, directory.to_string())
            }
            "nonce" => reply(200, ""),
            "account" => located(reply(201, json!({ "status": "valid" }).to_string()), format!("{base}/account/1")),
            "order" => {
                let index = self.ordered(payload, manner.prove_at.is_none());
                located(reply(201, self.state(index).to_string()), format!("{base}/order/{index}"))
            }
            "state" => reply(200, self.state(index).to_string()),
            "authz" => reply(200, self.authorization(index, part).to_string()),
            "challenge" => {
                self.prove(index, part, manner.prove_at).await;
                reply(200, self.authorization(index, part)["challenges"][0].to_string())
            }
            "finalize" => {
                let csr = payload["csr"].as_str().and_then(|csr| BASE64_URL_SAFE_NO_PAD.decode(csr).ok()).expect("a request");
                let (chain, der) = self.sign(&csr, &manner);
                {
                    let mut orders = lock(&self.orders);
                    (orders[index].chain, orders[index].der) = (Some(chain), der);
                }
                reply(200, self.state(index).to_string())
            }
            "cert" => reply(200, lock(&self.orders)[index].chain.clone().expect("signed")),
            "window" => {
                let (start, end) = manner.window.expect("it offers windows");
                let moment = |at| jiff::Timestamp::from_second(at).expect("a moment").to_string();
                let mut window = reply(200, json!({ "suggestedWindow": { "start": moment(start), "end": moment(end) } }).to_string());
                window.headers_mut().insert("retry-after", manner.look_again.parse().expect("a header"));
                window
            }
            _ => reply(404, ""),
        })
    }

    fn refused(&self, payload: &Value) {
        let index = self.ordered(payload, false);
        lock(&self.orders)[index].refused = true;
    }

    fn ordered(&self, payload: &Value, proven: bool) -> usize {
        let names: Vec<String> =
            payload["identifiers"].as_array().into_iter().flatten().filter_map(|one| Some(one["value"].as_str()?.to_owned())).collect();
        let text = |field: &str| payload[field].as_str().map(str::to_owned);
        let mut orders = lock(&self.orders);
        orders.push(Order {
            proven: vec![proven; names.len()],
            names,
            replaces: text("replaces"),
            profile: text("profile"),
            ..Order::default()
        });
        orders.len() - 1
    }

    fn state(&self, index: usize) -> Value {
        let Self { base, .. } = self;
        let order = lock(&self.orders)[index].clone();
        let status = match (&order.chain, order.proven.iter().all(|proven| *proven)) {
            (Some(_), _) => "valid",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let mut state = json!({
            "status": status,
            "authorizations": (0..order.names.len()).map(|n| format!("{base}/authz/{index}/{n}")).collect::<Vec<_>>(),
            "finalize": format!("{base}/finalize/{index}"),
        });
        for (field, value) in [("replaces", &order.replaces), ("profile", &order.profile)] {
            if let Some(value) = value {
                state[field] = value.as_str().into();
            }
        }
        if order.chain.is_some() {
            state["certificate"] = format!("{base}/cert/{index}").into();
        }
        state
    }

    fn authorization(&self, index: usize, part: usize) -> Value {
        let Self { base, .. } = self;
        let order = lock(&self.orders)[index].clone();
        let status = if order.proven[part] { "valid" } else { "pending" };
        json!({
            "identifier": { "type": "dns", "value": order.names[part] },
            "status": status,
            "challenges": [{
                "type": "http-01",
                "url": format!("{base}/challenge/{index}/{part}"),
                "token": format!("token-{index}-{part}"),
                "status": status,
            }],
        })
    }

    /// Fetches the proof, as a CA does.
    async fn prove(&self, index: usize, part: usize, port: Option<u16>) {
        let Some(port) = port else { return };
        let name = lock(&self.orders)[index].names[part].clone();
        let token = format!("token-{index}-{part}");
        let get = request("GET", &name, &format!("/.well-known/acme-challenge/{token}")).body(Full::default()).expect("a request");
        let shown = send(SocketAddr::from(([127, 0, 0, 1], port)), get).await;
        let good = shown.is_ok_and(|answer| answer.status == StatusCode::OK && answer.text().starts_with(&format!("{token}.")));
        lock(&self.orders)[index].proven[part] = good;
    }

    fn sign(&self, csr: &[u8], manner: &Manner) -> (String, Vec<u8>) {
        let (_, asked) = X509CertificationRequest::from_der(csr).expect("a request");
        let names = asked.requested_extensions().into_iter().flatten().filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        let names = names.flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let names = if manner.signs == Signs::OtherNames { vec!["other.test".to_owned()] } else { names.collect() };
        let mut params = CertificateParams::new(names).expect("names");
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let (from, to) = if manner.signs == Signs::WhatIsOver { (now - 1000, now - 500) } else { (now - 1, now + manner.life) };
        (params.not_before, params.not_after) = (moment(from), moment(to));
        let other = KeyPair::generate().expect("a key");
        let own = &asked.certification_request_info.subject_pki.subject_public_key.data;
        let key = Key(if manner.signs == Signs::OtherKey { other.der_bytes().to_vec() } else { own.to_vec() });
        let made = params.signed_by(&key, &self.issuer).expect("signed");
        (made.pem(), made.der().to_vec())
    }
}

/// Of whoever asks, on P-256.
struct Key(Vec<u8>);

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn moment<T: From<SystemTime>>(seconds: u64) -> T {
    (UNIX_EPOCH + Duration::from_secs(seconds)).into()
}

/// What a JWS says; nothing where it is none, or says nothing.
fn payload(body: &[u8]) -> Value {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = jws["payload"].as_str().and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).expect("an answer")
}

fn located(mut response: Response<Full<Bytes>>, at: String) -> Response<Full<Bytes>> {
    response.headers_mut().insert("location", at.parse().expect("a header"));
    response
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
