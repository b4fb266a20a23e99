// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a domain has mapped of others' grants, by handle.

use alloc::collections::BTreeMap;

use ring_proto::xen::{DomId, GrantRef};

use crate::machine::Writable;

/// Names a mapping of the domain that made it (`grant_handle_t`). From a guest it is an allegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The domain that granted.
    pub(crate) granter: DomId,
    pub(crate) gref: GrantRef,
    pub(crate) readonly: bool,
}

impl Mapping {
    pub(crate) fn writable(&self) -> Writable {
        if self.readonly { Writable::No } else { Writable::Yes }
    }
}

/// The mappings of a domain.
#[derive(Debug)]
pub(crate) struct Maptrack {
    mappings: BTreeMap<u32, Mapping>,
    /// No handle below it is free.
    lowest_free: u32,
    limit: u32,
}

impl Maptrack {
    /// Mappings in a frame of Xen's table, by which limits are told (`MAPTRACK_PER_PAGE`).
    const PER_FRAME: u32 = 256;

    pub(crate) fn new(max_frames: u32) -> Self {
        let limit = max_frames.saturating_mul(Self::PER_FRAME);
        Self { mappings: BTreeMap::new(), lowest_free: 0, limit }
    }

    /// The lowest free handle, if the limit is not reached.
    pub(crate) fn free_handle(&mut self) -> Option<Handle> {
        while self.mappings.contains_key(&self.lowest_free) {
            self.lowest_free += 1;
        }
        (self.lowest_free < self.limit).then_some(Handle(self.lowest_free))
    }

    pub(crate) fn insert(&mut self, handle: Handle, mapping: Mapping) {
        self.mappings.insert(handle.0, mapping);
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&Mapping> {
        self.mappings.get(&handle.0)
    }

    pub(crate) fn remove(&mut self, handle: Handle) {
        if self.mappings.remove(&handle.0).is_some() {
            self.lowest_free = self.lowest_free.min(handle.0);
        }
    }

    /// Takes all mappings, whose domain is no more.
    pub(crate) fn take(&mut self) -> BTreeMap<u32, Mapping> {
        self.lowest_free = 0;
        core::mem::take(&mut self.mappings)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &Mapping)> {
        self.mappings.iter().map(|(handle, mapping)| (Handle(*handle), mapping))
    }
}
