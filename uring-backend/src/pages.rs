// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a queue reaches the pages that its frontend granted: mapped for good where the frontend reuses them, else by
//! copies that the hypervisor makes, all of a batch in one call.

use std::io;
use std::sync::Arc;

use hypervisor_client::mapped::Mapped;
use hypervisor_client::{Client, CopyDirection, Error, GrantCopy};
use ring_proto::blkif::grants::{self, Entry, GrantTable};
use ring_proto::blkif::{Indirect, Problem, Segment, descriptors};
use ring_proto::shared::{AsRegion, PAGE_SIZE, Region, SharedMemory};
use ring_proto::xen::{DomId, Errno, GrantRef};

use crate::io::PrivatePages;
use crate::persistent::PersistentPage;
use crate::stats::QueueStats;

/// Private pages for copies, besides the one for descriptors: four requests of the largest size.
const PRIVATE_PAGES: u32 = 1024;

/// Where a segment's data is, on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the frontend's page, at this index of the table.
    Mapped(u32),
    /// In the private page of this number, before or after a copy.
    Private(u32),
}

/// Why the segments of an indirect request could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadIndirect {
    /// A page of them is not granted.
    NotGranted(GrantRef, Errno),
    /// They are not legal.
    Illegal(Problem),
}

/// A copy to be made.
#[derive(Clone, Copy, Debug)]
struct Copy {
    /// The slot that it is for.
    owner: u32,
    segment: Segment,
    /// The private page.
    page: u32,
    direction: CopyDirection,
}

impl Copy {
    /// What the hypervisor is asked for.
    fn of(self, private: &PrivatePages) -> Option<GrantCopy<'_>> {
        let Self { segment, page, direction, .. } = self;
        Some(GrantCopy {
            gref: segment.gref(),
            offset: segment.offset() as u16,
            local: private.page(page)?.part(segment.offset(), segment.byte_len())?,
            direction,
            status: Ok(()),
        })
    }
}

/// The pages of one queue's frontend.
pub(crate) struct PeerPages {
    client: Arc<dyn Client>,
    peer: DomId,
    /// Grants mapped for good, if the frontend reuses them.
    table: Option<GrantTable<Vec<Entry<PersistentPage>>, Vec<u32>>>,
    private: PrivatePages,
    /// Private pages that are free. The one taken last is used first.
    free: Vec<u32>,
    /// Whether private pages were touched since the last [`release`](Self::release).
    touched: bool,
    copies: Vec<Copy>,
    /// A page of descriptors, copied out.
    descriptors: Box<[u8; PAGE_SIZE]>,
    stats: Arc<QueueStats>,
}

impl PeerPages {
    /// `persistent` is the limit of grants mapped for good, if the frontend reuses any.
    pub(crate) fn new(
        client: Arc<dyn Client>,
        peer: DomId,
        persistent: Option<usize>,
        stats: Arc<QueueStats>,
    ) -> io::Result<Self> {
        Ok(Self {
            client,
            peer,
            table: persistent.filter(|limit| *limit > 0).map(|limit| {
                let entries = std::iter::repeat_with(Entry::default).take(limit).collect();
                GrantTable::new(entries, vec![0; grants::index_len(limit)])
            }),
            private: PrivatePages::new(PRIVATE_PAGES as usize + 1)?,
            free: (0..PRIVATE_PAGES).rev().collect(),
            touched: false,
            copies: Vec::new(),
            descriptors: Box::new([0; PAGE_SIZE]),
            stats,
        })
    }

    /// Whether this many more segments can be reached whatever becomes of them.
    #[inline]
    pub(crate) fn has_room(&self, segments: usize) -> bool {
        self.free.len() >= segments
    }

    /// Begins a use of a page. `None` when nothing is left, which [`has_room`](Self::has_room) excludes.
    #[inline]
    pub(crate) fn reach(&mut self, gref: GrantRef) -> Option<Place> {
        if let Some(index) = self.mapped(gref) {
            self.stats.persistent_pages.add(1);
            return Some(Place::Mapped(index));
        }
        self.touched = true;
        self.free.pop().map(Place::Private)
    }

    /// The page in use at a place. It stays where it is until that use [ends](Self::let_go).
    #[inline]
    pub(crate) fn memory(&self, place: Place) -> Option<Region<'_>> {
        match place {
            Place::Mapped(index) => Some(self.table.as_ref()?.mapping(index)?.mapping.as_region()),
            Place::Private(page) => self.private.page(page),
        }
    }

    /// The page as mapped for good, if it is or may be.
    #[inline]
    fn mapped(&mut self, gref: GrantRef) -> Option<u32> {
        let table = self.table.as_mut()?;
        match table.get(gref, 0) {
            Some(index) => Some(index),
            None if table.has_room() => {
                self.stats.other_syscalls.add(1);
                // A page that cannot be mapped for writing may still be one that can be copied.
                let page = PersistentPage::map(&*self.client, self.peer, gref)?;
                let (index, _stale) = table.insert(gref, page, 0).ok()?;
                self.stats.mapped_grants.set(table.len() as u64);
                self.stats.evicted_grants.set(table.evicted());
                Some(index)
            }
            None => None,
        }
    }

    /// The larger stretch of memory that a page lies in, of which fixed buffers are to be made: that of private pages only
    /// where no page is mapped, as an engine has one.
    pub(crate) fn backing(&self, place: Place) -> Option<&Arc<Mapped>> {
        match place {
            Place::Mapped(index) => self.table.as_ref()?.mapping(index)?.mapping.backing(),
            Place::Private(_) if self.table.is_none() => Some(self.private.memory()),
            Place::Private(_) => None,
        }
    }

    /// Ends a use.
    #[inline]
    pub(crate) fn let_go(&mut self, place: Place) {
        match (place, &mut self.table) {
            (Place::Mapped(index), Some(table)) => table.put(index),
            (Place::Mapped(_), None) => {}
            (Place::Private(page), _) => self.free.push(page),
        }
    }

    /// Queues the copy of a segment between the frontend's page and private page `page`, for the request in slot
    /// `owner`.
    pub(crate) fn queue_copy(
        &mut self,
        owner: u32,
        segment: Segment,
        page: u32,
        direction: CopyDirection,
    ) {
        self.copies.push(Copy { owner, segment, page, direction });
    }

    /// Whether copies are queued.
    #[inline]
    pub(crate) fn copies_queued(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Does all queued copies, and calls `failed` with the owner of each that was refused.
    pub(crate) fn copy(&mut self, mut failed: impl FnMut(u32, GrantRef, Errno)) {
        self.stats.copied_pages.add(self.copies.len() as u64);
        self.stats.other_syscalls.add(1);
        let (owners, mut copies): (Vec<_>, Vec<_>) = self
            .copies
            .iter()
            .filter_map(|copy| Some((copy.owner, copy.of(&self.private)?)))
            .unzip();
        let tried = self.client.copy(self.peer, &mut copies);
        for (owner, copy) in owners.into_iter().zip(&copies) {
            match (&tried, copy.status) {
                (Ok(()), Ok(())) => {}
                (Ok(()), Err(errno)) => failed(owner, copy.gref, errno),
                (Err(error), _) => failed(owner, copy.gref, errno_of(error)),
            }
        }
        self.copies.clear();
    }

    /// Reads the segments of an indirect request into `segments`.
    pub(crate) fn read_indirect(
        &mut self,
        indirect: &Indirect,
        segments: &mut Vec<Segment>,
    ) -> Result<(), BadIndirect> {
        for (number, &gref) in indirect.pages().iter().enumerate() {
            let len = indirect.in_page(number) * size_of::<ring_proto::blkif::RawSegment>();
            if let Some(index) = self.mapped(gref) {
                self.stats.persistent_pages.add(1);
                let page = self.table.as_ref().and_then(|table| table.mapping(index));
                if let Some(page) = page {
                    page.mapping.copy_out(0, self.descriptors.get_mut(..len).unwrap_or_default());
                }
                self.let_go(Place::Mapped(index));
            } else {
                self.copy_descriptors(gref, len)?;
            }
            let bytes = self.descriptors.get(..len).unwrap_or_default();
            for segment in descriptors(bytes) {
                segments.push(segment.map_err(BadIndirect::Illegal)?);
            }
        }
        Ok(())
    }

    /// Copies the first `len` bytes of a page of descriptors.
    fn copy_descriptors(&mut self, gref: GrantRef, len: usize) -> Result<(), BadIndirect> {
        let refused = |errno| BadIndirect::NotGranted(gref, errno);
        self.touched = true;
        let page = self.private.page(PRIVATE_PAGES).and_then(|page| page.part(0, len));
        let local = page.ok_or(refused(Errno::EINVAL))?;
        let direction = CopyDirection::FromPeer;
        let mut copy = [GrantCopy { gref, offset: 0, local, direction, status: Ok(()) }];
        self.stats.copied_pages.add(1);
        self.stats.other_syscalls.add(1);
        self.client.copy(self.peer, &mut copy).map_err(|error| refused(errno_of(&error)))?;
        let [copy] = copy;
        copy.status.map_err(refused)?;
        local.copy_out(0, self.descriptors.get_mut(..len).unwrap_or_default());
        Ok(())
    }

    /// Whether [`release`](Self::release) would give anything back.
    pub(crate) fn releasable(&self) -> bool {
        self.touched && self.free.len() == PRIVATE_PAGES as usize
    }

    /// Gives the memory of private pages back to the system, if none is in use. Nobody else may hold on to it.
    pub(crate) fn release(&mut self) {
        if self.releasable() {
            self.private.release();
            self.touched = false;
        }
    }
}

/// The hypervisor's reason in an error, as far as it has one.
fn errno_of(error: &Error) -> Errno {
    match error {
        Error::Refused { errno, .. } => *errno,
        _ => Errno::EIO,
    }
}
