//! `[log]`: what is written where.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::vocab::ByteSize;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    /// `None`: our own log and the apps' output go to stderr, the access log (if on) to stdout.
    pub dir: Option<PathBuf>,
    /// `None`: off.
    pub access: Option<AccessLog>,
    pub rotate: Rotation,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    pub format: AccessFormat,
    /// Share of requests that are logged, 0.0 to 1.0; answers of 500 and above are always logged.
    pub sample: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum AccessFormat {
    Json,
    /// As nginx and Apache write it.
    Combined,
}

/// When a log file is put aside: at `size` or at `age`, whichever comes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    pub size: ByteSize,
    pub age: Option<Duration>,
    pub keep: usize,
    pub compress: bool,
}
