// SPDX-License-Identifier: GPL-2.0

//! What all devices of a driver share, found by a static.
//!
//! A static is never dropped, so what it holds when a module is unloaded is lost. A place is emptied first.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::{rcu, Arc, ArcBorrow};

/// Where a module has a value as long as it is loaded: a static.
pub struct Place<T: Send + Sync + 'static>(AtomicPtr<T>);

/// The value is found as long as this lives, and is there as long as anybody else has it.
pub struct Filled<T: Send + Sync + 'static>(&'static Place<T>);

impl<T: Send + Sync + 'static> Place<T> {
    /// A place with nothing there.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Puts the value there.
    ///
    /// # Errors
    ///
    /// `EBUSY` when there is one already.
    pub fn fill(&'static self, value: Arc<T>) -> Result<Filled<T>> {
        let value = Arc::into_raw(value).cast_mut();
        if self.0.compare_exchange(null_mut(), value, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            // SAFETY: It came from an `Arc` above, and nobody knows it.
            drop(unsafe { Arc::from_raw(value) });
            return Err(EBUSY);
        }
        Ok(Filled(self))
    }

    /// The value, if the place is [filled](Self::fill).
    pub fn get(&self) -> Option<Arc<T>> {
        let _reader = rcu::read_lock();
        let value = self.0.load(Ordering::Acquire);
        if value.is_null() {
            return None;
        }
        // SAFETY: It came from an `Arc`, which `Filled` keeps until all readers are gone.
        Some(unsafe { ArcBorrow::from_raw(value) }.into())
    }
}

impl<T: Send + Sync + 'static> Drop for Filled<T> {
    fn drop(&mut self) {
        let value = self.0 .0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: It is that of `fill`, and nobody finds it any more once all readers are gone.
        unsafe {
            bindings::synchronize_rcu();
            drop(Arc::from_raw(value));
        }
    }
}
