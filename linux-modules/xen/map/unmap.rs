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
pub struct UnmapBatch<C = ()>(KBox<Inner<C>>);

struct Inner<C> {
    /// What the kernel works on, and refers to the following by.
    item: Opaque<sys::gntab_unmap_queue_data>,
    ops: KVec<sys::gnttab_unmap_grant_ref>,
    /// The page of each.
    pages: KVec<*mut bindings::page>,
    room: usize,
    /// The hypercall was made, and entries before this one were given out.
    given: Option<usize>,
    context: Option<C>,
}

// SAFETY: It owns the pages, and the kernel uses `item` only while it has the whole.
unsafe impl<C: Send> Send for Inner<C> {}

/// Whoever gets back the pages that an [`UnmapBatch`] unmapped by and by.
pub trait Unmapped: Send + Sized + 'static {
    /// Called when they are unmapped, in the context of [`UnmapBatch::unmap_async`] or in a worker thread. The batch's
    /// [`pages`](UnmapBatch::pages) are there to be taken; then it can be used again.
    fn unmapped(self, batch: UnmapBatch<Self>);
}

impl<C> UnmapBatch<C> {
    /// An empty batch with room for so many pages.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn with_room(room: usize) -> Result<Self> {
        let inner = Inner {
            item: Opaque::zeroed(),
            ops: KVec::with_capacity(room, GFP_KERNEL)?,
            pages: KVec::with_capacity(room, GFP_KERNEL)?,
            room,
            given: None,
            context: None,
        };
        Ok(Self(KBox::new(inner, GFP_KERNEL)?))
    }

    /// How many pages are in it.
    pub fn len(&self) -> usize {
        self.0.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.ops.is_empty()
    }

    /// Adds a page.
    ///
    /// # Errors
    ///
    /// The page, when there is no room, or the pages of the last time have not been taken.
    #[inline]
    pub fn push(&mut self, page: MappedPage) -> Result<(), MappedPage> {
        let inner = &mut *self.0;
        if inner.ops.len() >= inner.room || inner.given.is_some() {
            return Err(page);
        }
        let (page, handle, access) = page.into_raw();
        let mut op = sys::gnttab_unmap_grant_ref::default();
        // SAFETY: `op` is written, and the page is owned.
        unsafe {
            sys::causeway_set_unmap_op(&raw mut op, page.as_ptr(), access.map_flags(), handle);
        }
        // There is as much capacity as room.
        let _ = inner.ops.push_within_capacity(op);
        let _ = inner.pages.push_within_capacity(page.as_ptr());
        Ok(())
    }

    /// Unmaps them, and gives their pages out. Sleeps until nothing refers to them.
    pub fn unmap(&mut self) -> Pages<'_, C> {
        let inner = &mut *self.0;
        if inner.given.is_none() && !inner.ops.is_empty() {
            inner.prepare();
            // SAFETY: `prepare` told the kernel of the operations, each with its page. All of it stays where it is
            // until this returns.
            unsafe { sys::gnttab_unmap_refs_sync(inner.item.get()) };
        }
        inner.given.get_or_insert(0);
        Pages { inner }
    }

    /// The pages of what [`unmap_async`](Self::unmap_async) has unmapped; none before.
    pub fn pages(&mut self) -> Pages<'_, C> {
        Pages { inner: &mut self.0 }
    }
}

impl<C: Unmapped> UnmapBatch<C> {
    /// Unmaps them when nothing refers to them any more, and hands them to `context`. Does not sleep, and is legal in
    /// any context.
    pub fn unmap_async(self, context: C) {
        let mut inner = self.0;
        if inner.given.is_some() || inner.ops.is_empty() {
            return context.unmapped(Self(inner));
        }
        inner.prepare();
        inner.context = Some(context);
        let inner = KBox::into_raw(inner);
        // SAFETY: The box is the kernel's until it calls `done`, so all that `prepare` told it stays where it is.
        unsafe {
            let item = (*inner).item.get();
            (*item).data = inner.cast();
            (*item).done = Some(Self::done);
            sys::gnttab_unmap_refs_async(item);
        }
    }

    extern "C" fn done(_result: c_int, item: *mut sys::gntab_unmap_queue_data) {
        // SAFETY: `unmap_async` made it of a box, which the kernel gives back here once, as its last use of it.
        let mut inner = unsafe { KBox::from_raw((*item).data.cast::<Inner<C>>()) };
        inner.given = Some(0);
        if let Some(context) = inner.context.take() {
            context.unmapped(Self(inner));
        }
    }
}

impl<C> Inner<C> {
    /// Tells the kernel what to work on.
    fn prepare(&mut self) {
        let item = self.item.get();
        // SAFETY: The kernel does not have it now.
        unsafe {
            (*item).unmap_ops = self.ops.as_mut_ptr();
            (*item).kunmap_ops = null_mut();
            (*item).pages = self.pages.as_mut_ptr();
            (*item).count = self.ops.len() as u32;
        }
    }
}

impl<C> Drop for Inner<C> {
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
pub struct Pages<'a, C> {
    inner: &'a mut Inner<C>,
}

impl<C> Iterator for Pages<'_, C> {
    type Item = FreePage;

    #[inline]
    fn next(&mut self) -> Option<FreePage> {
        let inner = &mut *self.inner;
        loop {
            let at = inner.given?;
            let (op, page) = (inner.ops.get(at)?, inner.pages.get(at)?);
            inner.given = Some(at.saturating_add(1));
            match (outcome(op.status), NonNull::new(*page)) {
                // SAFETY: Xen said that nothing is mapped at it any more. Each entry is given out once.
                (Ok(()), Some(page)) => return Some(unsafe { FreePage::from_raw(page) }),
                (Err(why), _) => lost(why.name()),
                (Ok(()), None) => {}
            }
        }
    }
}

impl<C> Drop for Pages<'_, C> {
    fn drop(&mut self) {
        while self.next().is_some() {}
        if self.inner.given.is_some() {
            self.inner.ops.clear();
            self.inner.pages.clear();
            self.inner.given = None;
        }
    }
}
