//! Decisions: pure state machines and matchers that the shells ask. Time and dice are arguments.

pub mod backoff;
pub mod restart;
