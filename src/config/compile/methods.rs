//! Names of methods, as routes and `cors` have them.

use http::Method;

use super::Context;
use crate::config::{
    complaint::{Code, did_you_mean},
    shape::{At, Field, List},
    tree::Text,
};

/// Those of everyday applications: what is one letter away from one of them is a slip.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
/// The others of IANA's registry of HTTP methods. CONNECT and PRI stand there too, and no route can answer them.
const REGISTERED: [&str; 32] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    // In no registry, and in use all the same: caches are told to forget.
    "PURGE",
    "BAN",
];

pub fn methods(field: Field<List<Text>>, c: &mut Context<'_>) -> Vec<Method> {
    let mut all: Vec<Method> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        let text = &value.value;
        if let Some(message) = fault(&value) {
            c.out.add(Code::BadMethod, place, message);
        } else if let Ok(method) = Method::from_bytes(text.as_bytes())
            && !all.contains(&method)
        {
            all.push(method);
        }
    }
    all
}

/// What is wrong with a method. Any token is one (RFC 9110 §9.1), and their case counts; but what is nearly a known one is a slip.
fn fault(text: &Text) -> Option<String> {
    let word = text.value.as_str();
    let known = || METHODS.into_iter().chain(REGISTERED);
    if matches!(word, "CONNECT" | "PRI") {
        return Some(format!("no route answers {word}: the gateway is no forward proxy, and the preface of HTTP/2 is no request"));
    }
    if known().any(|method| method == word) {
        return None;
    }
    let upper = word.to_uppercase();
    let token = Method::from_bytes(word.as_bytes()).is_ok();
    let other_case = known().any(|method| method == upper);
    let slip = METHODS.into_iter().any(|method| strsim::osa_distance(&upper, method) <= 1);
    if token && !other_case && !slip {
        return None;
    }
    let meant = if text.is_hidden() { String::new() } else { did_you_mean(&upper, known()) };
    Some(format!("{} is not a method{meant}", text.shown()))
}
