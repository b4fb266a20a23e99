// SPDX-License-Identifier: GPL-2.0

//! What is counted of a queue.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread counts and anybody reads.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        // One thread writes, so that no locked instruction is needed.
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one queue, named as in sysfs.
#[derive(Default)]
pub(crate) struct Statistics {
    /// Times that requests had to wait because too many were under way.
    pub(crate) oo_req: Counter,
    pub(crate) rd_req: Counter,
    pub(crate) wr_req: Counter,
    /// Flushes and barriers.
    pub(crate) f_req: Counter,
    /// Discards.
    pub(crate) ds_req: Counter,
    /// Sectors of 512 bytes read.
    pub(crate) rd_sect: Counter,
    pub(crate) wr_sect: Counter,
    /// Requests that were not legal, or named pages that were not granted.
    pub(crate) refused: Counter,
    /// Times that a disk's limits made a request wait.
    pub(crate) throttled: Counter,
    /// Grants that are mapped for good.
    pub(crate) persistent: Counter,
    /// Grants mapped for one request.
    pub(crate) mapped: Counter,
    /// Pages kept to map grants into.
    pub(crate) free: Counter,
}
