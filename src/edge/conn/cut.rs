//! Why a request that is being served is ended from outside: told to whatever is dropped with it.
//!
//! Shape: set and cleared within one turn of the task, in which all that serves the request is dropped.

use std::cell::Cell;

use crate::edge::refused::By;

thread_local! {
    static WHY: Cell<Option<By>> = const { Cell::new(None) };
}

/// What is dropped from here on is ended for this.
pub(super) fn begins(by: By) {
    WHY.set(Some(by));
}

pub(super) fn ends() {
    WHY.set(None);
}

/// `None`: nobody has ended it on purpose.
#[must_use]
pub fn why() -> Option<By> {
    let by = WHY.take();
    WHY.set(by.clone());
    by
}
