use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::client_async;

use super::*;

struct Running {
    path: PathBuf,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), AppError>>,
    _dir: tempfile::TempDir,
}

/// A demo app on a socket of its own, as these options make it.
async fn start(options: &[&str]) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("demo.sock");
    let mut args: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
    args.extend(["--socket".to_owned(), path.display().to_string()]);
    let spec = Spec::parse(args, |_| None).expect("valid");
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(Arc::new(App { spec, started: Instant::now() }), stopping));
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&path).await.is_err() {
        assert!(Instant::now() < deadline, "does not listen");
        tokio::task::yield_now().await;
    }
    Running { path, stop, tasks, _dir: dir }
}

impl Running {
    async fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).await.expect("connected");
        stream.write_all(format!("{request}Host: demo\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // Some answers break off.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, target: &str) -> String {
        self.ask(&format!("GET {target} HTTP/1.1\r\n")).await
    }
}

#[tokio::test]
async fn it_says_who_answers() {
    let demo = start(&["--name", "web"]).await;
    let page = demo.get("/").await;
    assert!(page.contains("It works.") && page.contains("<b>web</b>") && !page.contains("{pid}"), "{page}");
    assert!(page.contains(&format!("x-demo-pid: {}\r\n", std::process::id())) && page.contains("x-demo-instance: 0\r\n"), "{page}");
    for kind in ["/page.css", "/page.js", "/healthz"] {
        assert!(demo.get(kind).await.starts_with("HTTP/1.1 200 OK\r\n"), "{kind}");
    }
    assert!(demo.get("/nope").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn it_echoes_what_it_was_sent() {
    let demo = start(&[]).await;
    let mut stream = UnixStream::connect(&demo.path).await.expect("connected");
    stream
        .write_all(b"POST /echo?a=b HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        .await
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let seen: serde_json::Value = serde_json::from_str(body).expect("json");
    assert_eq!((seen["method"].as_str(), seen["query"].as_str(), seen["body"].as_str()), (Some("POST"), Some("a=b"), Some("hi")));
    assert!(seen["headers"].as_array().expect("a list").contains(&serde_json::json!(["x-y", "z"])));
}

#[tokio::test]
async fn it_answers_as_it_is_asked_to() {
    let demo = start(&[]).await;
    assert!(demo.get("/status/503").await.starts_with("HTTP/1.1 503 "));
    assert!(demo.get("/status/42").await.starts_with("HTTP/1.1 400 "));
    let bytes = demo.get("/bytes/200000").await;
    assert_eq!(bytes.split_once("\r\n\r\n").expect("a body").1.len(), 200_000);
    assert!(demo.get("/large?kb=3").await.contains("x-large-2: xxx"));
    assert_eq!(demo.get("/close").await, "", "closed without an answer");
    let half = demo.get("/half").await;
    assert!(half.contains("content-length: 1000") && half.ends_with("the first half"), "{half}");
    let sse = demo.get("/sse?n=3&ms=1").await;
    assert!(sse.contains("content-type: text/event-stream") && sse.contains("data: event 2"), "{sse}");
}

#[tokio::test]
async fn its_web_socket_echoes_and_closes_when_it_stops() {
    let mut demo = start(&[]).await;
    let stream = UnixStream::connect(&demo.path).await.expect("connected");
    let (mut socket, _) = client_async("ws://demo/ws", stream).await.expect("a WebSocket");
    socket.send(Message::text("hello")).await.expect("sent");
    assert_eq!(socket.next().await.expect("one").expect("whole"), Message::text("hello"));
    demo.stop.send_replace(true);
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    drop(socket);
    demo.tasks.join_next().await.expect("one").expect("no panic").expect("no error");
    assert!(UnixStream::connect(&demo.path).await.is_err());
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_it_stops() {
    let mut demo = start(&[]).await;
    let mut stream = UnixStream::connect(&demo.path).await.expect("connected");
    stream.write_all(b"GET /trickle?n=3&ms=50 HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut first = [0_u8; 16];
    stream.read_exact(&mut first).await.expect("begun");
    demo.stop.send_replace(true);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("ended");
    assert!(rest.contains("piece 2"), "{rest}");
    demo.tasks.join_next().await.expect("one").expect("no panic").expect("no error");
}

#[tokio::test]
async fn it_becomes_unready_as_it_is_told() {
    let demo = start(&["--unready-after", "0s"]).await;
    assert!(demo.get("/healthz").await.starts_with("HTTP/1.1 503 "));
    assert!(demo.get("/pid").await.starts_with("HTTP/1.1 200 "));
}
