//! The edge without its master: real sockets, real bytes, one worker thread in this process.

mod bans;
mod harness;
mod http1;
mod http2;
mod mutual;
mod neighbours;
mod tls;
