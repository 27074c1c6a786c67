//! Names of methods, as routes and `cors` have them.

use http::Method;

use super::Context;
use crate::config::{
    complaint::{Code, did_you_mean, nearest},
    shape::{At, Field, List},
    tree::Text,
};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

pub fn methods(field: Field<List<Text>>, c: &mut Context<'_>) -> Vec<Method> {
    let mut all: Vec<Method> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        let text = &value.value;
        // Any token is a method, but one that is nearly a known one is a slip.
        let slip = !METHODS.contains(&text.as_str()) && nearest(&text.to_uppercase(), METHODS).is_some();
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if !slip && text.bytes().all(|b| !b.is_ascii_lowercase()) => {
                if !all.contains(&method) {
                    all.push(method);
                }
            }
            _ => {
                let upper = text.to_uppercase();
                let meant = if value.is_hidden() { String::new() } else { did_you_mean(&upper, METHODS) };
                c.out.add(Code::BadMethod, place, format!("{} is not a method{meant}", value.shown()));
            }
        }
    }
    all
}
