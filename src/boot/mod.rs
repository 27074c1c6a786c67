//! Composition roots: only these know every room.

pub mod edge;
pub mod master;
