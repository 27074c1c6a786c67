//! (under construction)

pub struct Prober;
