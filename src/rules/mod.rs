//! The rules: pure functions and small state machines that decide. Shells bring time, dice and sockets, and act.

pub mod clientip;
pub mod header;
pub mod limit;
pub mod route;
pub mod screen;
