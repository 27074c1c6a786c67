//! Exit codes: what scripts rely on.
//!
//! Source: sysexits.h for 64, 69, 77 and 78.

use std::{error::Error, process::ExitCode};

use crate::vocab::is_denied;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Done,
    /// Refused or failed; the reason is on stderr.
    Failed,
    Usage,
    NotRunning,
    Permission,
    Configuration,
    /// Ctrl-C, as shells say it; what gateway had begun goes on.
    Interrupted,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::NotRunning => 69,
            Self::Permission => 77,
            Self::Configuration => 78,
            Self::Interrupted => 130,
        }
    }
}

impl Exit {
    /// What failed: for want of a permission, or otherwise.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        if is_denied(error) { Self::Permission } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
