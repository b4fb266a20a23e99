// SPDX-License-Identifier: GPL-2.0

//! Foreign pages mapped many at a time.

use core::ptr::{null_mut, NonNull};

use kernel::{bindings, prelude::*};
use ring_proto::xen::grant_table::GrantError;
use ring_proto::xen::{DomId, GrantRef};

use super::page::{lost, unmap_one};
use super::{outcome, Access, FreePage, MappedPage};

/// Grants that will be mapped by one hypercall. It has room for as many as it was made with, and allocates nothing
/// afterwards.
pub struct MapBatch {
    ops: KVec<sys::gnttab_map_grant_ref>,
    /// The page of each.
    pages: KVec<*mut bindings::page>,
    room: usize,
    /// The hypercall was made, and entries before this one were given out.
    given: Option<usize>,
}

// SAFETY: It owns the pages.
unsafe impl Send for MapBatch {}

/// Why a grant was not mapped.
pub struct MapError {
    /// What Xen said.
    pub why: GrantError,
    /// The page that was meant for it, unless it is lost.
    pub page: Option<FreePage>,
}

impl MapBatch {
    /// An empty batch with room for so many grants.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn with_room(room: usize) -> Result<Self> {
        Ok(Self {
            ops: KVec::with_capacity(room, GFP_KERNEL)?,
            pages: KVec::with_capacity(room, GFP_KERNEL)?,
            room,
            given: None,
        })
    }

    /// How many grants are in it.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds a grant of a domain, to be mapped at `page`.
    ///
    /// # Errors
    ///
    /// The page, when there is no room.
    #[inline]
    pub fn push(
        &mut self,
        page: FreePage,
        from: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<(), FreePage> {
        if self.ops.len() >= self.room || self.given.is_some() {
            return Err(page);
        }
        let page = page.into_raw().as_ptr();
        let mut op = sys::gnttab_map_grant_ref::default();
        // SAFETY: `op` is written, and the page is owned.
        unsafe {
            sys::causeway_set_map_op(&raw mut op, page, access.map_flags(), gref.0, from.0);
        }
        // There is as much capacity as room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page);
        Ok(())
    }

    /// Maps them, and gives them out in the order in which they were added. The batch is empty afterwards.
    ///
    /// It sleeps when a page is not there yet because the frontend's memory is paged out; the kernel tries again for
    /// half a minute.
    pub fn map(&mut self) -> Mapped<'_> {
        // A `Mapped` that was forgotten took what it had not given out with it.
        if self.given.is_some() {
            lost("its result was forgotten");
            self.clear();
        }
        if !self.ops.is_empty() {
            // SAFETY: Each operation has its page, owned and with nothing mapped at it.
            let result = unsafe {
                sys::gnttab_map_refs(
                    self.ops.as_mut_ptr(),
                    null_mut(),
                    self.pages.as_mut_ptr(),
                    self.ops.len() as u32,
                )
            };
            if result != 0 {
                self.undo();
            }
        }
        self.given = Some(0);
        Mapped { batch: self }
    }

    /// Unmaps what is mapped though the whole failed, and takes note of it.
    fn undo(&mut self) {
        for (op, page) in self.ops.iter_mut().zip(self.pages.iter_mut()) {
            if op.status != 0 {
                continue;
            }
            op.status = GrantError::GeneralError as i16;
            let Some(owned) = NonNull::new(*page) else { continue };
            let mut unmap = sys::gnttab_unmap_grant_ref::default();
            // SAFETY: Xen said that it is mapped, and nobody knows of it.
            let unmapped = unsafe {
                sys::causeway_set_unmap_op(&raw mut unmap, *page, op.flags, op.handle);
                unmap_one(&mut unmap, owned)
            };
            *page = unmapped.map_or(null_mut(), |page| page.into_raw().as_ptr());
        }
    }

    /// Forgets all entries.
    fn clear(&mut self) {
        self.ops.clear();
        self.pages.clear();
        self.given = None;
    }
}

impl Drop for MapBatch {
    fn drop(&mut self) {
        if self.given.is_none() {
            for page in self.pages.iter().filter_map(|page| NonNull::new(*page)) {
                // SAFETY: It was given to the batch, and nothing was mapped at it.
                drop(unsafe { FreePage::from_raw(page) });
            }
        }
    }
}

/// What became of each grant of a [`MapBatch`]. What is not taken is unmapped when this is dropped.
pub struct Mapped<'a> {
    batch: &'a mut MapBatch,
}

impl Iterator for Mapped<'_> {
    type Item = Result<MappedPage, MapError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.batch.given?;
        let (op, page) = (self.batch.ops.get(at)?, self.batch.pages.get(at)?);
        self.batch.given = Some(at.saturating_add(1));
        let page = NonNull::new(*page);
        Some(match (outcome(op.status), page) {
            (Ok(()), Some(page)) => {
                let access = match op.flags & sys::GNTMAP_readonly {
                    0 => Access::ReadWrite,
                    _ => Access::ReadOnly,
                };
                // SAFETY: Xen said that it is mapped, and each entry is given out once.
                Ok(unsafe { MappedPage::from_raw(page, op.handle, GrantRef(op.ref_), access) })
            }
            (Err(why), page) => {
                let free = |page| {
                    // SAFETY: Xen said that nothing is mapped at it, or `undo` saw to it. Each entry is given out once.
                    unsafe { FreePage::from_raw(page) }
                };
                Err(MapError { why, page: page.map(free) })
            }
            (Ok(()), None) => Err(MapError { why: GrantError::GeneralError, page: None }),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.ops.len().saturating_sub(self.batch.given.unwrap_or(0));
        (left, Some(left))
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
        self.batch.clear();
    }
}
