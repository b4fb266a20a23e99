// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long to look for work before sleeping for it.
//!
//! Waking up costs a few microseconds, so a queue whose next event is never far away looks for it instead. The window
//! in which it looks grows while waits turn out to be short, and closes at the first long one: an idle disk sleeps. It
//! looks only for requests of the frontend: who waits for the disk hears from the kernel in the call that submits.

use std::time::Duration;

/// The first window, in nanoseconds.
const FIRST: u64 = 4_000;

/// The window, which follows what sleeps turn out to be. Times in nanoseconds.
#[derive(Debug)]
pub(crate) struct Polling {
    max: u64,
    window: u64,
}

impl Polling {
    /// Looks for at most `max`; zero is never. With one CPU there is nobody to wait for while looking.
    pub(crate) fn new(max: Duration) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
        Self { max: if alone { 0 } else { nanos(max) }, window: 0 }
    }

    /// How long to look now.
    #[inline]
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Learns from a wait, looking and sleeping together, of this length.
    pub(crate) fn waited(&mut self, nanos: u64) {
        self.window = if nanos < self.max { (self.window * 2).max(FIRST).min(self.max) } else { 0 };
    }
}

/// A duration in nanoseconds, as far as they go.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_open_the_window_and_a_long_one_closes_it() {
        let mut polling = Polling { max: 50_000, window: 0 };
        let mut seen = Vec::new();
        for _ in 0..6 {
            polling.waited(10_000);
            seen.push(polling.window());
        }
        assert_eq!(seen, [4_000, 8_000, 16_000, 32_000, 50_000, 50_000]);
        polling.waited(50_000);
        assert_eq!(polling.window(), 0);
    }

    #[test]
    fn off_stays_off() {
        let mut polling = Polling::new(Duration::ZERO);
        polling.waited(0);
        assert_eq!(polling.window(), 0);
    }
}
