// SPDX-License-Identifier: GPL-2.0

//! Bios on their way back from the contexts that they end in to the one context that looks after them.

use core::marker::PhantomData;
use core::pin::Pin;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;

use crate::bio::{Bio, BioBox, Owner};

/// A list that anybody adds to and one takes from, without a lock.
pub struct Finished<T: Owner> {
    newest: AtomicPtr<Bio<T>>,
    owns: PhantomData<BioBox<T>>,
}

// SAFETY: It owns the bios in it, which may be sent, and adding and taking are atomic.
unsafe impl<T: Owner> Send for Finished<T> {}
// SAFETY: As above.
unsafe impl<T: Owner> Sync for Finished<T> {}

impl<T: Owner> Finished<T> {
    /// An empty list.
    pub const fn new() -> Self {
        Self { newest: AtomicPtr::new(null_mut()), owns: PhantomData }
    }

    /// Adds a bio. Returns whether it is the only one, so that its taker may have to be woken. In any context.
    pub fn push(&self, bio: BioBox<T>) -> bool {
        // SAFETY: What is pinned stays so: the list makes pinned boxes of it again.
        let bio = KBox::into_raw(unsafe { Pin::into_inner_unchecked(bio) });
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: The bio is ours until the exchange below has put it into the list.
            unsafe { *(*bio).next.get() = newest };
            match self.newest.compare_exchange_weak(
                newest,
                bio,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return newest.is_null(),
                Err(now) => newest = now,
            }
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.newest.load(Ordering::SeqCst).is_null()
    }

    /// Takes all of them, in the order in which they came.
    pub fn take(&self) -> Taken<T> {
        let mut at = self.newest.swap(null_mut(), Ordering::AcqRel);
        let mut first = null_mut();
        while !at.is_null() {
            // SAFETY: All bios of the list are ours since the exchange.
            let next = unsafe { (*at).next.get() };
            // SAFETY: As above.
            let older = unsafe { core::mem::replace(&mut *next, first) };
            first = at;
            at = older;
        }
        Taken { first, owns: PhantomData }
    }
}

impl<T: Owner> Default for Finished<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Owner> Drop for Finished<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Bios taken from a list, the one that was added first first.
pub struct Taken<T: Owner> {
    first: *mut Bio<T>,
    owns: PhantomData<BioBox<T>>,
}

impl<T: Owner> Iterator for Taken<T> {
    type Item = BioBox<T>;

    fn next(&mut self) -> Option<BioBox<T>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: What is in this list is ours, and came from a pinned box.
        let bio = unsafe { KBox::from_raw(self.first) };
        // SAFETY: As above.
        self.first = unsafe { *bio.next.get() };
        Some(KBox::into_pin(bio))
    }
}

impl<T: Owner> Drop for Taken<T> {
    fn drop(&mut self) {
        for bio in self {
            drop(bio);
        }
    }
}
