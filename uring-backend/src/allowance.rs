// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much a device may write to the log: a few lines at once, then one in a while.
//!
//! It is kept for a device and not for a connection, of which a frontend can make as many as it likes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many lines at once.
const BURST: u32 = 16;

/// Then one in so much time.
const PERIOD: Duration = Duration::from_secs(10);

/// Lines of the log about one device.
#[derive(Debug)]
pub(crate) struct Lines {
    /// About what its frontend does.
    pub(crate) frontend: Allowance,
    /// About its image.
    pub(crate) image: Allowance,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { frontend: Allowance::new(), image: Allowance::new() }
    }
}

/// An allowance.
#[derive(Debug)]
pub(crate) struct Allowance {
    began: Instant,
    /// When all of it will be there again, in milliseconds from the beginning.
    whole: AtomicU64,
}

impl Allowance {
    fn new() -> Self {
        Self { began: Instant::now(), whole: AtomicU64::new(0) }
    }

    /// Takes one line. Returns whether there was any left.
    pub(crate) fn take(&self) -> bool {
        self.take_at(self.began.elapsed())
    }

    fn take_at(&self, time: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, longest) = (millis(time), millis(PERIOD * BURST));
        let next = |whole: u64| {
            let next = whole.max(now).saturating_add(millis(PERIOD));
            (next - now <= longest).then_some(next)
        };
        self.whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_one_in_a_while() {
        let allowance = Allowance::new();
        let taken = |seconds, tries: u32| {
            (0..tries).filter(|_| allowance.take_at(Duration::from_secs(seconds))).count()
        };
        assert_eq!(taken(0, 100), 16);
        assert_eq!(taken(9, 100), 0);
        assert_eq!(taken(10, 100), 1);
        assert_eq!(taken(45, 100), 3);
        assert_eq!(taken(10_000, 100), 16, "no more than that are saved up");
    }
}
