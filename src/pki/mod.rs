//! Certificates and their keys: bytes in, a pair out that is checked to belong together.
//!
//! Pure: the clock is an argument.

pub mod pair;
