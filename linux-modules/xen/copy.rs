// SPDX-License-Identifier: GPL-2.0

//! Bytes copied by Xen between a peer's granted pages and this domain's, with nothing mapped.
//!
//! C header: [`include/xen/interface/grant_table.h`](srctree/include/xen/interface/grant_table.h)

use kernel::page::Page;
use kernel::prelude::*;
use ring_proto::shared::PAGE_SIZE;
use ring_proto::xen::grant_table::GrantError;
use ring_proto::xen::{DomId, GrantRef};

use crate::map::outcome;

/// Where bytes lie in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they begin.
    pub offset: u16,
    /// How many they are.
    pub len: u16,
}

impl Span {
    /// Whether they lie in one page.
    fn is_valid(self) -> bool {
        usize::from(self.offset).saturating_add(self.len.into()) <= PAGE_SIZE
    }
}

/// Copies that will be made by one hypercall. It has room for as many as it was made with, and allocates nothing
/// afterwards. Pages of this domain are the batch's until their copy was made.
pub struct CopyBatch {
    ops: KVec<sys::gnttab_copy>,
    pages: KVec<Page>,
    room: usize,
}

impl CopyBatch {
    /// An empty batch with room for so many copies.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn with_room(room: usize) -> Result<Self> {
        Ok(Self {
            ops: KVec::with_capacity(room, GFP_KERNEL)?,
            pages: KVec::with_capacity(room, GFP_KERNEL)?,
            room,
        })
    }

    /// Adds a copy from a domain's granted page into `into`, from byte `at` on.
    ///
    /// # Errors
    ///
    /// The page, when there is no room, or the bytes do not lie in one page on both sides.
    pub fn from_foreign(
        &mut self,
        from: DomId,
        gref: GrantRef,
        span: Span,
        into: Page,
        at: u16,
    ) -> Result<(), Page> {
        let mut op = sys::gnttab_copy::default();
        op.source.u.ref_ = gref.0;
        op.source.domid = from.0;
        op.source.offset = span.offset;
        // SAFETY: The page is a valid one.
        op.dest.u.gmfn = unsafe { sys::causeway_page_to_gfn(into.as_ptr()) };
        op.dest.domid = DomId::SELF.0;
        op.dest.offset = at;
        op.flags = sys::GNTCOPY_source_gref as u16;
        self.push(op, span, at, into)
    }

    /// Adds a copy of `span` of the page `from` into a domain's granted page, from byte `at` on.
    ///
    /// # Errors
    ///
    /// The page, when there is no room, or the bytes do not lie in one page on both sides.
    pub fn to_foreign(
        &mut self,
        from: Page,
        span: Span,
        to: DomId,
        gref: GrantRef,
        at: u16,
    ) -> Result<(), Page> {
        let mut op = sys::gnttab_copy::default();
        // SAFETY: The page is a valid one.
        op.source.u.gmfn = unsafe { sys::causeway_page_to_gfn(from.as_ptr()) };
        op.source.domid = DomId::SELF.0;
        op.source.offset = span.offset;
        op.dest.u.ref_ = gref.0;
        op.dest.domid = to.0;
        op.dest.offset = at;
        op.flags = sys::GNTCOPY_dest_gref as u16;
        self.push(op, span, at, from)
    }

    fn push(
        &mut self,
        mut op: sys::gnttab_copy,
        span: Span,
        at: u16,
        page: Page,
    ) -> Result<(), Page> {
        let there = Span { offset: at, len: span.len };
        if self.ops.len() >= self.room || !span.is_valid() || !there.is_valid() {
            return Err(page);
        }
        op.len = span.len;
        // No status of Xen's: the copy was not made.
        op.status = 1;
        // There is as much capacity as room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page);
        Ok(())
    }

    /// Makes the copies, and gives the pages back in the order in which they were added. It sleeps when a page is not
    /// there yet because the peer's memory is paged out; the kernel tries again for half a minute.
    pub fn copy(&mut self) -> Copied<'_> {
        if !self.ops.is_empty() {
            // SAFETY: Each operation names a page of this domain that the batch owns, and bytes inside of it.
            unsafe { sys::gnttab_batch_copy(self.ops.as_mut_ptr(), self.ops.len() as u32) };
        }
        self.copied()
    }

    /// The same without sleeping. A copy from or to a page that is not there yet is not made
    /// ([`GrantError::Eagain`]).
    pub fn copy_nowait(&mut self) -> Copied<'_> {
        if !self.ops.is_empty() {
            // SAFETY: As in `copy`. When all of it fails, the statuses still say that no copy was made.
            unsafe { sys::causeway_grant_copy(self.ops.as_mut_ptr(), self.ops.len() as u32) };
        }
        self.copied()
    }

    fn copied(&mut self) -> Copied<'_> {
        Copied { ops: self.ops.drain_all(), pages: self.pages.drain_all() }
    }
}

// SAFETY: It owns the pages; the operations are plain data.
unsafe impl Send for CopyBatch {}

/// What became of each copy of a [`CopyBatch`], with this domain's page.
pub struct Copied<'a> {
    ops: kernel::alloc::kvec::DrainAll<'a, sys::gnttab_copy>,
    pages: kernel::alloc::kvec::DrainAll<'a, Page>,
}

impl Iterator for Copied<'_> {
    type Item = (Page, Result<(), GrantError>);

    fn next(&mut self) -> Option<Self::Item> {
        let op = self.ops.next()?;
        Some((self.pages.next()?, outcome(op.status)))
    }
}
