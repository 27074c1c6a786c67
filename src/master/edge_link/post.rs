//! What is sent to the edge.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use tokio::sync::{mpsc, watch};

use crate::{
    ipc::{
        link::{LinkError, Sender},
        message::{TicketKeys, ToEdge},
    },
    master::table::Table,
};

/// Something to send, with its descriptors.
pub(super) struct Parcel {
    pub(super) message: ToEdge,
    pub(super) descriptors: Vec<Arc<OwnedFd>>,
}

/// Sends what comes, and the table of apps and the ticket keys whenever they changed; before a drain the table that shows it.
pub(super) async fn write_all(
    mut to_edge: Sender<ToEdge>,
    mut parcels: mpsc::Receiver<Parcel>,
    mut table: watch::Receiver<Table>,
    mut tickets: watch::Receiver<TicketKeys>,
) -> Result<(), LinkError> {
    loop {
        tokio::select! {
            biased;
            parcel = parcels.recv() => {
                let Some(Parcel { message, descriptors }) = parcel else { return Ok(()) };
                if matches!(message, ToEdge::Drain(_)) && table.has_changed().unwrap_or(false) {
                    let apps = table.borrow_and_update().apps.clone();
                    to_edge.send(&ToEdge::Apps(apps), &[]).await?;
                }
                let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
                to_edge.send(&message, &borrowed).await?;
            }
            changed = table.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let apps = table.borrow_and_update().apps.clone();
                to_edge.send(&ToEdge::Apps(apps), &[]).await?;
            }
            changed = tickets.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let keys = tickets.borrow_and_update().clone();
                to_edge.send(&ToEdge::Tickets(keys), &[]).await?;
            }
        }
    }
}
