// SPDX-License-Identifier: MIT OR Apache-2.0

//! The private record of a grant entry that is in use.

use ring_proto::xen::DomId;

use crate::machine::{Gfn, Mfn};

/// Ways to use a grant. A mapping has one or two (`GNTMAP_host_map`, `GNTMAP_device_map`), a copy one for its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) host: bool,
    pub(crate) device: bool,
}

impl Ways {
    pub(crate) fn any(self) -> bool {
        self.host || self.device
    }

    /// References to the frame that these ways are.
    pub(crate) fn count(self) -> usize {
        usize::from(self.host) + usize::from(self.device)
    }
}

/// How often an entry is in use, by way and kind of access. Each count stays below 256, and none grows beyond 128,
/// as in Xen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    host_read: u8,
    host_write: u8,
    device_read: u8,
    device_write: u8,
}

impl Pins {
    /// The count from which one more use is refused.
    const LIMIT: u8 = 128;

    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    pub(crate) fn any_write(self) -> bool {
        self.host_write > 0 || self.device_write > 0
    }

    /// All uses together.
    pub(crate) fn total(self) -> u32 {
        [self.host_read, self.host_write, self.device_read, self.device_write]
            .into_iter()
            .map(u32::from)
            .sum()
    }

    fn counts(&mut self, ways: Ways, readonly: bool) -> [Option<&mut u8>; 2] {
        let (host, device) = if readonly {
            (&mut self.host_read, &mut self.device_read)
        } else {
            (&mut self.host_write, &mut self.device_write)
        };
        [ways.host.then_some(host), ways.device.then_some(device)]
    }

    /// Whether one more use of these ways would be one too many.
    pub(crate) fn is_full(mut self, ways: Ways, readonly: bool) -> bool {
        self.counts(ways, readonly).into_iter().flatten().any(|count| *count >= Self::LIMIT)
    }

    pub(crate) fn add(&mut self, ways: Ways, readonly: bool) {
        for count in self.counts(ways, readonly).into_iter().flatten() {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn remove(&mut self, ways: Ways, readonly: bool) {
        for count in self.counts(ways, readonly).into_iter().flatten() {
            debug_assert!(*count > 0, "more uses ended than began");
            *count = count.saturating_sub(1);
        }
    }
}

/// What was found when the entry was first pinned. It stands until the last use ends.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) pins: Pins,
    /// The domain that uses it.
    pub(crate) grantee: DomId,
    pub(crate) mfn: Mfn,
    pub(crate) gfn: Gfn,
    /// Where in the page the grant begins, and how many bytes it has.
    pub(crate) start: u16,
    pub(crate) length: u16,
    /// Only a part of the page is granted.
    pub(crate) sub_page: bool,
}
