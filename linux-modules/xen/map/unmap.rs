// SPDX-License-Identifier: GPL-2.0

//! Foreign pages unmapped many at a time.

use core::ptr::{null_mut, NonNull};

use kernel::types::Opaque;
use kernel::{bindings, prelude::*};

use super::page::{lost, unmap_one};
use super::{outcome, FreePage, MappedPage};

/// Pages that will be unmapped by one hypercall, and only when nothing refers to them any more: a block device that is
/// made of others may hold a page for a while after it said that it is done.
///
/// It has room for as many as it was made with, and allocates nothing afterwards.
pub struct UnmapBatch {
    /// What the kernel works on, and refers to the following by.
    item: Opaque<sys::gntab_unmap_queue_data>,
    ops: KVec<sys::gnttab_unmap_grant_ref>,
    /// The page of each.
    pages: KVec<*mut bindings::page>,
    room: usize,
    /// The hypercall was made, and entries before this one were given out.
    given: Option<usize>,
}

// SAFETY: It owns the pages, and the kernel uses `item` only while `unmap` lends it the whole.
unsafe impl Send for UnmapBatch {}

impl UnmapBatch {
    /// An empty batch with room for so many pages.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn with_room(room: usize) -> Result<Self> {
        Ok(Self {
            item: Opaque::zeroed(),
            ops: KVec::with_capacity(room, GFP_KERNEL)?,
            pages: KVec::with_capacity(room, GFP_KERNEL)?,
            room,
            given: None,
        })
    }

    /// How many pages are in it.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds a page.
    ///
    /// # Errors
    ///
    /// The page, when there is no room, or the pages of the last time have not been taken.
    #[inline]
    pub fn push(&mut self, page: MappedPage) -> Result<(), MappedPage> {
        if self.ops.len() >= self.room || self.given.is_some() {
            return Err(page);
        }
        let (page, handle, access) = page.into_raw();
        let mut op = sys::gnttab_unmap_grant_ref::default();
        // SAFETY: `op` is written, and the page is owned.
        unsafe {
            sys::causeway_set_unmap_op(&raw mut op, page.as_ptr(), access.map_flags(), handle);
        }
        // There is as much capacity as room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page.as_ptr());
        Ok(())
    }

    /// Unmaps them, and gives their pages out. Sleeps until nothing refers to them.
    pub fn unmap(&mut self) -> Pages<'_> {
        if self.given.is_none() && !self.ops.is_empty() {
            let item = self.item.get();
            // SAFETY: The kernel has `item` only here, and is told of the operations, each with its page. All of it stays
            // where it is until this returns.
            unsafe {
                (*item).unmap_ops = self.ops.as_mut_ptr();
                (*item).kunmap_ops = null_mut();
                (*item).pages = self.pages.as_mut_ptr();
                (*item).count = self.ops.len() as u32;
                sys::gnttab_unmap_refs_sync(item);
            }
        }
        self.given.get_or_insert(0);
        Pages { batch: self }
    }
}

impl Drop for UnmapBatch {
    fn drop(&mut self) {
        let (unmapped, given) = (self.given.is_some(), self.given.unwrap_or(0));
        for (op, page) in self.ops.iter_mut().zip(self.pages.iter()).skip(given) {
            let Some(page) = NonNull::new(*page) else { continue };
            match (unmapped, outcome(op.status)) {
                // SAFETY: Nothing is mapped at it, and it was not given out.
                (true, Ok(())) => drop(unsafe { FreePage::from_raw(page) }),
                (true, Err(why)) => lost(why.name()),
                // SAFETY: It is owned and mapped.
                (false, _) if unsafe { sys::causeway_page_count(page.as_ptr()) } > 1 => {
                    lost("it is still referred to");
                }
                // SAFETY: As above, and nobody else refers to it.
                (false, _) => drop(unsafe { unmap_one(op, page) }),
            }
        }
    }
}

/// The pages of an [`UnmapBatch`], with nothing mapped at them. What is not taken goes to the kernel when this is
/// dropped, which may sleep.
pub struct Pages<'a> {
    batch: &'a mut UnmapBatch,
}

impl Iterator for Pages<'_> {
    type Item = FreePage;

    #[inline]
    fn next(&mut self) -> Option<FreePage> {
        let batch = &mut *self.batch;
        loop {
            let at = batch.given?;
            let (op, page) = (batch.ops.get(at)?, batch.pages.get(at)?);
            batch.given = Some(at.saturating_add(1));
            match (outcome(op.status), NonNull::new(*page)) {
                // SAFETY: Xen said that nothing is mapped at it any more. Each entry is given out once.
                (Ok(()), Some(page)) => return Some(unsafe { FreePage::from_raw(page) }),
                (Err(why), _) => lost(why.name()),
                (Ok(()), None) => {}
            }
        }
    }
}

impl Drop for Pages<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
        if self.batch.given.is_some() {
            self.batch.ops.clear();
            self.batch.pages.clear();
            self.batch.given = None;
        }
    }
}
