//! Pages of other origins: what they may ask is answered here, and every answer says who may read it.
//!
//! Shape: a preflight is answered after all gates and before `auth`, for browsers send no credentials with it. An origin that is not listed gets an answer without
//!        permission: that is how a browser is told no. What the app says of origins itself is taken away: two words on it would be none.
//! Source: the Fetch standard, §3.2 (CORS protocol), §4.8 (CORS-preflight fetch).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Ask, GateRoute, Verdict};
use crate::{edge::reply::Reply, plan, vocab::OriginPattern};

/// A longer list of headers is not repeated.
const LONGEST: usize = 1024;

/// `cors` of a route made ready.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<OriginPattern>,
    methods: HeaderValue,
    /// `None`: those that are asked for.
    headers: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
    expose: Option<HeaderValue>,
}

/// Whether a browser asks what a page may do.
pub(super) fn is_preflight(ask: &Ask) -> bool {
    *ask.method == Method::OPTIONS
        && ask.headers.contains_key(header::ORIGIN)
        && ask.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// 204 for a preflight where the route says who may ask; else it is the app's.
pub(super) fn admit(ask: &Ask, route: &GateRoute) -> Verdict {
    match &route.cors {
        Some(cors) if is_preflight(ask) => Verdict::Answer(cors.preflight(ask.headers)),
        Some(_) | None => Verdict::Pass,
    }
}

impl Cors {
    #[must_use]
    pub fn new(plan: &plan::Cors) -> Self {
        let plan::Cors { origins, methods, headers, credentials, max_age, expose } = plan;
        let listed = |names: Vec<&str>| {
            (!names.is_empty())
                .then(|| HeaderValue::try_from(names.join(", ")).expect("names and methods are header text because they are tokens"))
        };
        Self {
            origins: origins.clone(),
            methods: listed(methods.iter().map(Method::as_str).collect()).unwrap_or(HeaderValue::from_static("GET")),
            headers: listed(headers.iter().map(|name| name.as_str()).collect()),
            credentials: *credentials,
            max_age: HeaderValue::from(max_age.as_secs()),
            expose: listed(expose.iter().map(|name| name.as_str()).collect()),
        }
    }

    /// The one origin that is named and listed.
    fn admitted<'a>(&self, asked: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut named = asked.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (named.next(), named.next()) else { return None };
        self.origins.iter().any(|pattern| pattern.admits(origin.as_bytes())).then_some(origin)
    }

    /// Whether all may read, so that it does not matter who asks.
    fn is_public(&self) -> bool {
        self.origins.contains(&OriginPattern::Any)
    }

    /// Who asks is added by [`Cors::dress`], as to every answer.
    fn preflight(&self, asked: &HeaderMap) -> Reply {
        let reply = Reply::bare(StatusCode::NO_CONTENT)
            .with(header::VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        if self.admitted(asked).is_none() {
            return reply;
        }
        let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|wanted| are_names(wanted.as_bytes()));
        let reply = reply
            .with(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone())
            .with(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        match self.headers.as_ref().or(wanted) {
            Some(headers) => reply.with(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone()),
            None => reply,
        }
    }

    /// Says on an answer who may read it; `asked` are the request's headers.
    pub fn dress(&self, fields: &mut HeaderMap, asked: &HeaderMap) {
        for name in [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, header::ACCESS_CONTROL_EXPOSE_HEADERS] {
            fields.remove(name);
        }
        if !self.is_public() {
            fields.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.admitted(asked) else { return };
        let told = if self.is_public() { HeaderValue::from_static("*") } else { origin.clone() };
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, told);
        if self.credentials {
            fields.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            fields.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// A list of names, as browsers write it.
fn are_names(list: &[u8]) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(b);
    !list.is_empty() && list.len() <= LONGEST && list.iter().all(token)
}
