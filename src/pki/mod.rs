//! Certificates as bytes: what stands in them, and whether a key belongs to one.
//!
//! Pure: time is an argument, and whoever has the files brings their bytes. Stands on the ground because three rooms ask the same questions of the same bytes:
//! `config` at check, `acme` before a bundle is kept, `edge` before it is served.

pub mod bundle;
pub mod order;
pub mod pair;
pub mod remark;
pub mod text;

pub use bundle::{BundleError, certificates};
pub use pair::{Pair, PairError, Validity};
