//! Screen rule: which targets, methods and agents only an attacker has.

use http::Method;

/// What a hit was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    Traversal,
    Hidden,
    Extension,
    SqlInjection,
    CrossSite,
    Command,
    Template,
    Inclusion,
    Splitting,
    Null,
}

/// Why a target was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hit {
    pub family: Family,
}

/// The compiled patterns.
#[derive(Debug)]
pub struct Screen {}

impl Screen {
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// The first family that recognises `target`: path and query as received. `extensions` are the route's own, lower case, without the dot.
    #[must_use]
    pub fn judge(&self, _target: &[u8], _extensions: &[String]) -> Option<Hit> {
        None
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// The methods of ordinary traffic.
pub const METHODS: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Whether a method is none of [`METHODS`]: TRACE, CONNECT, DEBUG, WebDAV's, anything made up. A route that wants one lists it.
#[must_use]
pub fn bad_method(method: &Method) -> bool {
    !METHODS.contains(method)
}

/// Whether a user agent is that of a scanner.
#[must_use]
pub fn scanner(_agent: &[u8]) -> bool {
    false
}
