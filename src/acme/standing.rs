//! How it stands with each certificate that is looked after: for `gateway certs`, the status page and the metrics.
//!
//! Pure shapes. Units: Unix seconds.

use serde::{Deserialize, Serialize};

use crate::rules::renewal::{self, Validity};

/// One certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The site's name; for one on demand, the name that was asked for.
    pub site: String,
    /// Every name that it is for.
    pub names: Vec<String>,
    pub state: State,
    /// Of the certificate that is served; `None`: a stand-in of our own is.
    pub cert: Option<Cert>,
    /// What is done next, and when.
    pub next: Option<Next>,
    /// Of the attempts since the last that came to something.
    pub failures: u32,
    pub last_error: Option<Trouble>,
    /// A third of its life or less is left, or it has none: somebody should look.
    pub at_risk: bool,
}

impl Standing {
    /// As of now: a steward that is stuck must not keep the alarm from ringing.
    #[must_use]
    pub fn at_risk(&self, now: i64) -> bool {
        self.at_risk || self.cert.as_ref().is_none_or(|cert| renewal::at_risk(cert.validity(), now))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// None yet, and none under way.
    Waiting,
    /// An order is under way.
    Ordering,
    /// Served, and a handshake with ourselves has shown it.
    Served,
    /// On disk and in place, but our own handshake did not show it.
    Unproven,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ordering => "ordering",
            Self::Served => "served",
            Self::Unproven => "unproven",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cert {
    /// The common name of whoever signed it.
    pub issuer: String,
    /// Lower-case hex.
    pub serial: String,
    pub not_before: i64,
    pub not_after: i64,
}

impl Cert {
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity { not_before: self.not_before, not_after: self.not_after }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Next {
    pub at: i64,
    /// In words: "suggested by the CA", "two thirds of its life", "try 3 after a failure".
    pub why: String,
    /// The CA by name; with "(staging)" where it is a rehearsal.
    pub ca: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    pub at: i64,
    /// "could not order a certificate for …: …"
    pub text: String,
    /// What the user can do about it.
    pub advice: Option<String>,
}
