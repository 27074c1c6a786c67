//! HTTP/1.1, from a client's socket to an origin's and back.

use crate::harness::{Edge, ask, echo, origin, run};

#[test]
fn a_request_reaches_its_app_and_comes_back_dressed() {
    let (edge, mut client) = run(async {
        let app = origin(echo).await;
        let text = format!("[upstream.app]\nservers = [\"{app}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"app\"\n");
        let edge = tokio::task::spawn_blocking(move || Edge::start(&text)).await.expect("started");
        let mut client = edge.connect().await;
        for _ in 0..3 {
            let answer = ask(&mut client, "GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nX_Bad: 1\r\n\r\n").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{answer:?}");
            assert_eq!(answer.field("x-frame-options"), Some("DENY"));
            assert_eq!(answer.field("server"), None);
            assert!(answer.body.to_lowercase().contains("x-real-ip: 127.0.0.1"), "{answer:?}");
            assert!(!answer.body.to_lowercase().contains("x_bad"), "{answer:?}");
            let id = answer.field("x-request-id").expect("an id");
            assert!(answer.body.contains(id), "{answer:?}");
        }
        (edge, client)
    });
    run(async {
        let answer = ask(&mut client, "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
        assert_eq!((answer.status, answer.field("x-frame-options")), (404, Some("DENY")), "{answer:?}");
    });
    drop(edge);
}
