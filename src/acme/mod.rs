//! Certificates that nobody has to look after: ordered, renewed, kept on disk, served and proven to be served.
//!
//! Shape: one actor, the steward, drives orders by `rules::renewal`. What the traffic threads need of it they read without a wait: pending challenges on the
//! [`challenge::Board`], certificates in the [`vault::Vault`]. Stands below the edge, which reads both.

pub mod explain;
pub mod handle;
pub mod standing;
