//! The real binary, real processes, and faults on purpose: what the gateway promises to the people in front of it and behind it.

mod crash;
mod forwarded;
mod harness;
mod hostile;
mod load;
mod pingora;
mod reload;
mod stop;
mod vices;
mod zones;
