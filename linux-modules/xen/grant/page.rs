// SPDX-License-Identifier: GPL-2.0

//! Pages of our own that a peer may use.

use core::ptr::NonNull;

use kernel::alloc::AllocError;
use kernel::bindings;
use kernel::page::Page;
use kernel::prelude::*;
use ring_proto::shared::{AsRegion, Region, PAGE_SIZE};
use ring_proto::xen::{DomId, GrantRef};

use super::GrantPool;
use crate::map::Access;

/// A page granted as long as it lives. Before the peer can see it, it is zeroed.
///
/// When it is dropped, the grant ends and the page is freed; if the peer still maps it, when it has let go of it.
///
/// # Invariants
///
/// `base` is the memory of a page that `self` owns, and that is granted as `gref`.
pub struct GrantedPage {
    base: NonNull<u8>,
    gref: GrantRef,
}

// SAFETY: It owns the page, and gives access to it only as to memory shared with a peer.
unsafe impl Send for GrantedPage {}
// SAFETY: As above.
unsafe impl Sync for GrantedPage {}

impl GrantedPage {
    /// Allocates a page and grants it with a reference of `pool`. Sleeps only if `flags` allow it.
    ///
    /// # Errors
    ///
    /// When there is no memory, or the pool is empty.
    pub fn new(
        pool: &mut GrantPool,
        to: DomId,
        access: Access,
        flags: kernel::alloc::Flags,
    ) -> Result<Self, AllocError> {
        let page = Page::alloc_page(flags | __GFP_ZERO)?;
        // SAFETY: A page of the kernel's own memory has an address.
        let base = unsafe { sys::causeway_page_address(page.as_ptr()) };
        let base = NonNull::new(base.cast()).ok_or(AllocError)?;
        // SAFETY: The page is owned here, is zero, and is freed only when the grant has ended.
        let gref = unsafe { pool.grant(to, page.as_ptr(), access) }.ok_or(AllocError)?;
        // INVARIANT: The page is granted, and goes from `page` to `self`.
        core::mem::forget(page);
        Ok(Self { base, gref })
    }

    /// What the peer maps it by.
    #[inline]
    pub fn gref(&self) -> GrantRef {
        self.gref
    }

    fn page(&self) -> *mut bindings::page {
        // SAFETY: By the type invariant it is the address of a page.
        unsafe { sys::causeway_page_of_address(self.base.as_ptr().cast()) }
    }

    /// Frees the page now, unless the peer has it mapped: then nothing has changed. In any context.
    ///
    /// # Errors
    ///
    /// Gives the page back that could not be freed.
    pub fn try_free(self) -> Result<(), Self> {
        // SAFETY: By the type invariant. Tested and ended in one step.
        if unsafe { sys::gnttab_try_end_foreign_access(self.gref.0) } == 0 {
            return Err(self);
        }
        // SAFETY: It is granted no more, and nobody else has it. `self` does not free it once more.
        unsafe { bindings::__free_pages(self.page(), 0) };
        core::mem::forget(self);
        Ok(())
    }
}

impl AsRegion for GrantedPage {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        // SAFETY: By the type invariant, the page stays until `self` is dropped, and nobody makes a reference into it.
        unsafe { Region::new(self.base, PAGE_SIZE) }
    }
}

impl Drop for GrantedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The kernel frees the page, now or when the peer has let go of it.
        unsafe { sys::gnttab_end_foreign_access(self.gref.0, self.page()) };
    }
}
