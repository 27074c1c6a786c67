//! What every test stands on: the real binary in its own directory, clients that count every answer, upstreams and children named by their vice.

pub mod ca_double;
pub mod child;
pub mod client;
pub mod gateway;
pub mod h2raw;
pub mod load;
pub mod pebble;
pub mod proc;
pub mod raw;
pub mod tls;
pub mod upstream;
pub mod wait;
pub mod ws;

pub use client::{Answer, Conn, get, send};
pub use gateway::{Gateway, binary, demo_app};
pub use load::Load;
pub use wait::{eventually, heavy};
