//! Pure rules: what to do, given what is known. Shells bring the time, the dice and the facts, and act.

pub mod backoff;
pub mod balance;
pub mod health;
pub mod restart;
