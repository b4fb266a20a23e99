// SPDX-License-Identifier: GPL-2.0

//! What a frontend may make this domain do for nothing: a few times at once, then once in a while.
//!
//! It is kept for a device and not for a connection, of which a frontend can make as many as it likes.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xen::thread::{ticks, HZ};

/// So often at once.
const BURST: u64 = 16;

/// Then once in so many ticks.
const PERIOD: u64 = HZ.saturating_mul(10);

/// An allowance.
pub(crate) struct Allowance {
    /// The tick at which all of it will be there again.
    whole: AtomicU64,
}

impl Allowance {
    pub(crate) fn new() -> Self {
        Self { whole: AtomicU64::new(0) }
    }

    /// What `whole` is after the next time, if there is one.
    fn next(whole: u64) -> Option<u64> {
        let now = ticks();
        let next = whole.max(now).saturating_add(PERIOD);
        (next.saturating_sub(now) <= BURST.saturating_mul(PERIOD)).then_some(next)
    }

    /// Whether there is any left.
    pub(crate) fn is_left(&self) -> bool {
        Self::next(self.whole.load(Relaxed)).is_some()
    }

    /// Takes one. Returns whether there was any left.
    pub(crate) fn take(&self) -> bool {
        self.whole.fetch_update(Relaxed, Relaxed, Self::next).is_ok()
    }
}
