//! The table of all processes: the state of all apps, for the edge and for people.

use crate::ipc::message::AppTable;

/// The state of all apps, for the edge and for people.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Counts changes of state; what processes use is not one.
    pub version: u64,
    pub apps: AppTable,
}
