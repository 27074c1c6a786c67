//! Which methods are answered: the route's own, or whatever the `bad-method` filter lets through.

use http::{HeaderValue, Method, StatusCode, header};

use super::{Ask, GateRoute, Verdict, cors};
use crate::{edge::refused, plan::ban::Offence, rules::screen};

/// A method that is not the route's: 405 with `Allow`. A route that lists methods overrules the filter for those; `HEAD` goes where `GET` goes.
pub(super) fn admit(ask: &Ask, route: &GateRoute) -> Verdict {
    // A browser asks about another method than it asks with, and is answered before it comes to the app.
    if route.cors.is_some() && cors::is_preflight(ask) {
        return Verdict::Pass;
    }
    let page = || ask.page(StatusCode::METHOD_NOT_ALLOWED).with(header::ALLOW, route.allowed.clone());
    if !route.methods.is_empty() {
        return if lists(&route.methods, ask.method) { Verdict::Pass } else { Verdict::Answer(page().by(refused::METHODS)) };
    }
    if screen::bad_method(ask.method) && route.bad_method.hit() {
        return Verdict::Answer(page().by(refused::BAD_METHOD).blame(Offence::BadMethod));
    }
    Verdict::Pass
}

fn lists(methods: &[Method], asked: &Method) -> bool {
    methods.contains(asked) || (*asked == Method::HEAD && methods.contains(&Method::GET))
}

/// The value of `Allow` for a route with these methods.
pub(super) fn allow_value(methods: &[Method]) -> HeaderValue {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if names.is_empty() {
        names.extend(screen::METHODS.iter().map(Method::as_str));
    } else if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    HeaderValue::try_from(names.join(", ")).expect("method names are header text because they are tokens")
}
