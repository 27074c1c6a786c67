//! The master: binds and keeps the sockets, starts and watches every child, writes every log, answers the control socket.
//!
//! Never parses a byte from the network. Runs on one thread (a death signal follows the thread that started the child); only [`output`] has threads of its own.

pub mod child;
pub mod nursery;
pub mod output;
