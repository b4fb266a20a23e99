// SPDX-License-Identifier: MIT OR Apache-2.0

//! Grant tables: what domains let each other do with their frames.
//!
//! A domain writes an entry into a page that it shares with the hypervisor: *this domain may access that frame of
//! mine*. The other domain names the entry by its reference and asks to map it, or to copy. The entry is judged then,
//! and *pinned*: a flag tells the granter that it is in use, and a private record (`active`) keeps the frame that was
//! found. Whatever the granter writes into its entry afterwards changes nothing until all mappings are gone.

mod active;
mod copy;
mod entry;
mod map;
mod maptrack;
mod table;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use ring_proto::xen::DomId;

pub use copy::CopyEnd;
pub use map::{MapGrant, MappedGrant};
pub use maptrack::Handle;
pub use table::TableSize;

use crate::DomainConfig;
use crate::machine::Mfn;
use active::Active;
use maptrack::Maptrack;

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
