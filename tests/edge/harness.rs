//! An edge made of a configuration text, and small origins to put behind it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use gateway::{
    acme::vault::Vault,
    config,
    edge::{
        conn::buffers::Buffers,
        listen::{Afterwards, Common, Crowd, Order, Worker},
        live::{Base, Live, LiveCell},
        tls::{self, OnBadPair, TlsBase, ca::Authority},
        warden::Warden,
        witness::Witness,
    },
    ipc::message::{Config, Generation, Listener, Material, Materials, Role, TicketKey, TicketKeys},
    plan::Plan,
    rules::screen::Screen,
    telemetry::Metrics,
    vocab::Secret,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

pub struct Edge {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub live: LiveCell,
    pub base: Base,
    pub metrics: Arc<Metrics>,
    _dir: TempDir,
    orders: mpsc::Sender<Order>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Edge {
    /// Serves what `text` says; the listeners are this harness's own.
    pub fn start(text: &str) -> Self {
        Self::with(text, Vec::new())
    }

    /// The same with certificates from files.
    pub fn with(text: &str, pairs: Vec<Material>) -> Self {
        Self::made(text, Materials { pairs, roots: Vec::new() }, |_| {}, OnBadPair::Refuse)
    }

    /// The same with a plan that the test has changed.
    pub fn made(text: &str, materials: Materials, change: impl FnOnce(&mut Plan), bad: OnBadPair) -> Self {
        tls::install_provider();
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.toml");
        let (http, https) = (bind(), bind());
        let addr = |socket: &StdListener| socket.local_addr().expect("bound");
        let whole = format!("state = \"{0}/state\"\nrun = \"{0}/run\"\n{text}\n", dir.path().display());
        std::fs::write(&file, whole).expect("written");
        let mut plan = match config::load::load(&file, &|_| None) {
            Ok(plan) => plan,
            Err(complaints) => panic!("{complaints}"),
        };
        change(&mut plan);
        let home: PathBuf = dir.path().join("edge");
        std::fs::create_dir_all(&home).expect("made");
        let authority = Arc::new(Authority::open(&home).expect("a CA"));
        let metrics = Arc::new(Metrics::new());
        let base = Base {
            metrics: metrics.clone(),
            tls: TlsBase::new(authority, keys(1, None), Vault::new().0).expect("TLS"),
            access: None,
            screen: Arc::new(Screen::new()),
            board: Arc::default(),
            blackbox: Arc::default(),
            witness: Arc::new(Witness::new(mpsc::channel(1).0)),
            verifier: Arc::default(),
            warden: Arc::new(Warden::new(&metrics)),
            switches: Default::default(),
        };
        let listener = |role, bound| Listener { role, asked: bound, bound, descriptors: 0 };
        let listeners = vec![listener(Role::Http, addr(&http)), listener(Role::Https, addr(&https))];
        let config = Config { generation: Generation(1), plan, listeners, materials };
        let live = Live::prepare(base.ground(None), &config, bad).unwrap_or_else(|error| panic!("{error}")).enter(&base);
        let live: LiveCell = Arc::new(ArcSwap::from_pointee(live));
        let common = Common {
            live: live.clone(),
            crowd: Arc::new(Crowd::default()),
            pressure: Arc::default(),
            leftovers: Arc::default(),
            buffers: Arc::new(Buffers::new(metrics.buffers())),
            pulses: Arc::default(),
            tls_metrics: metrics.tls(),
        };
        let (orders, inbox) = mpsc::channel(8);
        let roots = home.join(tls::ca::CERT);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let worker = {
                let _inside = runtime.enter();
                Worker::new(common, &roots, inbox)
            };
            runtime.block_on(worker.run());
        });
        let edge = Self { http: addr(&http), https: addr(&https), live, base, metrics, _dir: dir, orders, thread: Some(thread) };
        for (role, socket) in [(Role::Http, http), (Role::Https, https)] {
            let asked = addr(&socket);
            edge.orders.try_send(Order::Open { key: (role, asked), socket, metrics: edge.metrics.listener(asked) }).expect("running");
        }
        edge
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http).await.expect("accepted")
    }

    pub async fn stop(&self, within: Duration) {
        self.orders.send(Order::Stop { within, sockets: Afterwards::Shut }).await.expect("running");
    }

    /// The worker has ended by itself.
    pub fn join(mut self) {
        self.thread.take().expect("once").join().expect("no panic");
    }
}

/// Ticket keys that a test knows.
pub fn keys(current: u8, previous: Option<u8>) -> TicketKeys {
    let key = |byte| TicketKey(Secret::new([byte; 32]));
    TicketKeys { current: key(current), previous: previous.map(key) }
}

fn bind() -> StdListener {
    let socket = StdListener::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("set");
    socket
}

/// A runtime for the test's own side; the edge has its own thread.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("in time") })
}

/// A site `a.test` without TLS before one app on these servers, with more lines for the top, the upstream and the site.
pub fn site(servers: &[SocketAddr], top: &str, upstream: &str, site: &str) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!(
        "{top}\n[upstream.app]\nservers = {servers:?}\n{upstream}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"app\"\n{site}\n"
    )
}

/// Answers each connection by what `serve` does with it.
pub async fn origin<F, S>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let mut tasks = tokio::task::JoinSet::new();
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("set");
            tasks.spawn(serve(stream));
        }
    };
    tokio::runtime::Handle::current().spawn(accept);
    addr
}

/// Reads one head; `None` at the end of the stream.
pub async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("ASCII"))
}

/// Answers every head with `body`, and echoes the head in it.
pub async fn echo(mut stream: TcpStream) {
    while let Some(head) = head(&mut stream).await {
        let length: usize = field(&head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let text = [head.into_bytes(), body].concat();
        let answer = format!("HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Length: {}\r\n\r\n", text.len());
        if stream.write_all(&[answer.as_bytes(), &text].concat()).await.is_err() {
            return;
        }
    }
}

/// Takes all there is and says nothing.
pub async fn sink(mut stream: TcpStream) {
    let mut waste = [0; 4096];
    while matches!(stream.read(&mut waste).await, Ok(n) if n > 0) {}
}

pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// One answer with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// `None`: closed without one.
    pub async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Self> {
        let head = head(stream).await?;
        let status = head[9..12].parse().expect("a status");
        let mut body = Vec::new();
        if let Some(length) = field(&head, "content-length") {
            body.resize(length.parse().expect("a length"), 0);
            stream.read_exact(&mut body).await.ok()?;
        } else if field(&head, "transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                while !size.ends_with("\r\n") {
                    size.push(stream.read_u8().await.ok()?.into());
                }
                let size = usize::from_str_radix(size.trim(), 16).expect("a size");
                let mut piece = vec![0; size + 2];
                stream.read_exact(&mut piece).await.ok()?;
                body.extend(&piece[..size]);
                if size == 0 {
                    break;
                }
            }
        }
        Some(Self { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

pub async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("sent");
    Answer::read(stream).await.expect("an answer")
}

/// Sends `text` in pieces of `size`, `pause` apart, until it is all sent or refused.
pub async fn drip(stream: &mut (impl AsyncWriteExt + Unpin), text: &str, size: usize, pause: Duration) {
    for piece in text.as_bytes().chunks(size) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

pub async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    !matches!(stream.read(&mut [0; 64]).await, Ok(n) if n > 0)
}
