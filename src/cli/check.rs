//! `gateway check`, `gateway config show`, `gateway config schema`: what a configuration says and what is wrong with it, without running it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    config::{
        complaint::{Colours, Complaints},
        load::{self, NotFound},
        schema, show,
    },
    plan::Plan,
};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;

/// What `check` found.
#[derive(Debug)]
pub enum CheckOutcome {
    Good { path: PathBuf, plan: Box<Plan>, filled: Vec<String> },
    Bad(Box<Complaints>),
    Missing(NotFound),
}

/// Loads the configuration that is meant, with the environment of this process.
#[must_use]
pub fn check(config: Option<&Path>) -> CheckOutcome {
    let path = match load::find(config) {
        Ok(path) => path,
        Err(missing) => return CheckOutcome::Missing(missing),
    };
    match load::load_to_show(&path, &|name| std::env::var(name).ok()) {
        Ok((plan, filled)) => CheckOutcome::Good { path, plan: Box::new(plan), filled },
        Err(complaints) => CheckOutcome::Bad(Box::new(complaints)),
    }
}

impl CheckOutcome {
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Good { .. } => 0,
            Self::Bad(_) | Self::Missing(_) => BAD_CONFIGURATION,
        }
    }

    /// What is said of it: on stdout when good, else on stderr.
    #[must_use]
    pub fn text(&self, colours: Colours) -> String {
        match self {
            Self::Good { path, plan, filled: _ } => summary(path, plan),
            Self::Bad(complaints) => complaints.report(colours),
            Self::Missing(missing) => not_found(missing),
        }
    }

    /// Tells the user, and gives the exit code.
    #[must_use]
    pub fn say(&self, colours: Colours) -> u8 {
        let text = self.text(colours);
        match self {
            Self::Good { .. } => println!("{text}"),
            Self::Bad(_) | Self::Missing(_) => eprintln!("{text}"),
        }
        self.code()
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

fn summary(path: &Path, plan: &Plan) -> String {
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
    text
}
