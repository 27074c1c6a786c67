//! Filters: in the target, in header fields, in bodies; each family in its own mode.

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Conn, Gateway,
    client::{request, request_h2},
    eventually, get, raw, send,
    tls::TlsClient,
    upstream::{self, Upstream},
    wait::secs,
};

async fn gateway() -> (Gateway, Upstream) {
    let behind = upstream::echo("behind").await;
    let site = |host: &str, tls: &str| {
        format!(
            "[[site]]\nhost = \"{host}\"\ntls = \"{tls}\"\nupstream = \"behind\"\n\
             filters = {{ base = \"strict\", template = \"observe\", dot-file = \"off\", patterns = [\"^/wp-json/\"], body = \"64KB\" }}\n"
        )
    };
    let gateway = Gateway::start(&format!(
        "[log]\ndir = \"logs\"\n[upstream.behind]\nservers = [\"{}\"]\n{}{}[[site]]\nhost = \"b.test\"\ntls = \"off\"\nupstream = \"behind\"\nfilters = \"strict\"\n\
         [[site]]\nhost = \"c.test\"\ntls = \"off\"\nupstream = \"behind\"\n",
        behind.addr,
        site("a.test", "off"),
        site("localhost", "internal"),
    ));
    (gateway, behind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_family_has_its_mode_and_is_counted() {
    let (gateway, behind) = gateway().await;
    let status = async |host: &str, path: &str| get(gateway.http(), host, path).await.expect("an answer").status;
    assert_eq!(status("a.test", "/?q=shoes").await, 200);
    assert_eq!(status("a.test", "/?id=1%27%20or%20%271%27=%271").await, 403);
    assert_eq!(status("a.test", "/?q=%7B%7B7*7%7D%7D").await, 200, "observed");
    assert_eq!(status("a.test", "/.git/config").await, 200, "off");
    assert_eq!(status("b.test", "/.git/config").await, 403, "on where the set is strict");
    assert_eq!(status("a.test", "/wp-json/wp/v2/users").await, 403, "a pattern of the user's own");
    assert_eq!(status("b.test", "/wp-json/wp/v2/users").await, 200);
    let field = async |name: &str, value: &str| {
        let asked = request("GET", "b.test", "/").header(name, value).body(Full::default()).expect("a request");
        send(gateway.http(), asked).await.expect("an answer").status
    };
    assert_eq!(field("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0").await, 200);
    assert_eq!(field("user-agent", "${jndi:ldap://x/a}").await, 403);
    assert_eq!(field("referer", "https://b.test/?q=%3Cscript%3Ealert(1)%3C/script%3E").await, 403);
    assert_eq!(field("cookie", "a=1; id=1' union select 1,2,3-- -").await, 403);
    assert_eq!(field("x-api-version", "() { :;}; /bin/cat /etc/passwd").await, 403);
    let seen =
        async |family: &str, result: &str| gateway.metric("gateway_filter_families_total", &["site=\"a.test\"", family, result]).await;
    assert_eq!(seen("\"sql\"", "\"rejected\"").await, 1.0);
    assert_eq!(seen("\"template\"", "would_reject").await, 1.0);
    assert_eq!(seen("\"own\"", "\"rejected\"").await, 1.0);
    assert_eq!(seen("\"dot-file\"", "\"rejected\"").await, 0.0);
    assert_eq!(behind.hits(), 5, "what is refused does not reach the app");
    // By default what is certain is refused, what is likely passes, and what browsers send by themselves is looked at for look-ups alone.
    for (path, expected) in [
        ("/.git/config", 403),
        ("/?id=1%27%20or%20%271%27=%271", 403),
        ("/realms/a/.well-known/openid-configuration", 200),
        ("/?q=union%20select%20null%20from%20x", 200),
        ("/wp-login.php", 200),
    ] {
        assert_eq!(status("c.test", path).await, expected, "{path}");
    }
    for (name, value, expected) in [
        ("referer", "https://c.test/?q=%3Cscript%3Ealert(1)%3C/script%3E", 200),
        ("cookie", "a=${jndi:ldap://x/a}", 403),
        ("x-note", "<script>alert(1)</script>", 403),
    ] {
        let asked = request("GET", "c.test", "/").header(name, value).body(Full::default()).expect("a request");
        assert_eq!(send(gateway.http(), asked).await.expect("an answer").status, expected, "{name}");
    }
    let line = |query: &str| {
        let log = std::fs::read_to_string(gateway.dir().join("logs/access.log")).ok()?;
        let line = log.lines().find(|line| line.contains(query))?;
        serde_json::from_str::<serde_json::Value>(line).ok()
    };
    let named = |query: &str| eventually("the line is written", secs(10), || line(query).ok_or("not yet"));
    assert_eq!(named("jndi")["status"], 403);
    for (query, family) in [("%27%20or%20", "sql"), ("%7B7*7", "template")] {
        assert_eq!(named(query)["filter"], family);
    }
    assert_eq!(named("q=shoes")["filter"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_looked_at_before_any_of_it_reaches_the_app() {
    let (gateway, behind) = gateway().await;
    let tls = TlsClient::internal(&gateway);
    let long = format!("a={}&b=%3Cscript%3Ealert(1)%3C/script%3E", "x".repeat(30_000));
    let beyond = format!("a={}&b=%3Cscript%3Ealert(1)%3C/script%3E", "x".repeat(70_000));
    for (kind, body, expected) in [
        ("application/x-www-form-urlencoded", "a=b&c=d", 200),
        ("application/x-www-form-urlencoded", "id=1'+union+select+1,2,3--+-", 403),
        ("application/json", r#"{"name":"O'Brien","note":"drop-in union guide"}"#, 200),
        ("application/json", r#"{"a":[{"b":"<script>alert(1)</script>"}]}"#, 403),
        ("application/json", r#"{"user":{"$ne":null}}"#, 403),
        ("text/plain", "<script>alert(1)</script>", 200),
        ("application/x-www-form-urlencoded", &long, 403),
        ("application/x-www-form-urlencoded", &beyond, 200),
    ] {
        let before = behind.hits();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let asked = request("POST", "a.test", "/").header("content-type", kind).body(Full::new(body.clone())).expect("a request");
        let plain = send(gateway.http(), asked).await.expect("an answer");
        let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
        let asked = request_h2("POST", "localhost", "/").header("content-type", kind).body(Full::new(body.clone())).expect("a request");
        let secure = h2.send(asked).await.expect("an answer");
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((plain.status.as_u16(), secure.status.as_u16()), (expected, expected), "{kind} {what}");
        if expected == 200 {
            assert_eq!(plain.json()["length"], body.len(), "{what}");
            assert_eq!(behind.hits(), before + 2);
        } else {
            assert_eq!(behind.hits(), before, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_pieces_hides_nothing() {
    let (gateway, behind) = gateway().await;
    for (pieces, expected) in [
        (["5\r\na=<sc\r\n", "d\r\nript>alert(1)\r\n", "0\r\n\r\n"], "HTTP/1.1 403"),
        (["5\r\na=bcd\r\n", "6\r\nefghij\r\n", "0\r\n\r\n"], "HTTP/1.1 200"),
    ] {
        let mut stream = raw::connect(gateway.http()).await;
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.expect("written");
            stream.flush().await.expect("flushed");
            tokio::task::yield_now().await;
        }
        let answer = raw::read_to_end(&mut stream, crate::harness::wait::secs(10)).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert_eq!(behind.hits(), 1);
}
