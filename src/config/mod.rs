//! Configuration: from the text of gateway.toml to a plan, with every complaint on the way.
//!
//! `load` reads → `tree` places → `file` shapes → `compile` means → [`Plan`](crate::plan::Plan). The only room that knows TOML.

pub mod compile;
pub mod complaint;
pub mod defaults;
pub mod file;
pub mod index;
pub mod load;
pub mod schema;
mod shape;
pub mod show;
mod tree;
mod twice;
mod value;
