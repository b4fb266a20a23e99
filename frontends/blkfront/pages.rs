// SPDX-License-Identifier: GPL-2.0

//! Pages of one queue that the backend has grants of, for data that is copied and for lists of segments.

use kernel::prelude::*;
use xen::grant::{Access, GrantPool, GrantedPage};
use xen::DomId;

/// References that are set aside at once.
const REFILL: u16 = 32;

/// References beyond the least that are kept for the next requests, and how many go back to the domain at once when there
/// are more.
const MOST_SPARE: u32 = 1024;
const SHARED: u32 = 512;

/// Granted pages, the one used last on top: that is the one which the backend has mapped, and the cache has.
///
/// A page that goes back to the pool still holds data, and the backend may look at it: data that this disk read or wrote
/// before, and that came from or went to this same backend. Nothing else is ever on these pages.
pub(crate) struct Pages {
    free: KVVec<GrantedPage>,
    /// References for pages that are granted for one request.
    pub(crate) grants: GrantPool,
    /// References that are kept whatever happens: enough for the largest request, so that it waits for nobody else's.
    least_grants: u32,
    /// Fewest that were there since the pool was trimmed.
    idle_grants: u32,
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
    /// A pool that has `least` pages at once and grows to `limit`, and that keeps `grants` references for pages of
    /// requests.
    ///
    /// # Errors
    ///
    /// When memory or grants are short.
    pub(crate) fn new(peer: DomId, least: usize, limit: usize, grants: u32) -> Result<Self> {
        let limit = limit.max(least);
        let mut pages = Self {
            free: KVVec::with_capacity(limit, GFP_KERNEL)?,
            grants: GrantPool::new(),
            least_grants: grants,
            idle_grants: 0,
            peer,
            count: 0,
            limit,
            idle: 0,
            least,
        };
        for _ in 0..least {
            let page = pages.make(GFP_KERNEL).ok_or(ENOMEM)?;
            pages.put(page);
        }
        pages.reserve(grants)?;
        (pages.idle, pages.idle_grants) = (0, 0);
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
        // Those that are kept for pages of requests stay.
        if self.least_grants > 0 {
            self.grants.refill(1).ok()?;
        } else {
            self.reserve(1).ok()?;
        }
        let page = GrantedPage::new(&mut self.grants, self.peer, Access::ReadWrite, flags).ok()?;
        self.count += 1;
        Some(page)
    }

    /// Sees to it that so many references are there to grant pages with.
    ///
    /// # Errors
    ///
    /// When the domain has not so many; then as many are set aside as before.
    #[inline]
    pub(crate) fn reserve(&mut self, count: u32) -> Result {
        let before = self.grants.available();
        if before < count {
            self.refill(count).inspect_err(|_| {
                self.grants.release(self.grants.available().saturating_sub(before));
            })?;
        }
        self.idle_grants = self.idle_grants.min(self.grants.available() - count);
        Ok(())
    }

    fn refill(&mut self, count: u32) -> Result {
        while self.grants.available() < count {
            let missing = count - self.grants.available();
            match self.grants.refill(REFILL) {
                Err(_) if missing < u32::from(REFILL) => self.grants.refill(missing as u16)?,
                refilled => refilled?,
            }
        }
        Ok(())
    }

    /// Gives references back to the domain if there are many more than are used.
    #[inline]
    pub(crate) fn share(&mut self) {
        if self.grants.available() > self.least_grants + MOST_SPARE {
            self.grants.release(SHARED);
            self.idle_grants = self.idle_grants.min(self.grants.available());
        }
    }

    /// All pages that nobody uses.
    pub(crate) fn into_free(self) -> KVVec<GrantedPage> {
        self.free
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
    /// is left over counts as used once more. References that were not used go back to the domain.
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
        let spare = self.grants.available().saturating_sub(self.least_grants);
        self.grants.release(self.idle_grants.min(spare));
        self.idle_grants = self.grants.available();
    }
}
