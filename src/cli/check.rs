//! `gateway check`, `gateway config show`, `gateway config schema`: what a configuration says and what is wrong with it, without running it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{
    control::{self, ControlError},
    whereabouts::Meant,
};
use crate::{
    boot::survey::{Running, Units, survey},
    config::{
        complaint::{Colours, Complaints},
        load::{self, Checked, NotFound},
        schema, show,
    },
    ipc::control::Request,
    plan::{self, HeaderBase, Plan},
};

/// What `check` found.
#[derive(Debug)]
pub enum CheckOutcome {
    Good {
        path: PathBuf,
        plan: Box<Plan>,
        filled: Vec<String>,
        /// What would not work on this machine; empty where nobody looked.
        warnings: Box<Complaints>,
    },
    Bad(Box<Complaints>),
    Missing(NotFound),
}

/// Whether the machine is looked at too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    Text,
    Machine,
}

/// Loads the configuration that is meant, with the environment of this process.
#[must_use]
pub fn check(config: Option<&Path>, depth: Depth) -> CheckOutcome {
    let path = match load::find(config) {
        Ok(path) => path,
        Err(missing) => return CheckOutcome::Missing(missing),
    };
    match load::load_to_check(&path, &|name| std::env::var(name).ok()) {
        Ok(Checked { plan, filled, index, mut out }) => {
            if depth == Depth::Machine {
                let file = plan.files.first().map_or(path.as_path(), PathBuf::as_path);
                let units = Units::of(Path::new("/"), file);
                survey(&plan, &index, &running(&plan.run), &units, &mut out);
            }
            CheckOutcome::Good { path, plan: Box::new(plan), filled, warnings: Box::new(out) }
        }
        Err(complaints) => CheckOutcome::Bad(Box::new(complaints)),
    }
}

/// Asks the gateway that runs with this `run` for its ports.
fn running(run: &Path) -> Running {
    let meant = Meant { socket: run.join("gateway.sock"), config: None };
    match control::ask(&meant, &Request::Status, &mut |_| {}) {
        Ok(status) => {
            let mut ports = BTreeSet::new();
            addresses(&status["master"], &mut ports);
            Running::Ports(ports)
        }
        Err(ControlError::NotRunning { .. }) => Running::Nothing,
        Err(_) => Running::Unknown,
    }
}

/// The ports of every listener and of every process that lives, wherever they stand in it.
fn addresses(value: &serde_json::Value, ports: &mut BTreeSet<u16>) {
    match value {
        serde_json::Value::Object(fields) => {
            // A process that is no more has its address, and not the port.
            let gone = fields.contains_key("pid") && fields.get("pid").is_some_and(serde_json::Value::is_null);
            let own = ["bound", "address"].iter().filter_map(|key| fields.get(*key)?.as_str()?.parse::<std::net::SocketAddr>().ok());
            ports.extend(own.filter(|_| !gone).map(|addr| addr.port()));
            fields.values().for_each(|value| addresses(value, ports));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| addresses(value, ports)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => {}
    }
}

impl CheckOutcome {
    /// What is said of it: on stdout when good, else on stderr.
    #[must_use]
    pub fn text(&self, colours: Colours) -> String {
        match self {
            Self::Good { path, plan, filled: _, warnings } => summary(path, plan, warnings.len()),
            Self::Bad(complaints) => complaints.report(colours),
            Self::Missing(missing) => not_found(missing),
        }
    }

    /// What would not work on this machine, to be said on stderr.
    #[must_use]
    pub fn warnings(&self, colours: Colours) -> Option<String> {
        match self {
            Self::Good { warnings, .. } if !warnings.is_empty() => Some(warnings.warnings(colours)),
            Self::Good { .. } | Self::Bad(_) | Self::Missing(_) => None,
        }
    }

    /// `config show`: the effective configuration, or what is wrong.
    ///
    /// Errors: the outcome itself, to be said.
    pub fn effective(self) -> Result<String, Self> {
        match self {
            Self::Good { plan, filled, .. } => Ok(show::without(&plan, &filled)),
            Self::Bad(_) | Self::Missing(_) => Err(self),
        }
    }
}

/// `config schema`.
#[must_use]
pub fn schema() -> String {
    format!("{:#}", schema::schema())
}

/// Which files were looked for, and how to get a first one.
#[must_use]
pub fn not_found(missing: &NotFound) -> String {
    format!("could not {missing}\n{}", missing.advice())
}

fn summary(path: &Path, plan: &Plan, warnings: usize) -> String {
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let processes: usize = plan.apps.values().map(|app| usize::from(app.procs.get())).sum();
    let mut text = format!("ok: {}, {}", counted(plan.sites.len(), "site"), counted(plan.apps.len(), "app"));
    if processes != plan.apps.len() {
        let plural = if processes == 1 { "process" } else { "processes" };
        // Writing to a String cannot fail.
        let _ = write!(text, " ({processes} {plural})");
    }
    let _ = write!(text, ", {}, {}", counted(plan.upstreams.len(), "upstream"), counted(plan.zones.len(), "zone"));
    let _ = write!(text, " in {}", path.display());
    if plan.files.len() > 1 {
        let _ = write!(text, " and {}", counted(plan.files.len() - 1, "included file"));
    }
    if warnings > 0 {
        let _ = write!(text, ", and {} about this machine", counted(warnings, "warning"));
    }
    for set in header_sets(plan).into_iter().chain(filter_sets(plan)) {
        let _ = write!(text, "\n{set}");
    }
    text
}

/// Which set of headers the sites have, a line for each set, and what the strict one would add.
fn header_sets(plan: &Plan) -> Vec<String> {
    let mut sets: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for site in &plan.sites {
        let plan::HeaderSet { base, own } = &site.headers;
        let key = match (base, own.is_empty()) {
            (HeaderBase::Standard, true) => {
                "\"standard\"; \"strict\" would also let pages load from their own host alone (no inline styles, data: images, eval, foreign scripts or fonts), be framed by nobody, use no camera, microphone or place, and hold sub-domains to https"
            }
            (HeaderBase::Standard, false) => {
                "a table over \"standard\"; until now a table lay over \"strict\": write base = \"strict\" into it to keep that"
            }
            (HeaderBase::Strict, true) => "\"strict\"",
            (HeaderBase::Strict, false) => "a table over \"strict\"",
            (HeaderBase::Off, true) => "none",
            (HeaderBase::Off, false) => "a table alone",
        };
        sets.entry(key).or_default().push(&site.name);
    }
    sets.into_iter().map(|(set, sites)| format!("headers of {}: {set}", some_of(&sites))).collect()
}

/// Which set of filters the sites have, a line for each set.
fn filter_sets(plan: &Plan) -> Vec<String> {
    let mut sets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for site in &plan.sites {
        let set =
            site.filters.name().map_or_else(|| "of their own (`gateway config show` has each)".to_owned(), |name| format!("\"{name}\""));
        sets.entry(set).or_default().push(&site.name);
    }
    sets.into_iter().map(|(set, sites)| format!("filters of {}: {set}", some_of(&sites))).collect()
}

/// The first few, and how many more.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
