//! Upstreams at run time: who is up, who takes the next request, what may be tried again, and the probes that find out.
//!
//! Shape: [`Pools`] (by name) → [`Pool`] (one `[upstream]` or app) → [`Server`] (one address or instance) → [`Lease`] (one request on it).
//!        A reload builds new `Pools` that carry over what they can; requests keep the servers they hold.
//! Units: every `now` is [`Pools::now`].

mod budget;
mod check;
mod choice;
mod group;
pub mod hold;
mod instances;
mod lease;
mod pool;
mod pools;
mod probe;
mod question;
mod server;
mod silence;
mod suspect;
mod target;
#[cfg(test)]
mod testing;
pub mod waits;

pub use budget::Move;
pub use choice::Choice;
pub use group::Group;
pub use hold::{Place, Room};
pub use lease::{Asked, Lease};
pub use pool::{Pool, PoolView, ServerView, Unavailable};
pub use pools::Pools;
pub use probe::Prober;
pub use server::{PeerAddr, Server, ServerId};
pub use waits::End;
