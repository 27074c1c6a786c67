//! `[site.route."PATH"]`: which requests of a site go where, and how they change on the way.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{access::Auth, cors::Cors, filter::Filters, wire};
use crate::vocab::{ByteSize, UpstreamName, ZoneName};

/// Shape: a site's value is already filled in where the route has none of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub path: PathMatch,
    pub action: Action,
    /// Prefix taken off the path before it goes to the upstream.
    pub strip: Option<String>,
    pub rewrite: Option<Rewrite>,
    /// All of them must admit the request.
    pub zones: Vec<ZoneName>,
    /// Empty: every method that the filters let through. Else 405 with `Allow`.
    #[serde(serialize_with = "wire::methods_out", deserialize_with = "wire::methods_in")]
    pub methods: Vec<Method>,
    pub request_headers: Vec<HeaderEdit>,
    /// After the site's `headers`; wins over what the app sends.
    pub response_headers: Vec<HeaderEdit>,
    pub body_limit: ByteSize,
    /// So much of a body is there before a process is chosen; `None`: nothing.
    pub buffer: Option<ByteSize>,
    pub filters: Filters,
    /// Own extensions that the `bad-uri` filter lets pass here, without the dot, as in `php` on a PHP route.
    pub extensions: Vec<String>,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    /// `None`: everyone comes in.
    pub auth: Option<Auth>,
    /// `None`: what the app says of other origins stands.
    pub cors: Option<Cors>,
}

/// The order of matching is nginx's: exact, then regexes in file order, then the longest prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    /// `= /path`
    Exact(String),
    /// `/path/`
    Prefix(String),
    /// `~ regex`; compiles: checked at load.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// An `[upstream]` or an app with a port or socket.
    Proxy { upstream: UpstreamName },
    /// `{path}` and `{query}` in `to` are filled in.
    Redirect {
        to: String,
        #[serde(with = "super::zone::status")]
        status: StatusCode,
    },
    Respond {
        #[serde(with = "super::zone::status")]
        status: StatusCode,
        body: String,
        content_type: String,
    },
    /// The site has no such route.
    NotFound,
}

/// `rewrite = ["^/old/(.*)", "/new/$1"]`, on the decoded path as received; the pattern compiles: checked at load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    pub pattern: String,
    pub to: String,
}

/// Sets a header, or removes it when there is no value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(String, Option<String>)", into = "(String, Option<String>)")]
pub struct HeaderEdit {
    pub name: HeaderName,
    pub value: Option<HeaderValue>,
    /// Only on answers over TLS (Strict-Transport-Security: RFC 6797 §7.2).
    pub tls_only: bool,
}

impl HeaderEdit {
    #[must_use]
    pub fn new(name: HeaderName, value: Option<HeaderValue>) -> Self {
        let tls_only = name == http::header::STRICT_TRANSPORT_SECURITY;
        Self { name, value, tls_only }
    }
}

impl TryFrom<(String, Option<String>)> for HeaderEdit {
    type Error = http::Error;
    fn try_from((name, value): (String, Option<String>)) -> Result<Self, http::Error> {
        Ok(Self::new(name.try_into()?, value.map(HeaderValue::try_from).transpose()?))
    }
}

impl From<HeaderEdit> for (String, Option<String>) {
    fn from(edit: HeaderEdit) -> Self {
        let value = edit.value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        (edit.name.as_str().to_owned(), value)
    }
}
