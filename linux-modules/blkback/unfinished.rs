// SPDX-License-Identifier: GPL-2.0

//! Devices that the driver let go of while their disk still had requests of them.
//!
//! Their rings still get answers. Should the bus find a device of the same name again before that has ended, two would
//! serve one ring.

use core::sync::atomic::{AtomicU64, Ordering};

/// Most of them at one time. Each is a disk that hangs.
const MOST: usize = 64;

static UNFINISHED: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// A frontend's domain and its number for a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(u64);

impl Id {
    pub(crate) fn new(domain: u16, device: u32) -> Self {
        Self(1 << 63 | u64::from(domain) << 32 | u64::from(device))
    }

    /// Takes note of it. Returns whether there was room.
    pub(crate) fn add(self) -> bool {
        UNFINISHED.iter().any(|place| {
            place.compare_exchange(0, self.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    /// It has ended.
    pub(crate) fn remove(self) {
        let found = |place: &&AtomicU64| {
            place.compare_exchange(self.0, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        };
        let _ = UNFINISHED.iter().find(found);
    }

    /// Whether an earlier one has not ended.
    pub(crate) fn is_there(self) -> bool {
        UNFINISHED.iter().any(|place| place.load(Ordering::SeqCst) == self.0)
    }
}
