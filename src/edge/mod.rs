//! The edge: everything that touches the network.

pub mod upstream;
