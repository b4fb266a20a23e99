// SPDX-License-Identifier: GPL-2.0

//! How a queue reaches the pages that its frontend granted: mapped for good where the frontend reuses them, else for
//! the time of a request, all of a batch in one hypercall.

use block::bio::MAX_PAGES;
use kernel::prelude::*;
use ring_proto::blkif::grants::{index_len, Entry, GrantTable};
use ring_proto::blkif::{descriptors, Indirect, Problem, RawSegment, Segment, MAX_INDIRECT_PAGES};
use ring_proto::shared::{SharedMemory, PAGE_SIZE};
use ring_proto::xen::grant_table::GrantError;
use xen::map::{Access, FreePage, MapBatch, Mapped, MappedPage, PagePool, UnmapBatch};
use xen::thread::{ticks, HZ};
use xen::{DomId, GrantRef};

use super::job::ONCE;
use crate::params;

/// Pages that are mapped by one hypercall at most: those of the largest request.
const BATCH: usize = MAX_PAGES;

/// Pages that are mapped for one request each, at most, at one time; then requests wait. The frontend's own limit
/// would be all slots of its rings times the segments of the largest request.
const MOST_ONCE: usize = 8 * MAX_PAGES;

/// Grants that stay mapped. A page that is in use is not in its entry.
type Table = GrantTable<VVec<Entry<Option<MappedPage>>>, VVec<u32>>;

/// How a page is reached.
pub(super) enum Reach {
    /// It was mapped already.
    Mapped(MappedPage, u32),
    /// It will be, with the batch.
    Batched,
    /// It would be, but another request has it now, and may have it no longer than until the queue has looked.
    InUse,
}

/// Why a request's pages cannot be reached.
pub(super) enum Unreachable {
    /// A page was not granted.
    NotGranted(GrantRef, GrantError),
    /// Segments in the pages of an indirect request are not legal.
    Illegal(Problem),
    /// There is no memory.
    NoMemory,
}

/// The pages of one queue's frontend.
pub(super) struct Pages {
    peer: DomId,
    table: Option<Table>,
    pool: PagePool,
    map: MapBatch,
    descriptors: MapBatch,
    unmap: UnmapBatch,
    /// Pages in the hands of requests that are mapped for them only, or will be.
    once: usize,
    /// A page of descriptors, copied out.
    copy: KBox<[u8; PAGE_SIZE]>,
    /// The coarse clock at the beginning of this pass.
    now: u64,
}

impl Pages {
    /// `persistent` is the limit of grants that stay mapped, if the frontend reuses any.
    pub(super) fn new(peer: DomId, persistent: Option<usize>) -> Result<Self> {
        let table = match persistent {
            None | Some(0) => None,
            Some(limit) => {
                let mut entries = VVec::with_capacity(limit, GFP_KERNEL)?;
                for _ in 0..limit {
                    entries.push(Entry::default(), GFP_KERNEL)?;
                }
                let index = VVec::from_elem(0, index_len(limit), GFP_KERNEL)?;
                Some(GrantTable::new(entries, index))
            }
        };
        Ok(Self {
            peer,
            table,
            pool: PagePool::with_room(params::max_buffer_pages().saturating_add(BATCH))?,
            map: MapBatch::with_room(BATCH)?,
            descriptors: MapBatch::with_room(MAX_INDIRECT_PAGES)?,
            unmap: UnmapBatch::with_room(BATCH)?,
            once: 0,
            copy: KBox::new([0; PAGE_SIZE], GFP_KERNEL)?,
            now: ticks(),
        })
    }

    /// Takes note of the time, for all that happens until the next call.
    pub(super) fn look_at_clock(&mut self) {
        self.now = ticks();
    }

    /// Whether the batch has room for so many more pages.
    pub(super) fn batch_has_room(&self, pages: usize) -> bool {
        self.map.len().saturating_add(pages) <= BATCH
    }

    /// Whether requests have so few pages that another one of so many may begin, whatever of them has to be mapped.
    pub(super) fn may_use(&mut self, pages: usize) -> bool {
        if self.once > 0 && self.once.saturating_add(pages) > MOST_ONCE {
            return false;
        }
        // What the kernel has of them is kept; the rest may be there when other requests have ended.
        self.pool.len() >= pages || self.pool.fill(pages).is_ok()
    }

    /// How many pages are kept for grants that will be mapped.
    pub(super) fn free(&self) -> usize {
        self.pool.len()
    }

    /// How many pages are mapped for one request each.
    pub(super) fn once(&self) -> usize {
        self.once
    }

    /// How many grants are mapped for good.
    pub(super) fn persistent(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    /// What is mapped may be written, too, if it is to stay mapped: the next request may read into it.
    fn access(&self, writable: bool) -> Access {
        if writable || self.table.is_some() {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        }
    }

    /// A page to map at, from the pool or from the kernel.
    fn free_page(&mut self, more: usize) -> Option<FreePage> {
        if self.pool.is_empty() {
            // What it got it keeps, also when it got less.
            let _ = self.pool.fill(more.clamp(1, BATCH));
        }
        self.pool.get()
    }

    fn give_to_pool(&mut self, page: impl Into<Option<FreePage>>) {
        // What there is no room for goes back to the kernel.
        let _ = self.pool.put(page);
    }

    /// Begins a use of a page that is mapped for good.
    #[inline]
    fn lend(&mut self, gref: GrantRef) -> Option<Reach> {
        let table = self.table.as_mut()?;
        let number = table.get(gref, self.now)?;
        match table.mapping_mut(number).and_then(Option::take) {
            Some(page) => Some(Reach::Mapped(page, number)),
            None => {
                table.put(number);
                Some(Reach::InUse)
            }
        }
    }

    /// Begins a use of a page. `more` pages are likely to follow. A page in use is mapped a second time, unless
    /// `or_wait`.
    #[inline]
    pub(super) fn reach(
        &mut self,
        gref: GrantRef,
        writable: bool,
        more: usize,
        or_wait: bool,
    ) -> Result<Reach, Unreachable> {
        match self.lend(gref) {
            Some(mapped @ Reach::Mapped(..)) => return Ok(mapped),
            Some(_) if or_wait => return Ok(Reach::InUse),
            _ => {}
        }
        let page = self.free_page(more).ok_or(Unreachable::NoMemory)?;
        let access = self.access(writable);
        if let Err(page) = self.map.push(page, self.peer, gref, access) {
            // Not reached: there was room.
            self.give_to_pool(page);
            return Err(Unreachable::NoMemory);
        }
        self.once = self.once.wrapping_add(1);
        Ok(Reach::Batched)
    }

    /// Whether pages of the batch are to be mapped.
    pub(super) fn is_batched(&self) -> bool {
        !self.map.is_empty()
    }

    /// Maps the batch, and hands what becomes of each page, in order, to `take`.
    pub(super) fn map_batch(&mut self, take: impl FnOnce(&mut MappedBatch<'_>)) {
        let Self { map, table, pool, unmap, once, now, .. } = self;
        let mut batch = MappedBatch { mapped: map.map(), table, pool, unmap, once, now: *now };
        take(&mut batch);
    }

    /// Ends a use.
    #[inline]
    pub(super) fn let_go(&mut self, (page, number): (MappedPage, u32)) {
        if number != ONCE {
            if let Some(table) = &mut self.table {
                if let Some(place) = table.mapping_mut(number) {
                    *place = Some(page);
                    table.put(number);
                    return;
                }
            }
        }
        self.once = self.once.saturating_sub(1);
        self.unmap_later(page);
    }

    fn unmap_later(&mut self, page: MappedPage) {
        if let Err(page) = self.unmap.push(page) {
            self.unmap_now();
            // There is room now. If there was none, dropping it would unmap it.
            let _ = self.unmap.push(page);
        }
    }

    /// Whether pages wait to be unmapped, and answers for that.
    pub(super) fn owes_unmap(&self) -> bool {
        !self.unmap.is_empty()
    }

    /// Unmaps all whose use has ended.
    pub(super) fn unmap_now(&mut self) {
        if self.unmap.is_empty() {
            return;
        }
        for page in self.unmap.unmap() {
            let _ = self.pool.put(page);
        }
    }

    /// Reads the segments of an indirect request into `segments`.
    pub(super) fn read_indirect(
        &mut self,
        indirect: &Indirect,
        segments: &mut KVec<Segment>,
    ) -> Result<(), Unreachable> {
        for (number, &gref) in indirect.pages().iter().enumerate() {
            let len = indirect.in_page(number).saturating_mul(size_of::<RawSegment>());
            let page = match self.lend(gref) {
                Some(Reach::Mapped(page, number)) => (page, number),
                in_use => self.map_descriptors(gref, in_use.is_none())?,
            };
            page.0.copy_out(0, self.copy.get_mut(..len).unwrap_or_default());
            self.let_go(page);
            for segment in descriptors(self.copy.get(..len).unwrap_or_default()) {
                let segment = segment.map_err(Unreachable::Illegal)?;
                segments.push_within_capacity(segment).map_err(|_| Unreachable::NoMemory)?;
            }
        }
        Ok(())
    }

    /// Maps a page of descriptors, perhaps for good.
    fn map_descriptors(
        &mut self,
        gref: GrantRef,
        keep: bool,
    ) -> Result<(MappedPage, u32), Unreachable> {
        let page = self.free_page(1).ok_or(Unreachable::NoMemory)?;
        let access = self.access(false);
        if let Err(page) = self.descriptors.push(page, self.peer, gref, access) {
            self.give_to_pool(page);
            return Err(Unreachable::NoMemory);
        }
        self.once = self.once.wrapping_add(1);
        let Self { descriptors, table, pool, unmap, once, now, .. } = self;
        let mapped = descriptors.map();
        let mut batch = MappedBatch { mapped, table, pool, unmap, once, now: *now };
        match batch.next(keep) {
            Some(Ok(page)) => Ok(page),
            Some(Err(why)) => Err(Unreachable::NotGranted(gref, why)),
            None => Err(Unreachable::NoMemory),
        }
    }

    /// The coarse clock at the beginning of this pass.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Gives free pages back to the kernel: all, or those that are more than may be kept.
    pub(super) fn shrink(&mut self, all: bool) {
        self.pool.shrink_to(if all { 0 } else { params::max_buffer_pages() });
    }

    /// Unmaps what was not used for long.
    pub(super) fn expire(&mut self) {
        let unused = params::persistent_grant_unused_seconds().saturating_mul(HZ);
        if unused == 0 {
            return;
        }
        let then = self.now.saturating_sub(unused);
        while let Some(page) = self.table.as_mut().and_then(|table| table.expire(then)) {
            if let Some(page) = page {
                self.unmap_later(page);
            }
        }
        self.unmap_now();
    }

    /// Gives everything back. No request has a page.
    pub(super) fn release(&mut self) {
        while let Some(page) = self.table.as_mut().and_then(|table| table.pop()) {
            if let Some(page) = page {
                self.unmap_later(page);
            }
        }
        self.unmap_now();
        self.pool.shrink_to(0);
    }
}

/// What became of the pages of a batch.
pub(super) struct MappedBatch<'a> {
    mapped: Mapped<'a>,
    table: &'a mut Option<Table>,
    pool: &'a mut PagePool,
    unmap: &'a mut UnmapBatch,
    once: &'a mut usize,
    now: u64,
}

impl MappedBatch<'_> {
    /// The next page, in order; to stay mapped if there is room and it may.
    pub(super) fn next(&mut self, keep: bool) -> Option<Result<(MappedPage, u32), GrantError>> {
        let page = match self.mapped.next()? {
            Ok(page) => page,
            Err(error) => {
                let _ = self.pool.put(error.page);
                *self.once = self.once.saturating_sub(1);
                return Some(Err(error.why));
            }
        };
        let Some(table) = self.table.as_mut().filter(|_| keep) else {
            return Some(Ok((page, ONCE)));
        };
        // The page itself is put there when its use ends.
        let Ok((number, evicted)) = table.insert(page.gref(), None, self.now) else {
            return Some(Ok((page, ONCE)));
        };
        *self.once = self.once.saturating_sub(1);
        if let Some(evicted) = evicted.flatten() {
            // When there is no room, dropping it unmaps it.
            let _ = self.unmap.push(evicted);
        }
        Some(Ok((page, number)))
    }
}
