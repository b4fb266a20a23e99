// SPDX-License-Identifier: MIT OR Apache-2.0

use hypervisor_client::Grant;
use ring_proto::shared::{AsRegion, PAGE_SIZE, Region, SharedMemory};
use ring_proto::xen::GrantRef;

use crate::SECTOR_SIZE;

/// Sectors in a page.
pub(crate) const PAGE_SECTORS: u32 = (PAGE_SIZE / SECTOR_SIZE) as u32;

/// Memory of a queue that the backend can reach, for the data of operations. It comes from [`Queue::buffer`], goes back
/// with [`Queue::release`], and is reached through [`Queue::copy_in`] and [`Queue::copy_out`]; a buffer that is dropped
/// instead stays taken as long as its queue lives.
///
/// [`Queue::buffer`]: crate::Queue::buffer
/// [`Queue::release`]: crate::Queue::release
/// [`Queue::copy_in`]: crate::Queue::copy_in
/// [`Queue::copy_out`]: crate::Queue::copy_out
#[derive(Debug)]
#[must_use = "a buffer that is not released stays taken"]
pub struct Buffer {
    /// First page in the pool.
    page: u32,
    sectors: u32,
}

/// Part of a [`Buffer`], to read into or write from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First sector in the pool.
    pub(crate) start: u32,
    /// Number of sectors.
    pub(crate) sectors: u32,
}

impl Buffer {
    /// Its length in sectors.
    pub fn sectors(&self) -> u32 {
        self.sectors
    }

    /// All of it.
    pub fn span(&self) -> Span {
        Span { start: self.page * PAGE_SECTORS, sectors: self.sectors }
    }

    /// The part of `sectors` sectors from sector `first`, or `None` if it does not lie inside.
    pub fn part(&self, first: u32, sectors: u32) -> Option<Span> {
        let inside = first.checked_add(sectors).is_some_and(|end| end <= self.sectors);
        inside.then(|| Span { start: self.page * PAGE_SECTORS + first, sectors })
    }
}

/// The granted pages of a queue, and which of them are taken.
#[derive(Debug)]
pub(crate) struct Pool {
    grant: Grant,
    taken: Vec<bool>,
}

impl Pool {
    pub fn new(grant: Grant) -> Self {
        let taken = vec![false; grant.refs().len()];
        Self { grant, taken }
    }

    /// Takes adjacent pages for this many sectors.
    pub fn take(&mut self, sectors: u32) -> Option<Buffer> {
        let pages = sectors.div_ceil(PAGE_SECTORS) as usize;
        if pages == 0 {
            return None;
        }
        let page = self.find(pages)?;
        self.taken.get_mut(page..page + pages)?.fill(true);
        Some(Buffer { page: page as u32, sectors })
    }

    /// The first run of `pages` free pages: small buffers gather at the front, and large ones find room behind.
    fn find(&self, pages: usize) -> Option<usize> {
        let mut begin = 0;
        for (page, taken) in self.taken.iter().enumerate() {
            if *taken {
                begin = page + 1;
            } else if page + 1 - begin == pages {
                return Some(begin);
            }
        }
        None
    }

    pub fn give_back(&mut self, buffer: &Buffer) {
        let first = buffer.page as usize;
        let pages = buffer.sectors.div_ceil(PAGE_SECTORS) as usize;
        if let Some(pages) = self.taken.get_mut(first..first + pages) {
            pages.fill(false);
        }
    }

    /// The grant of the page that this sector of the pool lies in.
    #[inline]
    pub fn gref(&self, sector: u32) -> GrantRef {
        self.grant
            .refs()
            .get((sector / PAGE_SECTORS) as usize)
            .copied()
            .unwrap_or(GrantRef::INVALID)
    }

    /// The memory of a buffer.
    #[inline]
    pub fn memory(&self, buffer: &Buffer) -> Option<Region<'_>> {
        self.grant
            .as_region()
            .part(buffer.page as usize * PAGE_SIZE, buffer.sectors as usize * SECTOR_SIZE)
    }

    /// Goes on in pages granted to another domain, with the same contents.
    pub fn move_to(&mut self, grant: Grant) {
        let mut page = [0; PAGE_SIZE];
        for (at, taken) in self.taken.iter().enumerate() {
            if *taken {
                self.grant.copy_out(at * PAGE_SIZE, &mut page);
                grant.copy_in(at * PAGE_SIZE, &page);
            }
        }
        self.grant = grant;
    }
}
