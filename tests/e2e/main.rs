//! The real binary, real processes, and faults on purpose: what the gateway promises to the people in front of it and behind it.

mod harness;

mod access;
mod acme;
mod acme_double;
mod admin;
mod config;
mod control;
mod crash;
mod deploy;
mod forwarded;
mod hold;
mod hostile;
mod jobs;
mod limits;
mod load;
mod log_tail;
mod logs;
mod many;
mod pingora;
mod real;
mod reload;
mod resume;
mod rolling;
mod scan;
mod selftest;
mod smuggling;
mod stop;
mod streaming;
mod systemd;
mod tls;
mod upgrade;
mod upstreams;
mod vices;
mod why;
mod zones;
