//! Composition roots: only these know every room.

pub mod edge;
//! Composition roots: the only places that know every room.

pub mod master;
