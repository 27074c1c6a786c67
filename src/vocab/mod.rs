//! Checked names, units, hosts and addresses: the words every other room speaks.
//!
//! Pure. A value of one of these types is right by construction; its parser is the only door, over ipc too (`serde(try_from)`).

pub mod addr;
pub mod chain;
pub mod host;
pub mod lock;
pub mod name;
pub mod network;
pub mod origin;
pub mod pace;
pub mod secret;
pub mod units;

pub use addr::{ServerAddr, ServerAddrError};
pub use chain::{causes, chain, is_denied, story};
pub use host::{Host, HostError, HostPattern};
pub use lock::lock;
pub use name::{AppName, NameError, UpstreamName, ZoneName};
pub use network::Network;
pub use origin::{OriginError, OriginPattern};
pub use pace::{Pace, PaceError};
pub use secret::Secret;
pub use units::{ByteSize, UnitError, parse_bytes, parse_duration};
