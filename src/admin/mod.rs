//! The admin listener: status page, JSON, health endpoints, metrics. It only looks; what changes things goes over the control socket.

pub mod api;
pub mod door;
pub mod health;
pub mod page;
pub mod server;
pub mod view;

pub use api::Source;
pub use server::Server;
