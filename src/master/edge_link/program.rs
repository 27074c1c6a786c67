//! Which program is the edge.

use std::{collections::BTreeMap, ffi::OsString};

/// Of our environment, what an edge may see.
const ENVIRONMENT: [&str; 7] = ["PATH", "LANG", "LC_ALL", "TZ", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Which program is the edge: itself, but for tests.
#[derive(Clone, Debug)]
pub struct Program {
    pub argv: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
}

impl Program {
    /// This very binary, even if its file was replaced meanwhile.
    #[must_use]
    pub fn this() -> Self {
        let env = ENVIRONMENT.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        Self { argv: vec!["/proc/self/exe".into(), "edge".into()], env: env.collect() }
    }
}
