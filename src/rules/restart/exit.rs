//! How a process ended.
//!
//! Pure; a part of the restart rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vocab::ByteSize;

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Ended because it used more than its `memory_max`, whoever saw to that; `None`: killed by the kernel because the machine had none left.
    Memory {
        max: Option<u64>,
    },
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Memory { max: Some(max) } => write!(f, "killed for memory: over memory_max {}", ByteSize(max)),
            Self::Memory { max: None } => f.write_str("killed for memory: the machine had none left"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        24 => "XCPU",
        31 => "SYS",
        _ => return None,
    })
}
