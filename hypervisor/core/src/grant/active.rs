// SPDX-License-Identifier: MIT OR Apache-2.0

//! The private record of a grant entry that is mapped.

use ring_proto::xen::DomId;

use crate::machine::{Gfn, Mfn};

/// How often an entry is mapped, by kind of access. No count grows beyond 128, as in Xen.
///
/// Xen counts mappings for CPUs and for devices apart. Here an entry, which is for one domain, never has both: a guest
/// maps for its CPUs, a process for its embedder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    read: u8,
    write: u8,
}

impl Pins {
    /// The count from which one more use is refused.
    const LIMIT: u8 = 128;

    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    pub(crate) fn any_write(self) -> bool {
        self.write > 0
    }

    /// How many mappings can only read, and how many can write.
    #[cfg(test)]
    pub(crate) fn counts(self) -> (u32, u32) {
        (self.read.into(), self.write.into())
    }

    fn count(&mut self, readonly: bool) -> &mut u8 {
        if readonly { &mut self.read } else { &mut self.write }
    }

    /// Whether one more use would be one too many.
    pub(crate) fn is_full(mut self, readonly: bool) -> bool {
        *self.count(readonly) >= Self::LIMIT
    }

    pub(crate) fn add(&mut self, readonly: bool) {
        let count = self.count(readonly);
        *count = count.saturating_add(1);
    }

    pub(crate) fn remove(&mut self, readonly: bool) {
        let count = self.count(readonly);
        debug_assert!(*count > 0, "more uses ended than began");
        *count = count.saturating_sub(1);
    }
}

/// What was found when the entry was first mapped. It stands until the last mapping ends. (A copy ends before anything
/// else happens, so nothing has to be kept of it.)
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) pins: Pins,
    /// The domain that uses it.
    pub(crate) grantee: DomId,
    pub(crate) mfn: Mfn,
    pub(crate) gfn: Gfn,
}
