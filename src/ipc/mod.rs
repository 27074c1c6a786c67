//! The socket pair between master and edge: messages, frames, descriptors; and what else crosses from process to process.

pub mod codec;
pub mod control;
pub mod fds;
pub mod id;
pub mod link;
pub mod message;
pub mod why;
