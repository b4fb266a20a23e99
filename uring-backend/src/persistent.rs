// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages of frontends that stay mapped, and how many of them the process may have.
//!
//! Through `/dev/xen/gntdev` each is an area of its own in the address space, and a process has only so many
//! (`vm.max_map_count`, 65530 by default). Without them threads do not start and allocations fail: so pages of all disks
//! together take half, and what goes beyond is copied.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use hypervisor_client::{Access, Client, Mapping};
use ring_proto::xen::{DomId, GrantRef};

/// What a process may have if the kernel does not tell.
const MAX_MAP_COUNT: usize = 65_530;

/// How many pages may stay mapped.
static BUDGET: LazyLock<usize> = LazyLock::new(|| {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    limit.ok().and_then(|limit| limit.trim().parse().ok()).unwrap_or(MAX_MAP_COUNT) / 2
});

static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// A page that stays mapped until it is dropped.
#[derive(Debug)]
pub(crate) struct PersistentPage {
    pub(crate) mapping: Mapping,
    _permit: Permit,
}

impl PersistentPage {
    /// Maps it for reading and writing. `None` when it is not granted so, or there are too many.
    pub(crate) fn map(client: &dyn Client, peer: DomId, gref: GrantRef) -> Option<Self> {
        let permit = Permit::take(&MAPPED, *BUDGET)?;
        let mapping = client.map(peer, &[gref], Access::ReadWrite).ok()?;
        Some(Self { mapping, _permit: permit })
    }
}

/// The right to one more.
#[derive(Debug)]
struct Permit(&'static AtomicUsize);

impl Permit {
    fn take(count: &'static AtomicUsize, budget: usize) -> Option<Self> {
        let more = |count| (count < budget).then_some(count + 1);
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if taken.is_err() {
            static SAID: AtomicUsize = AtomicUsize::new(0);
            if SAID.fetch_add(1, Ordering::Relaxed) == 0 {
                log::warn!("{budget} pages are mapped; more are copied (sysctl vm.max_map_count)");
            }
        }
        taken.is_ok().then_some(Self(count))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let first = Permit::take(&COUNT, 2).unwrap();
        let _second = Permit::take(&COUNT, 2).unwrap();
        assert!(Permit::take(&COUNT, 2).is_none());
        drop(first);
        assert!(Permit::take(&COUNT, 2).is_some());
    }
}
