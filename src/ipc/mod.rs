//! The socket pair between master and edge: messages, frames, descriptors.

pub mod codec;
pub mod control;
pub mod fds;
pub mod link;
pub mod message;
