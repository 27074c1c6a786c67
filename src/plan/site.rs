//! `[[site]]`: what one set of host names serves.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{filter::Filters, headers::HeaderSet, maintenance::Maintenance, route::Route};
use crate::vocab::{Host, HostPattern};

/// Shape: `hosts` is not empty and disjoint from every other site's; `routes` always ends in an answer (no match: 404).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// The label in metrics and logs: the first of `host`, as written in the configuration; unique.
    pub name: String,
    /// `host` and `aliases`: served here.
    pub hosts: Vec<HostPattern>,
    /// Every exact `host` after the first: 308 to `canonical`, path and query kept.
    pub redirected: Vec<Host>,
    /// Where `redirected` go; `None` when the first host is a pattern.
    pub canonical: Option<Host>,
    pub tls: SiteTls,
    /// PEM of the CAs, one of which must have signed the client's certificate. `None`: clients show none.
    pub client_ca: Option<PathBuf>,
    /// On every answer; what the app itself sends wins.
    pub headers: HeaderSet,
    pub filters: Filters,
    /// Empty: everyone; else only these, everyone else gets 403. `deny` wins over `allow`.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub maintenance: Maintenance,
    /// In file order. `app = …` on the site itself is the route `/`.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SiteTls {
    /// Served on the http listeners without a redirect.
    Off,
    /// By ACME: one certificate for all names of the site.
    Acme,
    /// By ACME, name by name as clients ask for them, where `ask` (an http URL) says 200 to `?domain=NAME`. Every host is a pattern.
    OnDemand {
        ask: String,
    },
    /// Our own CA, for development.
    Internal,
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// A directory of pairs `NAME.pem`/`NAME.key` (or `fullchain.pem`/`privkey.pem` in sub-directories): the one that fits the SNI is served.
    Directory {
        dir: PathBuf,
    },
}
