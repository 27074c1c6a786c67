use super::*;

fn forward(headers: &[&'static str]) -> Forward {
    Forward::new(&plan::Forward {
        server: ServerAddr::parse("127.0.0.1:9").expect("an address"),
        host: "door.test:9000".into(),
        path: "/verify".into(),
        headers: headers.iter().map(|name| HeaderName::from_static(name)).collect(),
        timeout: Duration::from_secs(1),
    })
    .expect("a good plan")
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn question(headers: &HeaderMap, trusted: bool) -> HeaderMap {
    let (peer, id) = (IpAddr::from([192, 0, 2, 7]), HeaderValue::from_static("id"));
    let asked = Asked {
        method: &Method::DELETE,
        target: b"/a?gateway-maintenance=open-sesame&b",
        headers,
        authority: Some("h2.test"),
        peer,
        client: peer,
        trusted,
        tls: true,
        request_id: &id,
    };
    forward(&[]).question(&asked)
}

#[test]
fn a_question_says_who_asks_for_what_and_nothing_that_a_stranger_made_up() {
    let had = map(&[
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-uri", "/forged"),
        ("x-original-url", "/forged"),
        ("upgrade", "websocket"),
        ("connection", "upgrade, x-mine"),
        ("x-mine", "1"),
        ("content-length", "5"),
        ("gateway-maintenance", "open-sesame"),
        ("accept", "text/html"),
    ]);
    let asked = question(&had, false);
    let wanted = map(&[
        ("accept", "text/html"),
        ("host", "door.test:9000"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "h2.test"),
        ("x-forwarded-method", "DELETE"),
        ("x-forwarded-uri", "/a?b"),
        ("x-request-id", "id"),
    ]);
    assert_eq!(asked, wanted);
    // A trusted proxy knows what came in at its door, but not what is asked for at ours.
    let asked = question(&had, true);
    assert_eq!((&asked["x-forwarded-proto"], &asked["x-forwarded-uri"]), (&had["x-forwarded-proto"], &wanted["x-forwarded-uri"]));
}

#[test]
fn an_answer_is_a_yes_with_what_was_listed_or_the_clients_answer() {
    let forward = forward(&["remote-groups", "remote-user", "remote-email"]);
    let parts = |status: u16, fields: &[(&'static str, &'static str)]| {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        (parts.status, parts.headers) = (StatusCode::from_u16(status).expect("a status"), map(fields));
        parts
    };
    let yes =
        forward.judge(parts(204, &[("remote-user", "alice"), ("x-other", "1"), ("remote-groups", "a"), ("remote-groups", "b")]), None);
    let Ok(Said::Admitted { user, vouched }) = yes else { panic!("it is a yes") };
    assert_eq!(user.as_ref().map(HeaderValue::as_bytes), Some(&b"alice"[..]));
    let told: Vec<_> = vouched.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(HeaderValue::as_bytes))).collect();
    assert_eq!(
        told,
        [("remote-groups", Some(&b"a"[..])), ("remote-groups", Some(b"b")), ("remote-user", Some(b"alice")), ("remote-email", None)]
    );
    for status in [300, 401, 404, 500] {
        let fields = [("set-cookie", "a"), ("set-cookie", "b"), ("content-length", "9"), ("x-hop", "1"), ("connection", "x-hop, close")];
        let no = forward.judge(parts(status, &fields), Some(Bytes::from_static(b"no")));
        let Ok(Said::Refused(reply)) = no else { panic!("it is a no") };
        let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((reply.status.as_u16(), &reply.body[..], names), (status, &b"no"[..], vec!["set-cookie", "set-cookie"]));
    }
    assert!(matches!(forward.judge(parts(403, &[]), None), Err(ForwardError::Large)));
    assert!(matches!(forward.judge(parts(101, &[]), Some(Bytes::new())), Err(ForwardError::Status(_))));
}

#[tokio::test]
async fn no_more_are_inside_than_may_be() {
    let forward = forward(&[]);
    let _all: Vec<_> = (0..INSIDE).map(|_| Inside::enter(&forward.inside).expect("there is room")).collect();
    assert!(matches!(forward.ask(HeaderMap::new()).await, Err(ForwardError::Full)));
}
