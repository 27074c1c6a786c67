//! Composition roots: the only places that know every room.

pub mod edge;
pub mod master;
pub mod survey;
