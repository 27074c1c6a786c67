//! `gateway config show`: the effective configuration.
