//! (room under construction)

pub mod check;
pub mod init;
