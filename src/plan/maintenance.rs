//! `maintenance` of a site: a page in its place, for everyone but those who know a word.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::vocab::Secret;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Maintenance {
    /// As the configuration has it; `gateway maintenance` may say otherwise.
    pub on: bool,
    /// `None`: our own page.
    pub page: Option<Page>,
    /// Letters, digits, `-`, `_`, `.` and `~`. `None`: everyone gets the page.
    pub secret: Option<Secret<String>>,
    pub retry_after: Duration,
}

/// Read when the plan was made, for the edge may not read what root may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub file: PathBuf,
    pub html: String,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { on: false, page: None, secret: None, retry_after: RETRY_AFTER }
    }
}

/// When clients are told to come again, where nobody says.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);
