//! What is kept on disk between runs: files written whole, certificates and accounts, releases, and the lock that gives the state directory to one master.

pub mod atomic;
pub mod bans;
pub mod certs;
pub mod lock;
pub mod releases;
