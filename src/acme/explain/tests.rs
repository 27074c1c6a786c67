use proptest::prelude::*;

use super::*;

fn of(kind: &str, detail: &str, challenge: Option<Challenge>) -> Explained {
    problem(&Problem { kind: &format!("{URN}{kind}"), detail, status: Some(400), identifier: Some("shop.example"), challenge })
}

#[test]
fn what_real_cas_say_of_a_challenge_becomes_what_is_to_be_mended() {
    use Challenge::{Http01, TlsAlpn01};
    for (kind, challenge, detail, text, advice) in [
        // Boulder
        (
            "dns",
            Http01,
            "DNS problem: NXDOMAIN looking up A for shop.example - check that a DNS record exists for this domain; DNS problem: NXDOMAIN looking up AAAA for shop.example - check that a DNS record exists for this domain",
            "shop.example has no address in the DNS",
            "A or AAAA record",
        ),
        (
            "dns",
            TlsAlpn01,
            "no valid A records found for shop.example; no valid AAAA records found for shop.example",
            "shop.example has no address in the DNS",
            "A or AAAA record",
        ),
        (
            "dns",
            Http01,
            "During secondary validation: DNS problem: SERVFAIL looking up CAA for shop.example - the domain's nameservers may be malfunctioning",
            "the CA could not look up shop.example in the DNS",
            "name servers",
        ),
        (
            "dns",
            Http01,
            "DNS problem: query timed out looking up A for shop.example",
            "the CA could not look up shop.example in the DNS",
            "name servers",
        ),
        (
            "connection",
            Http01,
            "203.0.113.5: Fetching http://shop.example/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)",
            "the CA does not get through to port 80 of shop.example",
            "open port 80",
        ),
        (
            "connection",
            TlsAlpn01,
            "203.0.113.5: Timeout during connect (likely firewall problem)",
            "the CA does not get through to port 443 of shop.example",
            "open port 443",
        ),
        (
            "connection",
            Http01,
            "203.0.113.5: Fetching http://shop.example/.well-known/acme-challenge/x: Connection refused",
            "the CA is refused a connection to port 80 of shop.example",
            "open port 80",
        ),
        (
            "connection",
            TlsAlpn01,
            "During secondary validation: 203.0.113.5: Connection refused",
            "the CA is refused a connection to port 443 of shop.example",
            "several parts of the world",
        ),
        (
            "connection",
            Http01,
            "203.0.113.5: Fetching http://shop.example/.well-known/acme-challenge/x: Timeout after connect (your server may be slow or overloaded)",
            "took the CA's connection on port 80",
            "points to this machine",
        ),
        (
            "connection",
            Http01,
            "203.0.113.5: Fetching http://shop.example/.well-known/acme-challenge/x: Error getting validation data",
            "the CA is cut off by port 80",
            "open port 80",
        ),
        (
            "connection",
            Http01,
            "203.0.113.5: Fetching https://shop.example:8443/: Invalid port in redirect target. Only ports 80 and 443 are supported, not 8443",
            "sent elsewhere",
            "redirects",
        ),
        (
            "unauthorized",
            Http01,
            "203.0.113.5: Invalid response from http://shop.example/.well-known/acme-challenge/x: 404",
            "something else than this gateway answers on port 80 of shop.example",
            "another machine",
        ),
        (
            "unauthorized",
            Http01,
            "The key authorization file from the server did not match this challenge. Expected \"a\" (got \"b\")",
            "something else than this gateway answers on port 80",
            "another machine",
        ),
        (
            "unauthorized",
            TlsAlpn01,
            "203.0.113.5: Cannot negotiate ALPN protocol \"acme-tls/1\" for tls-alpn-01 challenge",
            "something else than this gateway answers on port 443 of shop.example",
            "http-01",
        ),
        (
            "unauthorized",
            TlsAlpn01,
            "203.0.113.5: Incorrect validation certificate for tls-alpn-01 challenge. Requested shop.example from 203.0.113.5:443. Received 1 certificate(s), first certificate had names \"other.example\"",
            "something else than this gateway answers on port 443",
            "proxy or CDN",
        ),
        (
            "tls",
            TlsAlpn01,
            "203.0.113.5: remote error: tls: unrecognized name",
            "something else than this gateway answers on port 443",
            "proxy or CDN",
        ),
        (
            "caa",
            Http01,
            "CAA record for shop.example prevents issuance",
            "a CAA record in the DNS forbids this CA to sign for shop.example",
            "CAA records of shop.example",
        ),
        (
            "caa",
            Http01,
            "While processing CAA for shop.example: DNS problem: SERVFAIL looking up CAA for shop.example",
            "could not look up",
            "name servers",
        ),
        // Pebble
        (
            "connection",
            Http01,
            "Get \"http://shop.example:5002/.well-known/acme-challenge/x\": dial tcp 127.0.0.1:5002: connect: connection refused",
            "the CA is refused a connection to port 80",
            "open port 80",
        ),
        (
            "connection",
            Http01,
            "Get \"http://shop.example:5002/x\": lookup shop.example on 127.0.0.1:8053: no such host",
            "has no address",
            "A or AAAA",
        ),
        (
            "unauthorized",
            Http01,
            "Non-200 status code from HTTP: http://shop.example:5002/.well-known/acme-challenge/x returned 404",
            "something else than this gateway answers on port 80",
            "another machine",
        ),
        (
            "unauthorized",
            TlsAlpn01,
            "Failed to connect to shop.example:5001 for the tls-alpn-01 challenge",
            "the CA could not connect to port 443 of shop.example",
            "open port 443",
        ),
        ("unauthorized", Http01, "nobody has said this before", "the CA did not find that shop.example is ours", "port 80"),
    ] {
        let found = of(kind, detail, Some(challenge));
        assert!(found.text.contains(text), "{detail}\n→ {}", found.text);
        assert!(found.advice.as_deref().is_some_and(|given| given.contains(advice)), "{detail}\n→ {:?}", found.advice);
        assert_eq!(found.failure, Failure::Validation, "{detail}");
    }
}

#[test]
fn a_rate_limit_says_until_when() {
    let found = of(
        "rateLimited",
        "Error creating new order :: too many failed authorizations (5) for \"shop.example\" in the last 1h0m0s, retry after 2026-01-05 12:34:56 UTC: see https://letsencrypt.org/docs/rate-limits/#authorization-failures-per-hostname-per-account",
        None,
    );
    assert!(
        found.text.starts_with(
            "the CA's rate limit holds us off until 2026-01-05 12:34:56 UTC: too many validations of shop.example have failed"
        ),
        "{}",
        found.text
    );
    assert_eq!((found.failure, found.retry_after), (Failure::RateLimited, Some(1_767_616_496)));
    let found = of(
        "rateLimited",
        "Error creating new order :: too many certificates (5) already issued for this exact set of domains in the last 168 hours: shop.example, retry after 2024-06-07T21:01:50Z: see https://letsencrypt.org/docs/duplicate-certificate-limit/",
        None,
    );
    assert_eq!(found.retry_after, Some(1_717_794_110));
    assert!(found.advice.as_deref().is_some_and(|advice| advice.contains("state directory")), "{found:?}");
    for odd in ["retry after", "retry after tomorrow", "retry after 2026-99-99 12:00:00 UTC", "Retry after é"] {
        assert_eq!(of("rateLimited", odd, None).retry_after, None, "{odd}");
    }
}

#[test]
fn every_type_has_words_of_its_own() {
    use Failure::{Broken, RateLimited, Refused, Unreachable, Validation};
    let types = [
        ("accountDoesNotExist", Refused),
        ("alreadyReplaced", Refused),
        ("alreadyRevoked", Refused),
        ("badCSR", Refused),
        ("badNonce", Broken),
        ("badPublicKey", Refused),
        ("badRevocationReason", Refused),
        ("badSignatureAlgorithm", Refused),
        ("caa", Validation),
        ("compound", Validation),
        ("connection", Validation),
        ("dns", Validation),
        ("externalAccountRequired", Refused),
        ("incorrectResponse", Validation),
        ("invalidContact", Refused),
        ("invalidProfile", Refused),
        ("malformed", Broken),
        ("orderNotReady", Broken),
        ("rateLimited", RateLimited),
        ("rejectedIdentifier", Refused),
        ("serverInternal", Unreachable),
        ("tls", Validation),
        ("unauthorized", Validation),
        ("unsupportedContact", Refused),
        ("unsupportedIdentifier", Refused),
        ("userActionRequired", Refused),
    ];
    for (kind, failure) in types {
        let found = of(kind, "", None);
        assert_eq!(found.failure, failure, "{kind}");
        assert_ne!(found.text, "the CA refused", "{kind}");
    }
}

#[test]
fn an_account_that_is_refused_is_not_taken_for_a_challenge() {
    let refused = Problem {
        kind: "urn:ietf:params:acme:error:unauthorized",
        detail: "Account is not valid, has status \"deactivated\"",
        status: Some(403),
        ..Problem::default()
    };
    let found = problem(&refused);
    assert_eq!(found.failure, Failure::Refused);
    assert!(found.text.starts_with("the CA does not accept our account"), "{}", found.text);
}

#[test]
fn a_type_that_nobody_knows_is_judged_by_its_status() {
    for (status, failure) in [(429, Failure::RateLimited), (503, Failure::Unreachable), (403, Failure::Refused), (400, Failure::Broken)] {
        assert_eq!(problem(&Problem { status: Some(status), ..Problem::default() }).failure, failure, "{status}");
    }
}

#[test]
fn a_ca_that_is_not_there_is_told_from_one_that_talks_nonsense() {
    let all = [
        (Silence::Dns("no such host"), Failure::Unreachable, "was not resolved: no such host"),
        (Silence::Refused, Failure::Unreachable, "refuses connections"),
        (Silence::Timeout, Failure::Unreachable, "did not answer in time"),
        (Silence::Tls("unknown issuer"), Failure::Unreachable, "not to be trusted: unknown issuer"),
        (Silence::Status(502), Failure::Unreachable, "answered 502"),
        (Silence::Status(404), Failure::Broken, "answered 404"),
        (Silence::Garbage(""), Failure::Broken, "is not understood"),
    ];
    for (silent, failure, text) in all {
        let found = silence("ca.example", &silent);
        assert!(found.text.contains(text) && found.text.contains("ca.example"), "{}", found.text);
        assert_eq!(found.failure, failure);
    }
}

#[test]
fn what_a_ca_wrote_cannot_command_a_terminal_nor_fill_a_log() {
    let found = of("malformed", &format!("\x1b[2J\u{202e}\"it's\"\n{}", "x".repeat(1 << 20)), None);
    assert!(found.text.len() < 600, "{}", found.text.len());
    assert!(found.text.contains("\\u{1b}[2J\\u{202e}\\\"it's\\\"\\nxxx") && found.text.ends_with("…\")"), "{}", found.text);
}

proptest! {
    #[test]
    fn no_text_breaks_it(kind in ".*", detail in ".*", identifier in ".*") {
        for kind in [kind.as_str(), "urn:ietf:params:acme:error:rateLimited", "urn:ietf:params:acme:error:dns"] {
            let found = problem(&Problem { kind, detail: &detail, status: None, identifier: Some(&identifier), challenge: None });
            prop_assert!(!found.text.chars().any(char::is_control));
            prop_assert!(found.text.chars().count() < 1500);
        }
        let after = format!("retry after {detail}");
        prop_assert!(moment(&after).is_none_or(|_| !detail.is_empty()));
    }
}
