//! Pure rules: what to do, given what is known. Shells bring the time, the dice and the facts, and act.

pub mod backoff;
pub mod balance;
pub mod clientip;
pub mod header;
pub mod health;
pub mod limit;
pub mod restart;
pub mod route;
pub mod screen;
