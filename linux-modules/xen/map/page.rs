// SPDX-License-Identifier: GPL-2.0

//! A page that foreign memory can be mapped at, and one where it is.

use core::mem::ManuallyDrop;
use core::ptr::{null_mut, NonNull};

use kernel::bindings;
use kernel::page::BorrowedPage;
use ring_proto::shared::{AsRegion, Region, PAGE_SIZE};
use ring_proto::xen::GrantRef;

/// What may be done to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

impl Access {
    /// Flags of a mapping in this kernel.
    pub(super) fn map_flags(self) -> u32 {
        match self {
            Self::ReadOnly => sys::GNTMAP_host_map | sys::GNTMAP_readonly,
            Self::ReadWrite => sys::GNTMAP_host_map,
        }
    }
}

/// A page of this domain without memory of its own, that a foreign page can be mapped at.
///
/// When it is dropped, it goes back to the kernel, which may sleep.
///
/// # Invariants
///
/// It comes from `gnttab_alloc_pages`, is owned by this value, and nothing is mapped at it.
pub struct FreePage(NonNull<bindings::page>);

// SAFETY: It owns the page.
unsafe impl Send for FreePage {}
// SAFETY: A shared reference to it can do nothing.
unsafe impl Sync for FreePage {}

impl FreePage {
    /// Takes a page over.
    ///
    /// # Safety
    ///
    /// The type invariant holds for it.
    pub(super) unsafe fn from_raw(page: NonNull<bindings::page>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self(page)
    }

    /// Gives the page to whoever asks.
    pub(super) fn into_raw(self) -> NonNull<bindings::page> {
        ManuallyDrop::new(self).0
    }
}

impl Drop for FreePage {
    fn drop(&mut self) {
        let mut page = self.0.as_ptr();
        // SAFETY: By the type invariant.
        unsafe { sys::gnttab_free_pages(1, &raw mut page) };
    }
}

/// A foreign page, mapped.
///
/// It is unmapped by an [`UnmapBatch`](super::UnmapBatch). When it is dropped instead, it is unmapped at once, which may
/// sleep; and when something else still refers to it (a bio), it stays mapped for ever, and the log says so once.
///
/// # Invariants
///
/// It owns `page`, which comes from `gnttab_alloc_pages`, and the mapping `handle` of the grant `gref` at it, with
/// `access`.
pub struct MappedPage {
    page: NonNull<bindings::page>,
    handle: u32,
    gref: GrantRef,
    access: Access,
}

// SAFETY: It owns the page, and gives access to it only as to memory shared with a peer.
unsafe impl Send for MappedPage {}
// SAFETY: As above.
unsafe impl Sync for MappedPage {}

impl MappedPage {
    /// Takes a mapping over.
    ///
    /// # Safety
    ///
    /// The type invariant holds for it.
    pub(super) unsafe fn from_raw(
        page: NonNull<bindings::page>,
        handle: u32,
        gref: GrantRef,
        access: Access,
    ) -> Self {
        // INVARIANT: By the requirements of this function.
        Self { page, handle, gref, access }
    }

    /// Gives the page and the handle, and what they are mapped with, to whoever asks.
    pub(super) fn into_raw(self) -> (NonNull<bindings::page>, u32, Access) {
        let this = ManuallyDrop::new(self);
        (this.page, this.handle, this.access)
    }

    /// The page. Who gives it away, to a bio, keeps `self` until it is done with.
    #[inline]
    pub fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: By the type invariant, it stays as long as `self`.
        unsafe { BorrowedPage::from_raw(self.page) }
    }

    /// The same as a pointer.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<bindings::page> {
        self.page
    }

    /// The grant.
    #[inline]
    pub fn gref(&self) -> GrantRef {
        self.gref
    }

    /// What may be done to it.
    #[inline]
    pub fn access(&self) -> Access {
        self.access
    }
}

impl AsRegion for MappedPage {
    /// The page's bytes. Writing is only for one that is mapped with [`Access::ReadWrite`].
    #[inline]
    fn as_region(&self) -> Region<'_> {
        // SAFETY: The page is this domain's, and has an address in the kernel.
        let base = unsafe { sys::causeway_page_address(self.page.as_ptr()) };
        let base = NonNull::new(base.cast()).unwrap_or(NonNull::dangling());
        // SAFETY: By the type invariant, the page stays mapped there as long as `self`. Pages of a 64-bit kernel that
        // can be mapped at all have an address, and it is that of the page.
        unsafe { Region::new(base, PAGE_SIZE) }
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        let page = self.page.as_ptr();
        // SAFETY: It owns the page.
        if unsafe { sys::causeway_page_count(page) } > 1 {
            lost("it is still referred to");
            return;
        }
        let mut op = sys::gnttab_unmap_grant_ref::default();
        // SAFETY: The page and the mapping are owned, and nothing else refers to the page. `op` is written.
        let page = unsafe {
            sys::causeway_set_unmap_op(&raw mut op, page, self.access.map_flags(), self.handle);
            unmap_one(&mut op, self.page)
        };
        drop(page);
    }
}

/// Unmaps one page. Does not sleep.
///
/// # Safety
///
/// `page` is owned by the caller, mapped, and referred to by nobody else; `op` says how it is mapped.
pub(super) unsafe fn unmap_one(
    op: &mut sys::gnttab_unmap_grant_ref,
    page: NonNull<bindings::page>,
) -> Option<FreePage> {
    let mut pages = page.as_ptr();
    // SAFETY: By the requirements of this function.
    unsafe { sys::gnttab_unmap_refs(op, null_mut(), &raw mut pages, 1) };
    match super::outcome(op.status) {
        // SAFETY: Nothing is mapped at the page any more.
        Ok(()) => Some(unsafe { FreePage::from_raw(page) }),
        Err(why) => {
            lost(why.name());
            None
        }
    }
}

/// Says that a page stays mapped for ever. Its memory is the peer's, so the peer cannot hurt anyone with it.
pub(super) fn lost(why: &str) {
    kernel::pr_warn_once!("a foreign page cannot be unmapped and is lost: {}\n", why);
}
