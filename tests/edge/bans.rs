//! Bans, where a CA may be behind them.

use std::time::Duration;

use gateway::{acme::challenge::PATH, rules::jail::Who};

use crate::{
    harness::{Edge, ask, run},
    tls::{client, handshake},
};

const TEXT: &str = "[[site]]\nhost = \"a.test\"\ntls = \"internal\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"in\" }\n";

#[test]
fn a_ca_that_is_banned_sees_its_challenges_answered_and_nothing_else() {
    run(async {
        let edge = Edge::start(TEXT);
        let shakes = async |alpn: &str| handshake(&edge, &client(&[alpn], &[&rustls::version::TLS13]), "a.test").await;
        let gets = async |path: &str| ask(&mut edge.connect().await, &format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        shakes("h2").await.expect("served");
        edge.base.warden.ban(Who::parse("127.0.0.1").expect("an address"), Duration::from_secs(3600));
        shakes("h2").await.expect_err("dropped");
        let path = format!("{PATH}token");
        assert_eq!(gets(&path).await.status, 403);
        {
            let _http = edge.base.board.post_http("token", "token.proof");
            let proof = gets(&path).await;
            assert_eq!((proof.status, &*proof.body), (200, "token.proof"));
            assert_eq!(gets("/").await.status, 403);
        }
        let posted = edge.base.board.post_alpn("a.test", &[7; 32]).expect("posted");
        let proof = shakes("acme-tls/1").await.expect("a CA");
        assert_eq!(proof.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        for other in ["h2", "http/1.1"] {
            shakes(other).await.expect_err("dropped when it has said what it wants");
        }
        drop(posted);
        shakes("acme-tls/1").await.expect_err("dropped: nothing is pending");
        edge.base.warden.free(Who::parse("127.0.0.1").expect("an address"));
        shakes("h2").await.expect("served");
    });
}
