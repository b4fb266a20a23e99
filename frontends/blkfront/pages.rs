// SPDX-License-Identifier: GPL-2.0

//! Pages of one queue that the backend has grants of, for data that is copied and for lists of segments.

use kernel::prelude::*;
use xen::grant::{Access, GrantPool, GrantedPage};
use xen::DomId;

/// References that are set aside at once.
const REFILL: u16 = 32;

/// Granted pages, the one used last on top: that is the one which the backend has mapped, and the cache has.
///
/// A page that goes back to the pool still holds data, and the backend may look at it: data that this disk read or wrote
/// before, and that came from or went to this same backend. Nothing else is ever on these pages.
pub(crate) struct Pages {
    free: KVec<GrantedPage>,
    /// References for pages that are granted for one request.
    pub(crate) grants: GrantPool,
    peer: DomId,
    /// Pages that exist, and may exist.
    count: usize,
    limit: usize,
    /// Fewest that were free since the pool was trimmed.
    idle: usize,
    /// Pages that are kept whatever happens: enough for the largest request.
    least: usize,
}

impl Pages {
    /// A pool that has `least` pages at once and grows to `limit`.
    ///
    /// # Errors
    ///
    /// When memory or grants are short.
    pub(crate) fn new(peer: DomId, least: usize, limit: usize) -> Result<Self> {
        let limit = limit.max(least);
        let free = KVec::with_capacity(limit, GFP_KERNEL)?;
        let mut pages =
            Self { free, grants: GrantPool::new(), peer, count: 0, limit, idle: 0, least };
        for _ in 0..least {
            let page = pages.make(GFP_KERNEL).ok_or(ENOMEM)?;
            pages.put(page);
        }
        pages.idle = 0;
        Ok(pages)
    }

    /// How many pages there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// One more page.
    fn make(&mut self, flags: kernel::alloc::Flags) -> Option<GrantedPage> {
        if self.count >= self.limit {
            return None;
        }
        self.reserve(1).ok()?;
        let page = GrantedPage::new(&mut self.grants, self.peer, Access::ReadWrite, flags).ok()?;
        self.count += 1;
        Some(page)
    }

    /// Sees to it that so many references are there to grant pages with.
    #[inline]
    pub(crate) fn reserve(&mut self, count: u32) -> Result {
        while self.grants.available() < count {
            self.grants.refill(REFILL)?;
        }
        Ok(())
    }

    /// A page, if there is one or may be one more. Does not sleep.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<GrantedPage> {
        let page = self.free.pop();
        self.idle = self.idle.min(self.free.len());
        match page {
            Some(page) => Some(page),
            None => self.make(GFP_NOWAIT | __GFP_NOWARN),
        }
    }

    /// Takes a page back.
    #[inline]
    pub(crate) fn put(&mut self, page: GrantedPage) {
        // There is room for as many as exist.
        let _ = self.free.push_within_capacity(page);
    }

    /// Frees some of the pages that were not used since the last time, as far as the backend has let go of them. What
    /// is left over counts as used once more.
    pub(crate) fn trim(&mut self) {
        const AT_ONCE: usize = 64;
        let surplus = self.idle.min(self.count.saturating_sub(self.least)).min(AT_ONCE);
        for at in 0..surplus {
            // The oldest ones lie at the bottom; one that is still mapped is passed over.
            let Ok(page) = self.free.remove(0) else { break };
            match page.try_free() {
                Ok(()) => self.count = self.count.saturating_sub(1),
                Err(page) => {
                    let top = self.free.len().min(surplus.saturating_sub(at));
                    let _ = self.free.insert_within_capacity(top, page);
                }
            }
        }
        self.idle = self.free.len();
    }
}
