// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;

use ring_proto::shared::Region;
use ring_proto::xen::{Errno, GrantRef};

use crate::{dev, hosted};

/// What the peer may do with a page, or this side with the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it only.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "reading",
            Self::ReadWrite => "writing",
        })
    }
}

/// Pages of this domain, granted to a peer. Dropping it ends the grants; pages that the peer still holds mapped are
/// reused only after it let go of them.
///
/// Regions taken from it are valid as long as it lives: whoever copies one keeps the grant too.
#[derive(Debug)]
pub struct Grant {
    region: Region,
    refs: Vec<GrantRef>,
    /// Ends the grants when dropped.
    _pages: GrantedPages,
}

#[derive(Debug)]
pub(crate) enum GrantedPages {
    Hosted(#[expect(dead_code, reason = "held for its drop")] hosted::GrantedPages),
    Device(#[expect(dead_code, reason = "held for its drop")] dev::GrantedPages),
}

impl Grant {
    pub(crate) fn new(region: Region, refs: Vec<GrantRef>, pages: GrantedPages) -> Self {
        Self { region, refs, _pages: pages }
    }

    /// The pages, adjacent.
    pub fn region(&self) -> Region {
        self.region
    }

    /// The reference of each page, in order.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }
}

/// A peer's pages, mapped here. Dropping it unmaps them.
///
/// Regions taken from it are valid as long as it lives: whoever copies one keeps the mapping too.
#[derive(Debug)]
pub struct Mapping {
    region: Region,
    backing: Option<Region>,
    /// Unmaps when dropped.
    _pages: MappedPages,
}

#[derive(Debug)]
pub(crate) enum MappedPages {
    Hosted(#[expect(dead_code, reason = "held for its drop")] hosted::MappedPages),
    Device(#[expect(dead_code, reason = "held for its drop")] dev::MappedPages),
}

impl Mapping {
    pub(crate) fn new(region: Region, backing: Option<Region>, pages: MappedPages) -> Self {
        Self { region, backing, _pages: pages }
    }

    /// The pages, adjacent.
    pub fn region(&self) -> Region {
        self.region
    }

    /// The larger stretch of memory that this mapping and all others of the same peer and access lie in, if there is
    /// one. It stays where it is as long as any of them lives, so it can be registered with the kernel once (as an
    /// io_uring fixed buffer). The kernel then pins all of it, and so gives memory also to pages that were never used;
    /// and it refuses one that is mapped for reading only.
    pub fn backing(&self) -> Option<Region> {
        self.backing
    }
}

/// Which way a [`GrantCopy`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the peer's page into local memory.
    FromPeer,
    /// From local memory into the peer's page.
    ToPeer,
}

/// One copy between a peer's page and local memory.
#[derive(Clone, Debug)]
pub struct GrantCopy {
    /// The peer's page.
    pub gref: GrantRef,
    /// Where in the page, in bytes. `offset + local.len()` is at most 4096.
    pub offset: u16,
    /// Local memory, at most a page.
    pub local: Region,
    /// Which way.
    pub direction: CopyDirection,
    /// What became of it.
    pub status: Result<(), Errno>,
}
