//! What is kept on disk between runs: files written whole, and the lock that gives the state directory to one master.

pub mod atomic;
pub mod lock;
