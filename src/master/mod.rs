//! The master: binds and keeps the sockets, starts and watches every child, writes every log, answers the control socket.
//!
//! Never parses a byte from the network. Runs on one thread (a death signal follows the thread that started the child); only [`output`] has threads of its own.

pub mod as_user;
pub mod bag;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod control;
pub mod deploy;
pub mod edge_link;
pub mod elders;
mod errand;
mod guard;
pub mod handle;
pub mod handoff;
pub mod herald;
pub mod jobs;
pub mod kin;
pub mod launch;
pub mod materials;
pub mod nursery;
pub mod obituary;
pub mod obstacle;
pub mod outfit;
pub mod output;
pub mod places;
mod ports;
pub mod releases;
pub mod reload;
pub mod score;
pub mod shutdown;
pub mod sockets;
pub mod status;
pub mod supervisor;
pub mod switches;
pub mod table;
pub mod tickets;
pub mod upgrade;
mod usage;
mod whose;
pub mod words;

#[cfg(test)]
pub mod tests;
