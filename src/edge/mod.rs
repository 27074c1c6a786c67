//! The edge: everything that touches the network.

pub mod gate;
pub mod reply;
