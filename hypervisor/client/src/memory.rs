// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::Arc;

use ring_proto::shared::{AsRegion, Region};
use ring_proto::xen::{Errno, GrantRef};

use crate::mapped::{Mapped, Memory};
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
/// The pages lie side by side, as [shared memory](ring_proto::shared::SharedMemory) that a ring can own. What is
/// borrowed of them cannot outlive the grant:
///
/// ```compile_fail,E0505
/// # use hypervisor_client::Grant;
/// use ring_proto::shared::{AsRegion, SharedMemory};
///
/// fn late(grant: Grant) -> u32 {
///     let region = grant.as_region();
///     drop(grant);
///     region.load(0)
/// }
/// ```
#[derive(Debug)]
pub struct Grant {
    memory: Memory,
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
    pub(crate) fn new(memory: Memory, refs: Vec<GrantRef>, pages: GrantedPages) -> Self {
        Self { memory, refs, _pages: pages }
    }

    /// The reference of each page, in order.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }
}

impl AsRegion for Grant {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        self.memory.as_region()
    }
}

/// A peer's pages, mapped here. Dropping it unmaps them.
///
/// The pages lie side by side, as [shared memory](ring_proto::shared::SharedMemory) that a ring can own. Writing to
/// pages that were mapped for reading only ends the process. What is borrowed of them cannot outlive the mapping:
///
/// ```compile_fail,E0505
/// # use hypervisor_client::Mapping;
/// use ring_proto::shared::{AsRegion, SharedMemory};
///
/// fn late(mapping: Mapping) -> u32 {
///     let region = mapping.as_region();
///     drop(mapping);
///     region.load(0)
/// }
/// ```
#[derive(Debug)]
pub struct Mapping {
    /// Before `_pages`: it is unmapped before the hypervisor hears of it.
    memory: Memory,
    /// Whether others lie in the same mapping.
    shared: bool,
    /// Unmaps when dropped.
    _pages: MappedPages,
}

#[derive(Debug)]
pub(crate) enum MappedPages {
    Hosted(#[expect(dead_code, reason = "held for its drop")] hosted::MappedPages),
    Device(#[expect(dead_code, reason = "held for its drop")] dev::MappedPages),
}

impl Mapping {
    pub(crate) fn new(memory: Memory, shared: bool, pages: MappedPages) -> Self {
        Self { memory, shared, _pages: pages }
    }

    /// The larger stretch of memory that this mapping and all others of the same peer and access lie in, if there is
    /// one. It can be registered with the kernel once (as an io_uring fixed buffer) for all of them. The kernel then
    /// pins all of it, and so gives memory also to pages that were never used; and it refuses one that is mapped for
    /// reading only.
    pub fn backing(&self) -> Option<&Arc<Mapped>> {
        self.shared.then(|| self.memory.owner())
    }
}

impl AsRegion for Mapping {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        self.memory.as_region()
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
pub struct GrantCopy<'a> {
    /// The peer's page.
    pub gref: GrantRef,
    /// Where in the page, in bytes. `offset + local.len()` is at most 4096.
    pub offset: u16,
    /// Local memory, at most a page.
    pub local: Region<'a>,
    /// Which way.
    pub direction: CopyDirection,
    /// What became of it.
    pub status: Result<(), Errno>,
}
