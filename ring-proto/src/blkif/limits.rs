// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Limits of a disk's rate, in requests and in bytes per second, with bursts.
//!
//! A `Bucket` is the token bucket in the form of the generic cell rate algorithm: its whole state is one moment, the
//! time at which the bucket will be full again. Each request moves that moment on by its price, once, and waits if the
//! moment was further ahead than a burst is long. So all queues of a disk share a bucket without a lock, a request
//! larger than a burst still passes once the debt before it is paid, and each waits for those that came before it only:
//! no queue goes hungry because another is quicker to ask again.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::xenbus::vbd::{BackendConfig, Limit};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The limits of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests.
    pub requests: Option<Limit>,
    /// Bytes moved by them.
    pub bytes: Option<Limit>,
}

impl From<&BackendConfig> for Rates {
    fn from(config: &BackendConfig) -> Self {
        Self { requests: config.iops, bytes: config.bandwidth }
    }
}

/// A token bucket that any thread takes from.
#[derive(Debug, Default)]
struct Bucket {
    /// Units per second, zero for no limit.
    per_second: AtomicU64,
    /// How far `full_at` may be ahead of now, in nanoseconds.
    burst_time: AtomicU64,
    /// When the bucket is full again, in nanoseconds of the caller's clock.
    full_at: AtomicU64,
}

impl Bucket {
    /// Returns whether it is another limit. One that stays keeps its debt.
    fn set(&self, limit: Option<Limit>) -> bool {
        let Limit { rate, burst } = limit.unwrap_or(Limit { rate: 0, burst: 0 });
        let burst_time = time_of(burst, rate);
        if (rate, burst_time) == (self.per_second.load(Relaxed), self.burst_time.load(Relaxed)) {
            return false;
        }
        self.burst_time.store(burst_time, Relaxed);
        self.per_second.store(rate, Relaxed);
        self.full_at.store(0, Relaxed);
        true
    }

    /// Whether a request would have to wait.
    fn owes(&self, now: u64) -> bool {
        let debt = self.full_at.load(Relaxed).saturating_sub(now);
        self.per_second.load(Relaxed) != 0 && debt > self.burst_time.load(Relaxed)
    }

    /// Takes a price, and returns when the request that pays it may go, if not at `now`.
    fn charge(&self, now: u64, units: u64) -> Option<u64> {
        let per_second = self.per_second.load(Relaxed);
        if per_second == 0 {
            return None;
        }
        let price = time_of(units, per_second);
        let moved = |full_at: u64| Some(full_at.max(now).saturating_add(price));
        // An update that never refuses cannot fail.
        let (Ok(full_at) | Err(full_at)) = self.full_at.fetch_update(Relaxed, Relaxed, moved);
        let (debt, burst_time) = (full_at.saturating_sub(now), self.burst_time.load(Relaxed));
        (debt > 0 && debt >= burst_time).then(|| full_at.wrapping_sub(burst_time).saturating_add(1))
    }
}

/// Nanoseconds that `units` take at a rate.
///
/// Without 128-bit division, which a kernel has not: of a rate above 2^34 a second the lowest bits do not count.
fn time_of(units: u64, per_second: u64) -> u64 {
    /// Bits that a number may have to be multiplied with [`SECOND`].
    const BITS: u32 = SECOND.leading_zeros();
    let rate = per_second.max(1);
    let (seconds, rest) = (units / rate, units % rate);
    let excess = (u64::BITS - rest.leading_zeros()).saturating_sub(BITS);
    let part = ((rest >> excess) * SECOND) / (rate >> excess).max(1);
    seconds.saturating_mul(SECOND).saturating_add(part)
}

/// What all queues of a disk share of its limits.
#[derive(Debug, Default)]
pub struct Limits {
    requests: Bucket,
    bytes: Bucket,
}

impl Limits {
    /// Limits of these rates, with full buckets.
    pub fn new(rates: Rates) -> Self {
        let limits = Self::default();
        limits.set(rates);
        limits
    }

    /// Changes the rates, and returns whether any is another one: then its bucket is full, and requests that wait are to
    /// look again. Who can have this called often gains nothing by it.
    pub fn set(&self, rates: Rates) -> bool {
        self.requests.set(rates.requests) | self.bytes.set(rates.bytes)
    }

    /// Whether there is any limit. When there is none, nobody needs to know the time.
    #[inline]
    pub fn any(&self) -> bool {
        self.requests.per_second.load(Relaxed) | self.bytes.per_second.load(Relaxed) != 0
    }

    /// Whether more was taken than there was, so that a request would have to wait.
    pub fn owe(&self, now: u64) -> bool {
        self.requests.owes(now) || self.bytes.owes(now)
    }

    /// Takes what one request of `bytes` costs.
    ///
    /// # Errors
    ///
    /// The time, in nanoseconds of the clock that `now` is of, at which the request may go. It is paid for.
    #[inline]
    pub fn take(&self, now: u64, bytes: u64) -> Result<(), u64> {
        let wait = self.requests.charge(now, 1).max(self.bytes.charge(now, bytes));
        wait.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::prelude::rust_2021::*;

    use super::*;

    /// Sends requests of `sectors` as fast as the limits let them from `start` for `seconds`, and counts them.
    fn drive(limits: &Limits, start: u64, seconds: u64, sectors: u64) -> u64 {
        let (mut now, mut done) = (start, 0);
        while now < start + seconds * SECOND {
            if let Err(until) = limits.take(now, sectors) {
                assert!(until > now, "a wait that ends before it began");
                now = until;
            }
            done += 1;
        }
        done
    }

    #[test]
    fn no_limit_never_waits() {
        let limits = Limits::default();
        assert!(!limits.any());
        assert!((0..10_000).all(|_| limits.take(0, u64::MAX).is_ok()));
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let limits = Limits::new(Rates {
            requests: Some(Limit { rate: 100, burst: 20 }),
            ..Rates::default()
        });
        let start = 5 * SECOND;
        let at_once = (0..1000).take_while(|_| limits.take(start, 8).is_ok()).count();
        assert!((20..=21).contains(&at_once), "{at_once} at once");
        let later = drive(&limits, start, 10, 8);
        assert!((990..=1010).contains(&later), "{later} in ten seconds");
    }

    #[test]
    fn a_pause_refills_no_more_than_a_burst() {
        let limits = Limits::new(Rates {
            requests: Some(Limit { rate: 1000, burst: 50 }),
            ..Rates::default()
        });
        drive(&limits, 0, 1, 1);
        let at_once = (0..1000).take_while(|_| limits.take(1000 * SECOND, 1).is_ok()).count();
        assert!((50..=51).contains(&at_once), "{at_once} at once");
    }

    #[test]
    fn the_slower_of_two_limits_decides() {
        let rates = Rates {
            requests: Some(Limit { rate: 1000, burst: 1 }),
            bytes: Some(Limit { rate: 800, burst: 8 }),
        };
        let done = drive(&Limits::new(rates), 0, 10, 8);
        assert!((999..=1003).contains(&done), "{done}: 800 sectors a second are 100 requests of 8");
    }

    #[test]
    fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
        let rates = Rates { bytes: Some(Limit { rate: 1000, burst: 8 }), ..Rates::default() };
        let limits = Limits::new(rates);
        assert_eq!(limits.take(0, 2000), Ok(()));
        let until = limits.take(0, 1).unwrap_err();
        assert!(until >= SECOND * 19 / 10, "two seconds' worth were taken, {until} ns to pay it");
    }

    #[test]
    fn a_new_rate_holds_from_then_on() {
        let limits =
            Limits::new(Rates { requests: Some(Limit { rate: 1, burst: 1 }), ..Rates::default() });
        while limits.take(0, 1).is_ok() {}
        assert!(limits.set(Rates::default()));
        assert_eq!(limits.take(0, 1), Ok(()));
    }

    #[test]
    fn debts_are_seen_until_they_are_paid() {
        let rates = Rates { bytes: Some(Limit { rate: 1000, burst: 8 }), ..Rates::default() };
        let limits = Limits::new(rates);
        assert!(!limits.owe(SECOND));
        // Two seconds' worth, whoever waits for it.
        let _ = limits.take(SECOND, 2000);
        assert!(limits.owe(SECOND) && limits.owe(SECOND * 29 / 10));
        assert!(!limits.owe(3 * SECOND));
        assert!(limits.set(Rates::default()) && !limits.owe(SECOND));
    }

    #[test]
    fn the_same_rate_once_more_fills_no_bucket() {
        let rates = Rates { requests: Some(Limit { rate: 100, burst: 20 }), ..Rates::default() };
        let limits = Limits::new(rates);
        let start = 5 * SECOND;
        let mut at_once = 0;
        for _ in 0..1000 {
            assert!(!limits.set(rates));
            at_once += u32::from(limits.take(start, 8).is_ok());
        }
        assert!((20..=21).contains(&at_once), "{at_once} at once");
    }

    proptest! {
        #[test]
        fn a_price_is_that_of_exact_arithmetic(units: u64, rate: u64, shift in 0u32..64) {
            let (units, rate) = (units >> shift, rate >> (63 - shift));
            let exact = u128::from(units) * u128::from(SECOND) / u128::from(rate.max(1));
            let exact = u64::try_from(exact).unwrap_or(u64::MAX);
            let off = time_of(units, rate).abs_diff(exact);
            prop_assert!(off <= 1 || off < SECOND >> 3, "{off}");
        }

        #[test]
        fn never_more_than_rate_and_burst(
            per_second in 1u64..100_000,
            burst in 1u64..10_000,
            gaps in prop::collection::vec(0u64..50_000_000, 1..400),
        ) {
            let limits = Limits::new(Rates { requests: Some(Limit { rate: per_second, burst }), ..Rates::default() });
            let (mut now, mut passed) = (SECOND, 0u64);
            for gap in gaps {
                now += gap;
                now = limits.take(now, 1).err().unwrap_or(now);
                passed += 1;
                let allowed = burst + 1 + per_second * (now - SECOND) / SECOND + 1;
                prop_assert!(passed <= allowed, "{passed} passed, {allowed} allowed");
            }
        }
    }
}
