// SPDX-License-Identifier: GPL-2.0

//! The module's parameters, with names, types, modes and defaults of Linux's driver.

use kernel::prelude::*;
use ring_proto::ring::MAX_ORDER;
use ring_proto::xenbus::vbd::MAX_QUEUES;

xen::module_params! {
    static MAX_BUFFER_PAGES: int = 1024, "max_buffer_pages", 0o644,
        "Maximum number of free pages to keep for each queue";
    static MAX_PERSISTENT_GRANTS: int = 1056, "max_persistent_grants", 0o644,
        "Maximum number of grants of each queue to map persistently";
    static PERSISTENT_GRANT_UNUSED_SECONDS: uint = 60, "persistent_grant_unused_seconds", 0o644,
        "Seconds that a persistent grant that is not used stays mapped, 0 for any time";
    static MAX_QUEUES_OF_DISK: uint = 0, "max_queues", 0o644,
        "Maximum number of queues of a disk; by default, the number of CPUs";
    static MAX_RING_PAGE_ORDER: int = 4, "max_ring_page_order", 0o444,
        "Maximum number of pages of a ring, as a power of two";
    static LOG_STATS: int = 0, "log_stats", 0o644,
        "Whether each queue's counters are logged every 10 seconds";
    static FEATURE_PERSISTENT: bool = true, "feature_persistent", 0o644,
        "Whether persistent grants are offered";
    static BUFFER_SQUEEZE_DURATION_MS: int = 10, "buffer_squeeze_duration_ms", 0o644,
        "Milliseconds that no free pages are kept for when memory is short";
}

/// Most of what a parameter may make a queue keep, whatever it is set to.
const MOST_PAGES: i32 = 1 << 16;

/// To be called when the module is loaded: sysfs shows what is in force.
pub(crate) fn settle() {
    if MAX_QUEUES_OF_DISK.get() == 0 {
        MAX_QUEUES_OF_DISK.set(xen::thread::online_cpus());
    }
    if !(0..=MAX_ORDER as i32).contains(&MAX_RING_PAGE_ORDER.get()) {
        pr_info!("max_ring_page_order is at most {MAX_ORDER}\n");
        MAX_RING_PAGE_ORDER.set(MAX_ORDER as i32);
    }
}

pub(crate) fn max_buffer_pages() -> usize {
    MAX_BUFFER_PAGES.get().clamp(0, MOST_PAGES) as usize
}

pub(crate) fn max_persistent_grants() -> usize {
    MAX_PERSISTENT_GRANTS.get().clamp(0, MOST_PAGES) as usize
}

pub(crate) fn persistent_grant_unused_seconds() -> u64 {
    PERSISTENT_GRANT_UNUSED_SECONDS.get().into()
}

pub(crate) fn max_queues() -> u32 {
    MAX_QUEUES_OF_DISK.get().clamp(1, MAX_QUEUES as u32)
}

pub(crate) fn max_ring_page_order() -> u32 {
    MAX_RING_PAGE_ORDER.get().clamp(0, MAX_ORDER as i32) as u32
}

pub(crate) fn log_stats() -> bool {
    LOG_STATS.get() != 0
}

pub(crate) fn feature_persistent() -> bool {
    FEATURE_PERSISTENT.get()
}

pub(crate) fn buffer_squeeze_duration_ms() -> u32 {
    BUFFER_SQUEEZE_DURATION_MS.get().max(0) as u32
}
