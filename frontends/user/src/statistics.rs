// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread counts and others look at.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: there is only one writer.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! statistics {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        /// What a queue has done since the disk was connected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Statistics {
            $($(#[$meta])* pub $name: u64,)*
        }

        /// [`Statistics`] while they are counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub $name: Counter,)*
        }

        impl Counters {
            pub fn snapshot(&self) -> Statistics {
                Statistics { $($name: self.$name.get(),)* }
            }
        }
    };
}

statistics! {
    /// Operations submitted.
    operations,
    /// Requests pushed to the ring; a large operation takes several.
    requests,
    /// Requests of them whose segments lay in a page of their own.
    indirect,
    /// Sectors read.
    sectors_read,
    /// Sectors written.
    sectors_written,
    /// Times that requests were shown to the backend.
    batches,
    /// Batches that rang the doorbell.
    doorbells,
    /// Times that answers came while the queue looked for them.
    polls,
    /// Times that the queue slept.
    sleeps,
    /// Requests sent anew to a backend that came back.
    resubmitted,
}
