//! The whole validated intent, immutable: what `config::compile` makes of the text and every shell works from.
//!
//! Pure. Cannot be wrong: every value was parsed at the door, every name resolves, no two listeners overlap.
//! Shape: travels to the edge over ipc as it is; what a reload may change of it says `diff`.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::vocab::{AppName, UpstreamName, ZoneName};

pub mod access;
pub mod acme;
pub mod app;
pub mod ban;
pub mod clear;
pub mod cors;
pub mod diff;
pub mod filter;
pub mod headers;
pub mod listener;
pub mod log;
pub mod maintenance;
pub mod route;
pub mod site;
#[cfg(test)]
pub mod testing;
pub mod upstream;
pub mod waves;
mod wire;
pub mod zone;

pub use access::{Auth, Basic, Forward, User};
pub use acme::{Acme, Ca, Challenge, Eab};
pub use app::{App, AppLimits, AppPort, BeforeStart, DeployPolicy, Hold, Live, Ready, Recycle, RestartPolicy, Schedule, Stop};
pub use ban::{Ban, BanMode};
pub use cors::Cors;
pub use filter::{Certainty, Families, Family, FamilyModes, FilterMode, Filters, HeaderFields, Hit};
pub use headers::{HeaderBase, HeaderSet};
pub use listener::{Admin, Limits, Listen, Timeouts, TlsPolicy, TlsVersion, Underscores};
pub use log::{AccessFormat, AccessLog, Log, LogFormat, LogLevel, Rotation};
pub use maintenance::{Maintenance, Page};
pub use route::{Action, HeaderEdit, PathMatch, Rewrite, Route};
pub use site::{Site, SiteTls};
pub use upstream::{Balance, Health, HealthKind, Passive, Retry, RetryOn, Server, Upstream, UpstreamHttp, UpstreamTimeouts};
pub use zone::{RateHeaders, Zone, ZoneKey, ZoneMode};

/// Everything `gateway.toml` and its includes say.
///
/// Shape: every `zone`, `upstream` and `app` that a site or route names exists in its map; an app that listens has no upstream of its name in `upstreams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Every file that was read, the main one first.
    pub files: Vec<PathBuf>,
    pub state: PathBuf,
    pub run: PathBuf,
    /// Who the edge becomes when started as root.
    pub user: String,
    pub workers: NonZeroUsize,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub listen: Listen,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub tls: TlsPolicy,
    /// `None`: `listen = "off"`.
    pub admin: Option<Admin>,
    pub log: Log,
    pub apps: BTreeMap<AppName, App>,
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
    pub zones: BTreeMap<ZoneName, Zone>,
    /// By the htpasswd file that `auth` names: read when the plan was made, for the edge may not read what root may.
    pub users: BTreeMap<PathBuf, Vec<User>>,
    /// `None`: nobody is banned but by hand.
    pub ban: Option<Ban>,
    /// In file order.
    pub sites: Vec<Site>,
}
