//! Certificates that nobody has to look after: ordered, renewed, kept on disk, served and proven to be served.
//!
//! Shape: one actor, the steward, drives orders by `rules::renewal`. What the traffic threads need of it they read without a wait: pending challenges on the
//! [`challenge::Board`], certificates in the [`vault::Vault`]. Stands below the edge, which reads both.

use crate::store::certs::CertsError;

pub mod account;
pub mod attempt;
pub mod challenge;
pub mod client;
pub mod demand;
pub mod explain;
pub mod handle;
pub mod order;
pub mod proof;
pub mod standing;
pub mod steward;
pub mod trouble;
pub mod vault;
pub mod ward;

/// Does something with the disk without holding up the runtime.
async fn disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, CertsError> + Send + 'static) -> Result<T, CertsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
