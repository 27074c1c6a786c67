//! Locks that outlive a panic: who finds one poisoned takes it all the same.
//!
//! Pure. What is held under a lock is whole between two statements, or is put in order by the next who takes it; a thread that panicked must not end those that serve.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Until the bell is rung; it may wake for nothing.
pub fn wait<'a, T>(bell: &Condvar, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    bell.wait(held).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait`], but not for longer.
pub fn wait_for<'a, T>(bell: &Condvar, held: MutexGuard<'a, T>, most: Duration) -> MutexGuard<'a, T> {
    bell.wait_timeout(held, most).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_under_a_lock_ends_nobody_else() {
        let (mutex, shared) = (Mutex::new(1), RwLock::new(1));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (_one, _other) = (mutex.lock(), shared.write());
            panic!("while both are held");
        }));
        assert!(broken.is_err() && mutex.is_poisoned() && shared.is_poisoned());
        *lock(&mutex) += 1;
        *write(&shared) += 1;
        assert_eq!((*lock(&mutex), *read(&shared)), (2, 2));
    }
}
