//! What the supervisors of apps and jobs are told and tell: orders, the words to whoever waits, what a process lets be known, what the edge heard of it.

use std::{
    num::NonZeroU16,
    sync::{Arc, atomic::AtomicBool},
};

use crate::{
    ipc::{
        message::{Health, Incarnation, InstanceId, Tally},
        why::Suspect,
    },
    rules::restart::Exit,
    vocab::AppName,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    Start,
    Stop,
    Restart,
    /// So many processes, until the configuration asks for another number.
    Scale(NonZeroU16),
}

/// To whoever waits for an order. A full inbox loses progress, never the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    Progress(String),
    Done(String),
    Failed(String),
}

/// What a process of ours tells; unbounded, because each process tells a handful of times at most.
#[derive(Debug)]
pub enum Notice {
    Exited {
        id: InstanceId,
        incarnation: u64,
        exit: Exit,
    },
    /// What goes before its start is done, or why it failed.
    Prepared {
        id: InstanceId,
        incarnation: u64,
        result: Result<(), String>,
    },
    /// Its leader has ended, and these that came of it go on.
    Left {
        id: InstanceId,
        incarnation: u64,
        exit: Exit,
        names: Vec<String>,
    },
    /// It wrote the awaited line, or notified.
    Seen {
        id: InstanceId,
        incarnation: u64,
    },
    /// WATCHDOG=1. `told` is cleared when it has been heard: one of a process at a time.
    Pinged {
        id: InstanceId,
        incarnation: u64,
        told: Arc<AtomicBool>,
    },
}

/// What the edge lets be known of the processes behind it, and the link of the edge itself.
#[derive(Debug)]
pub enum Heard {
    Health {
        id: InstanceId,
        incarnation: Incarnation,
        health: Health,
    },
    Drained {
        id: InstanceId,
        incarnation: Incarnation,
    },
    /// Whether an instance that is not in rotation yet has answered what it was asked.
    Warmed {
        id: InstanceId,
        incarnation: Incarnation,
        result: Result<(), String>,
    },
    /// How many requests the instances have had.
    Tallies(Vec<Tally>),
    /// A process broke off with a request in its hands.
    Lost {
        id: InstanceId,
        incarnation: Incarnation,
        suspect: Suspect,
        /// It had answered others.
        answered: bool,
    },
    /// Requests find no process of an app.
    Wanted {
        app: AppName,
    },
    EdgeDied,
}
