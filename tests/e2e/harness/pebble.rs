//! Let's Encrypt's own test CA, with its test name server: every name leads to 127.0.0.1 unless it is told otherwise.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    client::{Conn, request},
    gateway::workdir,
    proc, send,
    tls::{TlsClient, write_certificate},
    wait::{eventually, secs},
};

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Of its certificates, in seconds.
    pub life: u64,
    /// Up to so many seconds pass before each validation.
    pub sleep: u32,
    /// Percent of good nonces that it refuses.
    pub nonce_reject: u32,
    /// Accounts must be bound to one of these: kid and base64url key.
    pub eab: Option<(&'static str, &'static str)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { life: 90 * 24 * 3600, sleep: 2, nonce_reject: 15, eab: None }
    }
}

/// A CA and its name server. Dropped: both are stopped.
pub struct Pebble {
    dir: TempDir,
    manner: Manner,
    /// Where it looks for challenges.
    ports: Ports,
    api: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    child: Option<Child>,
    names: Option<Child>,
}

/// Of the gateway under test, chosen before either runs.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
}

impl Ports {
    pub fn free() -> Self {
        let [http, https] = free();
        Self { http, https }
    }

    /// `[listen]` of the gateway.
    pub fn listen(self) -> String {
        format!("[listen]\nhttp = [\"127.0.0.1:{}\"]\nhttps = [\"127.0.0.1:{}\"]\n", self.http, self.https)
    }
}

/// Ports that nobody has at the moment, never the same twice: below the range from which the kernel gives ports to clients, or one could be taken until it is bound.
pub fn free<const N: usize>() -> [u16; N] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("not poisoned");
    let mut found = Vec::new();
    for _ in 0..10_000 {
        if found.len() == N {
            break;
        }
        let port = fastrand::u16(12_000..32_000);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() && given.insert(port) {
            found.push(port);
        }
    }
    found.try_into().expect("enough free ports")
}

impl Pebble {
    pub async fn start(ports: Ports, manner: Manner) -> Self {
        let dir = workdir();
        write_certificate(dir.path(), "pebble", &["localhost", "127.0.0.1"]);
        let [api, management, dns, dns_management] = free();
        let mut pebble = Self { dir, manner, ports, api, management, dns, dns_management, child: None, names: None };
        pebble.names = Some(pebble.spawn(
            "pebble-challtestsrv",
            &[
                "-dns01".into(),
                format!("127.0.0.1:{dns}"),
                "-management".into(),
                format!("127.0.0.1:{dns_management}"),
                "-http01".into(),
                String::new(),
                "-https01".into(),
                String::new(),
                "-tlsalpn01".into(),
                String::new(),
                "-defaultIPv6".into(),
                String::new(),
            ],
        ));
        pebble.resume().await;
        pebble
    }

    /// Starts it, with no memory of what it was before.
    pub async fn resume(&mut self) {
        let eab = self.manner.eab.map_or(json!({}), |(kid, key)| json!({ kid: key }));
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.api),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.dir.path().join("pebble.pem"),
            "privateKey": self.dir.path().join("pebble.key"),
            "httpPort": self.ports.http,
            "tlsPort": self.ports.https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.manner.eab.is_some(),
            "externalAccountMACKeys": eab,
            "certificateValidityPeriod": self.manner.life,
        } });
        let path = self.dir.path().join("pebble.json");
        fs::write(&path, config.to_string()).expect("written");
        let words = ["-config".into(), path.display().to_string(), "-dnsserver".into(), format!("127.0.0.1:{}", self.dns)];
        self.child = Some(self.spawn("pebble", &words));
        let tls = TlsClient::trusting(&self.root_file());
        let addr = SocketAddr::from(([127, 0, 0, 1], self.api));
        super::wait::eventually_async("pebble answers", secs(20), || async {
            Conn::h1_tls(addr, &tls, "localhost").await.map(drop).map_err(|error| format!("{error}; it said: {}", self.log()))
        })
        .await;
    }

    fn spawn(&self, program: &str, words: &[String]) -> Child {
        let log = File::options().append(true).create(true).open(self.dir.path().join(format!("{program}.log"))).expect("a log");
        Command::new(program)
            .args(words)
            .current_dir(self.dir.path())
            .env("PEBBLE_VA_SLEEPTIME", self.manner.sleep.to_string())
            // Asked to sleep for nothing it sleeps for as long as it likes.
            .envs((self.manner.sleep == 0).then_some(("PEBBLE_VA_NOSLEEP", "1")))
            .env("PEBBLE_WFE_NONCEREJECT", self.manner.nonce_reject.to_string())
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}: run ./dev tools once, or ./dev test"))
    }

    pub fn stop(&mut self) {
        end(self.child.take());
    }

    /// As `[tls] ca` names it; `more` goes into the table.
    pub fn ca(&self, more: &str) -> String {
        format!("{{ directory = \"{}\", root = \"{}\"{more} }}", self.directory(), self.root_path().display())
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.api)
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.api))
    }

    fn root_path(&self) -> PathBuf {
        self.dir.path().join("pebble.pem")
    }

    pub fn root_file(&self) -> Vec<u8> {
        fs::read(self.root_path()).expect("its own certificate")
    }

    /// The root that its certificates lead to, in PEM.
    pub async fn issuing_root(&self) -> String {
        self.manage("/roots/0").await
    }

    async fn manage(&self, path: &str) -> String {
        let tls = TlsClient::trusting(&self.root_file());
        let addr = SocketAddr::from(([127, 0, 0, 1], self.management));
        let mut conn = Conn::h1_tls(addr, &tls, "localhost").await.expect("connected");
        let answer = conn.send(request("GET", "localhost", path).body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// Tells the name server something, as in `("add-caa", …)`.
    pub async fn names(&self, what: &str, say: Value) {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.dns_management));
        let post = request("POST", "localhost", &format!("/{what}")).body(Full::from(say.to_string())).expect("a request");
        assert_eq!(send(addr, post).await.expect("the name server answers").status, 200, "{what}");
    }

    /// All that it has logged, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("pebble.log")).unwrap_or_default()).into_owned()
    }

    fn count(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }

    /// Orders that it was given, over all its lives.
    pub fn orders(&self) -> usize {
        self.count("Added order")
    }

    pub fn accounts(&self) -> usize {
        self.count("accounts in memory")
    }

    pub fn issued(&self) -> usize {
        self.count("Issued certificate serial")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        end(self.names.take());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- pebble said:\n{}\n--- end", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn end(child: Option<Child>) {
    let Some(mut child) = child else { return };
    proc::kill(child.id(), Signal::SIGKILL);
    eventually("it has ended", secs(5), || child.try_wait().ok().flatten().ok_or("still running"));
}
