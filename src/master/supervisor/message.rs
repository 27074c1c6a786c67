//! What others ask of the supervisor.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::carried::Carried;
use crate::{
    master::{
        bag::Bag,
        obstacle::UpgradeError,
        words::{Order, Word},
    },
    plan::App,
    vocab::AppName,
};

/// What others ask of the supervisor.
#[derive(Debug)]
pub enum Message {
    Command {
        app: AppName,
        order: Order,
        tell: mpsc::Sender<Word>,
    },
    /// The release that an app was deployed is written down: configurations know of it from now on.
    Recorded {
        app: AppName,
    },
    /// The apps of a configuration that is now in force.
    Apps(BTreeMap<AppName, App>),
    /// A new release beside the old one; it is back if the new one fails. `tell` hears how it goes, and last `Done` or `Failed`.
    Deploy {
        app: AppName,
        spec: Arc<App>,
        tell: mpsc::Sender<Word>,
    },
    /// All apps, in waves: what others need stops after them.
    StopAll {
        done: oneshot::Sender<()>,
    },
    KillAll,
    /// Shows all of it as it stands, between two events.
    Export(Show),
    /// Whoever waits for an order is told that he must look for himself.
    HangUp,
}

/// Is given the supervisor's state and may not come back: a process that executes another binary does not.
pub struct Show(pub Box<dyn FnOnce(Shown) + Send>);

/// The state and the descriptors in it, or why it cannot be handed over now.
pub type Shown = Result<(Carried, Bag), UpgradeError>;

impl fmt::Debug for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Show")
    }
}
