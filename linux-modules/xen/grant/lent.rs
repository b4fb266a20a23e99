// SPDX-License-Identifier: GPL-2.0

//! Pages of someone else that a peer may use for the time of one request.

use core::mem::ManuallyDrop;

use kernel::page::BorrowedPage;
use kernel::prelude::*;
use ring_proto::xen::{DomId, GrantRef};

use super::GrantPool;
use crate::map::Access;

/// Something that comes with pages, such as a request to read or write.
///
/// # Safety
///
/// The pages stay where they are, and are used for nothing else, until the value is dropped or given away.
pub unsafe trait Lend {
    /// Goes through its pages in order, each with the first byte and the number of bytes that are meant, as long as
    /// `each` returns true. The first `skip` bytes are left out.
    fn for_each_page(&self, skip: u32, each: impl FnMut(BorrowedPage<'_>, u32, u32) -> bool);
}

/// Something whose pages are granted. It can be had back only when the peer has let go of all of them.
///
/// Dropping it while the peer has not is a leak of the owner: its pages can never be used again.
///
/// # Invariants
///
/// `refs` are grants of pages of `owner`, and of nothing else.
pub struct Lent<L: Lend> {
    owner: ManuallyDrop<L>,
    refs: KVec<GrantRef>,
}

/// What is lent to whom.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The peer.
    pub to: DomId,
    /// What it may do.
    pub access: Access,
    /// Bytes at the beginning that are left out.
    pub skip: u32,
    /// Most pages.
    pub pages: usize,
}

impl GrantPool {
    /// Grants the pages of `owner`, as many of them as `refs` has room for. `each` is told of every grant, and of the
    /// bytes in its page.
    ///
    /// # Errors
    ///
    /// Gives everything back when the references in the pool are too few. Nothing is granted then.
    pub fn lend<L: Lend>(
        &mut self,
        terms: &Terms,
        owner: L,
        mut refs: KVec<GrantRef>,
        mut each: impl FnMut(GrantRef, u32, u32),
    ) -> Result<Lent<L>, (L, KVec<GrantRef>)> {
        refs.clear();
        let mut enough = true;
        owner.for_each_page(terms.skip, |page, offset, len| {
            if refs.len() >= terms.pages.min(refs.capacity()) {
                return false;
            }
            // SAFETY: The page is of `owner`, which is given away only after the grant has ended.
            match unsafe { self.grant(terms.to, page.as_ptr(), terms.access) } {
                Some(gref) => {
                    let _ = refs.push_within_capacity(gref);
                    each(gref, offset, len);
                    true
                }
                None => {
                    enough = false;
                    false
                }
            }
        });
        // INVARIANT: So they were granted.
        let lent = Lent { owner: ManuallyDrop::new(owner), refs };
        if enough {
            return Ok(lent);
        }
        match self.take_back(lent) {
            Ok(all) => Err(all),
            // The peer was told of none of them, and mapped one all the same.
            Err(lent) => Ok(lent),
        }
    }

    /// Ends the grants.
    ///
    /// # Errors
    ///
    /// Gives it back as long as the peer has a page mapped.
    pub fn take_back<L: Lend>(
        &mut self,
        mut lent: Lent<L>,
    ) -> Result<(L, KVec<GrantRef>), Lent<L>> {
        while let Some(gref) = lent.refs.pop() {
            // SAFETY: By the type invariant it is a grant that has not ended.
            if !unsafe { self.end(gref) } {
                let _ = lent.refs.push_within_capacity(gref);
                return Err(lent);
            }
        }
        Ok(lent.into_parts())
    }
}

impl<L: Lend> Lent<L> {
    /// Whose pages they are.
    #[inline]
    pub fn owner(&self) -> &L {
        &self.owner
    }

    /// Ends the grants without a pool; the kernel logs nothing of it.
    ///
    /// # Errors
    ///
    /// Gives it back as long as the peer has a page mapped.
    pub fn reclaim(mut self) -> Result<L, Self> {
        if self.end_all() {
            Ok(self.into_parts().0)
        } else {
            Err(self)
        }
    }

    fn end_all(&mut self) -> bool {
        while let Some(gref) = self.refs.pop() {
            // SAFETY: By the type invariant it is a grant that has not ended. Its reference goes back to the kernel.
            if unsafe { sys::gnttab_try_end_foreign_access(gref.0) } == 0 {
                let _ = self.refs.push_within_capacity(gref);
                return false;
            }
        }
        true
    }

    /// All of it, when nothing is granted any more.
    fn into_parts(self) -> (L, KVec<GrantRef>) {
        let mut this = ManuallyDrop::new(self);
        let refs = core::mem::take(&mut this.refs);
        // SAFETY: `this` is not dropped, so the owner is taken once.
        (unsafe { ManuallyDrop::take(&mut this.owner) }, refs)
    }
}

impl<L: Lend> Drop for Lent<L> {
    fn drop(&mut self) {
        if self.end_all() {
            // SAFETY: Nothing is granted any more, and `self` is gone after this.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
        } else {
            pr_alert!("{} pages stay with their peer for ever\n", self.refs.len());
        }
    }
}
