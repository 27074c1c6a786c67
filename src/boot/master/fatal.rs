//! Why the master did not start, or does not go on.

use std::io;

use thiserror::Error;

use crate::{
    config::complaint::Complaints,
    master::{control::ControlError, obstacle::TakeOverError, places::PlaceError, sockets::BindError},
    store::lock::LockError,
    telemetry::log::InstallError,
    vocab::{is_denied, story},
};

/// Why the master did not start, or does not go on.
#[derive(Debug, Error)]
pub enum Fatal {
    #[error("{0}")]
    Configuration(Complaints),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Log(#[from] InstallError),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error("{what}")]
    Os {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("go on: a part of the master ended")]
    Broken,
}

impl Fatal {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Place(error) => error.advice(),
            Self::Lock(error) => error.advice().map(str::to_owned),
            Self::Bind(error) => error.advice().map(str::to_owned),
            Self::Control(error) => error.advice().map(str::to_owned),
            Self::TakeOver(error) => error.advice().map(str::to_owned),
            Self::Configuration(_) | Self::Log(_) | Self::Os { .. } | Self::Broken => None,
        }
    }

    /// 78 a bad configuration, 77 no permission, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 78,
            Self::Place(error) if error.is_configuration() => 78,
            Self::Bind(BindError::Denied { .. }) => 77,
            // Whatever it was that we were not let do.
            _ if is_denied(self) => 77,
            Self::Lock(_)
            | Self::Place(_)
            | Self::Bind(_)
            | Self::Control(_)
            | Self::Log(_)
            | Self::TakeOver(_)
            | Self::Os { .. }
            | Self::Broken => 1,
        }
    }

    /// What to print: the configuration's complaints as they are, anything else in one sentence with its causes.
    #[must_use]
    pub fn story(&self) -> String {
        if let Self::Configuration(complaints) = self {
            return complaints.to_string();
        }
        let mut text = story(self, None);
        if let Some(advice) = self.advice() {
            text.push_str(&format!("\n  {advice}"));
        }
        text
    }
}

pub(super) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Fatal {
    move |source| Fatal::Os { what, source }
}
