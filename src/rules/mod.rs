//! The rules: pure functions and small state machines that decide. Shells bring time, dice and sockets, and act.
//!
//! Pure.

pub mod attempt;
pub mod backoff;
pub mod balance;
pub mod basic;
pub mod clientip;
pub mod floor;
pub mod header;
pub mod health;
pub mod htpasswd;
pub mod jail;
pub mod job;
pub mod limit;
pub mod password;
pub mod program;
pub mod release;
pub mod renewal;
pub mod restart;
pub mod route;
pub mod schedule;
pub mod screen;
pub mod shell;
pub mod suspicion;
pub mod underscore;
