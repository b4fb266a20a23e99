// SPDX-License-Identifier: MIT OR Apache-2.0

//! Grant tables: what domains let each other do with their frames.
//!
//! A domain writes an entry into a page that it shares with the hypervisor: *this domain may access that frame of mine*.
//! The other domain names the entry by its reference and asks to map it, or to copy. The entry is judged then, and
//! *pinned*: a flag tells the granter that it is in use, and a private record ([`active`]) keeps the frame that was
//! found. Whatever the granter writes into its entry afterwards changes nothing until all mappings are gone.

mod active;
mod entry;
mod map;
mod maptrack;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use ring_proto::xen::{DomId, grant_table as abi};

pub use map::{MapGrant, MappedGrant};
pub use maptrack::Handle;

use crate::machine::{FrameUse, Machine, Mfn};
use crate::{DomainConfig, Hypervisor};
use active::Active;
use maptrack::Maptrack;
use ring_proto::xen::Errno;

/// Which of the two layouts a table's entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A domain's grant table, and what it has mapped of others'.
#[derive(Debug)]
pub(crate) struct GrantTable {
    pub(crate) version: Version,
    max_version: u32,
    max_frames: u32,
    /// Pages of entries.
    pub(crate) shared: Vec<Mfn>,
    /// Pages of status words; empty in version 1.
    pub(crate) status: Vec<Mfn>,
    /// Entries that are in use.
    pub(crate) active: BTreeMap<u32, Active>,
    pub(crate) maptrack: Maptrack,
}

impl GrantTable {
    pub(crate) fn new(config: &DomainConfig) -> Self {
        Self {
            version: Version::V1,
            max_version: config.max_grant_version,
            max_frames: config.max_grant_frames,
            shared: Vec::new(),
            status: Vec::new(),
            active: BTreeMap::new(),
            maptrack: Maptrack::new(config.max_maptrack_frames),
        }
    }

    /// How many references the table has room for.
    pub(crate) fn entries(&self) -> u32 {
        let per_page = match self.version {
            Version::V1 => abi::V1_PER_PAGE,
            Version::V2 => abi::V2_PER_PAGE,
        };
        u32::try_from(self.shared.len()).unwrap_or(u32::MAX).saturating_mul(per_page)
    }

    /// Takes all frames of the table, whose domain is no more.
    pub(crate) fn take_frames(&mut self) -> Vec<Mfn> {
        let mut frames = core::mem::take(&mut self.shared);
        frames.append(&mut self.status);
        frames
    }

    /// Domains that have an entry in use.
    pub(crate) fn grantees(&self) -> BTreeSet<DomId> {
        self.active.values().map(|active| active.grantee).collect()
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Frames of a domain's grant table, in order. With `grow_to` frames if it has fewer.
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives; `EINVAL` above the domain's limit; `ENOMEM` when the machine has no more frames,
    /// and the table then has as many as it could get.
    pub fn grant_table_frames(&mut self, id: DomId, grow_to: u32) -> Result<&[Mfn], Errno> {
        self.live(id).ok_or(Errno::ESRCH)?;
        self.grow_grant_table(id, grow_to)?;
        Ok(self.live(id).map_or(&[], |domain| &domain.grants.shared))
    }

    /// Sees to it that a domain's grant table has at least `frames` frames, and the status frames that go with them.
    pub(crate) fn grow_grant_table(&mut self, id: DomId, frames: u32) -> Result<(), Errno> {
        let table = &self.live(id).ok_or(Errno::ESRCH)?.grants;
        if frames > table.max_frames {
            return Err(Errno::EINVAL);
        }
        let (mut shared, mut status) = (table.shared.len(), table.status.len());
        let wanted = frames.max(u32::try_from(shared).unwrap_or(u32::MAX));
        let wanted_status = match table.version {
            Version::V1 => 0,
            Version::V2 => wanted.saturating_mul(abi::V2_PER_PAGE).div_ceil(abi::STATUS_PER_PAGE),
        };
        // Status frames first: an entry never exists without its status word.
        while status < wanted_status as usize {
            let mfn = self.allocate(id, FrameUse::GrantStatus(status as u32))?;
            self.live_mut(id).ok_or(Errno::ESRCH)?.grants.status.push(mfn);
            status += 1;
        }
        while shared < wanted as usize {
            let mfn = self.allocate(id, FrameUse::GrantTable(shared as u32))?;
            self.live_mut(id).ok_or(Errno::ESRCH)?.grants.shared.push(mfn);
            shared += 1;
        }
        Ok(())
    }
}
