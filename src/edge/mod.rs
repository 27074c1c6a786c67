//! The edge: everything that touches the network.

pub mod access;
pub mod blackbox;
pub mod conn;
pub mod engine;
pub mod exchange;
pub mod forward;
pub mod gate;
pub mod intake;
pub mod listen;
pub mod live;
pub mod proxy_protocol;
pub mod refused;
pub mod reply;
pub mod tls;
pub mod upstream;
pub mod warden;
pub mod witness;
