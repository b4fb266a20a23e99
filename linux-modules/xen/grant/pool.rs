// SPDX-License-Identifier: GPL-2.0

//! Grant references set aside, so that granting needs no lock and cannot fail halfway.

use kernel::error::to_result;
use kernel::prelude::*;
use ring_proto::xen::{DomId, GrantRef};

use crate::map::Access;

/// References of one queue, granting nothing yet.
///
/// # Invariants
///
/// `head` begins the kernel's private list of `available` references, which nobody else uses.
pub struct GrantPool {
    head: sys::grant_ref_t,
    available: u32,
}

impl GrantPool {
    /// The end of a list (`GNTTAB_LIST_END`).
    const END: sys::grant_ref_t = sys::grant_ref_t::MAX;

    /// A pool without references.
    pub const fn new() -> Self {
        Self { head: Self::END, available: 0 }
    }

    /// How many there are.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// Sets so many more aside. In any context.
    ///
    /// # Errors
    ///
    /// When the domain has no such number left: grants are a resource of the whole domain.
    pub fn refill(&mut self, count: u16) -> Result {
        let mut list = Self::END;
        // SAFETY: The head of the new list is written.
        to_result(unsafe { sys::gnttab_alloc_grant_references(count, &raw mut list) })?;
        for _ in 0..count {
            // SAFETY: `list` is a list of the caller, and so is `self.head`; one reference goes from one to the other.
            unsafe {
                let gref = sys::gnttab_claim_grant_reference(&raw mut list);
                sys::gnttab_release_grant_reference(&raw mut self.head, gref as sys::grant_ref_t);
            }
        }
        self.available += u32::from(count);
        Ok(())
    }

    /// Gives so many of them, if there are, back to the domain. In any context.
    pub fn release(&mut self, count: u32) {
        let count = count.min(self.available);
        if count == 0 {
            return;
        }
        let mut list = Self::END;
        for _ in 0..count {
            // SAFETY: As in `refill`, the other way round: by the type invariant there are so many.
            unsafe {
                let gref = sys::gnttab_claim_grant_reference(&raw mut self.head);
                sys::gnttab_release_grant_reference(&raw mut list, gref as sys::grant_ref_t);
            }
        }
        self.available -= count;
        // SAFETY: They are a list of ours, which nobody has any more.
        unsafe { sys::gnttab_free_grant_references(list) };
    }

    /// Takes one reference.
    #[inline]
    pub(super) fn claim(&mut self) -> Option<GrantRef> {
        self.available = self.available.checked_sub(1)?;
        // SAFETY: By the type invariant there is one.
        let gref = unsafe { sys::gnttab_claim_grant_reference(&raw mut self.head) };
        Some(GrantRef(gref as u32))
    }

    /// Takes one reference and grants a page with it.
    ///
    /// # Safety
    ///
    /// Until the grant has ended, the page is not freed, nor used for what `to` must not see or change.
    #[inline]
    pub(super) unsafe fn grant(
        &mut self,
        to: DomId,
        page: *mut kernel::bindings::page,
        access: Access,
    ) -> Option<GrantRef> {
        let gref = self.claim()?;
        let read_only = matches!(access, Access::ReadOnly).into();
        // SAFETY: The reference is ours and grants nothing; the page is the caller's, by the contract of this function.
        unsafe {
            let frame = sys::causeway_page_to_gfn(page);
            sys::gnttab_grant_foreign_access_ref(gref.0, to.0, frame, read_only);
        }
        Some(gref)
    }

    /// Ends a grant and keeps its reference. In one step with the test whether the peer has it mapped: then nothing is
    /// changed, and the kernel logs it.
    ///
    /// # Safety
    ///
    /// `gref` was granted from this kind of pool, and has not ended.
    #[inline]
    pub(super) unsafe fn end(&mut self, gref: GrantRef) -> bool {
        // SAFETY: By the contract of this function it is a grant of ours.
        if unsafe { sys::gnttab_end_foreign_access_ref(gref.0) } == 0 {
            return false;
        }
        // SAFETY: It grants nothing any more, and joins the list.
        unsafe { sys::gnttab_release_grant_reference(&raw mut self.head, gref.0) };
        self.available += 1;
        true
    }
}

impl Default for GrantPool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for GrantPool {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is a list of ours, or empty.
        unsafe { sys::gnttab_free_grant_references(self.head) };
    }
}
