// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a queue counts.
//!
//! A queue owns its counters and is the only one that writes them, with relaxed stores: counting costs no locked
//! instruction, and whoever reads them (the statistics socket) disturbs nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// A number that one thread raises and any may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Raises it. Only the owner's thread may.
    #[inline]
    pub(crate) fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Sets it, for what goes up and down. Only the owner's thread may.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the counters of a queue once, for the queue ([`QueueStats`]) and for the reader ([`QueueReport`]).
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident,)*) => {
        /// The counters of one queue, as its thread raises them.
        #[derive(Debug, Default)]
        pub(crate) struct QueueStats {
            $($(#[doc = $doc])* pub(crate) $name: Counter,)*
            /// How long requests took.
            pub(crate) latency: Histogram,
        }

        /// The counters of one queue at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct QueueReport {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// How long requests took, from the moment they were taken to their answer.
            pub latency: Latency,
        }

        impl QueueStats {
            /// Reads all of them; each is exact, all together are not of one instant.
            pub(crate) fn report(&self) -> QueueReport {
                QueueReport { $($name: self.$name.get(),)* latency: self.latency.report() }
            }
        }

        /// Name, meaning and kind (`counter` or `gauge`) of each counter, in the order of [`QueueReport::values`].
        pub(crate) const COUNTERS: &[(&str, &str, &str)] =
            &[$((stringify!($name), concat!($($doc),*), stringify!($kind)),)*];

        impl QueueReport {
            /// The values of [`COUNTERS`], in its order.
            pub(crate) fn values(&self) -> [u64; COUNTERS.len()] {
                [$(self.$name),*]
            }
        }
    };
}

counters! {
    /// Read requests answered.
    reads: counter,
    /// Write requests answered, barriers included.
    writes: counter,
    /// Flush requests answered.
    flushes: counter,
    /// Barriers answered.
    barriers: counter,
    /// Discard requests answered.
    discards: counter,
    /// Sectors of 512 bytes read.
    read_sectors: counter,
    /// Sectors of 512 bytes written.
    written_sectors: counter,
    /// Sectors of 512 bytes discarded.
    discarded_sectors: counter,
    /// Requests answered with an error because the disk failed.
    io_errors: counter,
    /// Requests refused because they were not legal, or their grants were not.
    refused: counter,
    /// Passes of the event loop that took or answered requests.
    batches: counter,
    /// Passes that found nothing to do: a doorbell rang for what an earlier pass had seen, or a wait was over.
    empty_passes: counter,
    /// Calls of io_uring_enter.
    submissions: counter,
    /// Those of them that waited.
    sleeps: counter,
    /// Other system calls on the data path (grants mapped and copied, doorbells that io_uring cannot ring).
    other_syscalls: counter,
    /// Doorbells rung.
    doorbells: counter,
    /// Batches of responses that needed no doorbell.
    doorbells_saved: counter,
    /// Pages reached through a persistent grant.
    persistent_pages: counter,
    /// Pages copied by the hypervisor.
    copied_pages: counter,
    /// Grants mapped for good at this moment.
    mapped_grants: gauge,
    /// Grants let go to make room for others.
    evicted_grants: counter,
    /// Disk operations through the page cache because they were not aligned for direct I/O, or it is not to be had.
    buffered_ios: counter,
    /// Disk operations on fixed buffers.
    fixed_ios: counter,
    /// Times that a request waited for the disk's limits.
    throttled: counter,
    /// Requests taken and not answered at this moment.
    in_flight: gauge,
}

/// Steps of the histogram within each power of two.
const STEPS: u32 = 4;

/// Buckets of the histogram: up to 2^40 nanoseconds, 18 minutes.
const BUCKETS: usize = (41 * STEPS) as usize;

/// How often a duration fell into each bucket. Buckets are a quarter of a power of two wide.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    total: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Counter(AtomicU64::new(0)) }; BUCKETS], total: Counter::default() }
    }
}

/// The bucket that a duration belongs to.
#[inline]
fn bucket(nanos: u64) -> usize {
    let power = nanos.max(STEPS.into()).ilog2();
    let step = (nanos.max(STEPS.into()) >> (power - STEPS.ilog2())) as u32 - STEPS;
    ((power * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The first duration, in nanoseconds, above a bucket.
fn upper(bucket: usize) -> u64 {
    let (power, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    (u64::from(STEPS + step + 1) << power) / u64::from(STEPS)
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&self, nanos: u64) {
        if let Some(count) = self.buckets.get(bucket(nanos)) {
            count.add(1);
        }
        self.total.add(nanos);
    }

    fn report(&self) -> Latency {
        let buckets = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| count.get() > 0)
            .map(|(index, count)| (upper(index), count.get()))
            .collect();
        Latency { buckets, total_ns: self.total.get() }
    }
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// For each bucket that is not empty: the duration in nanoseconds that all in it are below, and how many.
    pub buckets: Vec<(u64, u64)>,
    /// Sum of all durations, in nanoseconds.
    pub total_ns: u64,
}

impl Latency {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The duration in nanoseconds that this share (0 to 1) of all were below, at most a fifth too high.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (below, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return *below;
            }
        }
        0
    }

    /// Adds what another queue recorded.
    pub fn merge(&mut self, other: &Self) {
        for &(below, count) in &other.buckets {
            match self.buckets.binary_search_by_key(&below, |bucket| bucket.0) {
                Ok(at) => self.buckets[at].1 += count,
                Err(at) => self.buckets.insert(at, (below, count)),
            }
        }
        self.total_ns += other.total_ns;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_lies_below_its_bucket_and_not_far(nanos in 4u64..1 << 40) {
            let above = upper(bucket(nanos));
            prop_assert!(nanos < above);
            prop_assert!(above - nanos <= nanos / 4 + 1, "{nanos} in the bucket below {above}");
        }
    }

    #[test]
    fn extreme_durations_have_a_bucket() {
        let histogram = Histogram::default();
        for nanos in [0, 1, 3, u64::MAX] {
            histogram.record(nanos);
        }
        assert_eq!(histogram.report().count(), 4);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let histogram = Histogram::default();
        (1..=1000u64).for_each(|micros| histogram.record(micros * 1000));
        let latency = histogram.report();
        let (median, tail) = (latency.percentile(0.5), latency.percentile(0.99));
        assert!((500_000..=625_000).contains(&median), "{median}");
        assert!((990_000..=1_240_000).contains(&tail), "{tail}");
        assert_eq!(latency.total_ns, 500_500_000);
        assert_eq!(Latency::default().percentile(0.5), 0);
    }

    #[test]
    fn merging_adds_up() {
        let (one, two) = (Histogram::default(), Histogram::default());
        [10, 20, 3000].iter().for_each(|&nanos| one.record(nanos));
        [10, 500].iter().for_each(|&nanos| two.record(nanos));
        let mut sum = one.report();
        sum.merge(&two.report());
        assert_eq!((sum.count(), sum.total_ns), (5, 3540));
        assert!(sum.buckets.is_sorted());
    }

    #[test]
    fn counters_and_values_go_together() {
        let stats = QueueStats::default();
        stats.reads.add(3);
        stats.in_flight.set(7);
        let report = stats.report();
        let named: Vec<_> = COUNTERS.iter().map(|counter| counter.0).zip(report.values()).collect();
        assert!(named.contains(&("reads", 3)) && named.contains(&("in_flight", 7)));
    }
}
