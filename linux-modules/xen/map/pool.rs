// SPDX-License-Identifier: GPL-2.0

//! Pages kept ready for mapping.

use core::ptr::{null_mut, NonNull};

use kernel::error::to_result;
use kernel::prelude::*;

use super::FreePage;

/// How many pages are asked of the kernel at once.
const CHUNK: usize = 32;

/// The pages of one queue. It has room for as many as it was made with, so that taking one and giving it back neither
/// sleep nor allocate; and whoever uses it owns it, so there is no lock.
pub struct PagePool {
    pages: KVec<FreePage>,
    room: usize,
}

impl PagePool {
    /// An empty pool with room for so many pages.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn with_room(room: usize) -> Result<Self> {
        Ok(Self { pages: KVec::with_capacity(room, GFP_KERNEL)?, room })
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Takes a page.
    #[inline]
    pub fn get(&mut self) -> Option<FreePage> {
        self.pages.pop()
    }

    /// Gives a page back; nothing is done about none.
    ///
    /// # Errors
    ///
    /// The page, when there is no room. It is to be dropped where sleeping is allowed.
    #[inline]
    pub fn put(&mut self, page: impl Into<Option<FreePage>>) -> Result<(), FreePage> {
        let Some(page) = page.into() else { return Ok(()) };
        if self.pages.len() >= self.room {
            return Err(page);
        }
        // There is as much capacity as room.
        let _ = self.pages.push_within_capacity(page);
        Ok(())
    }

    /// Gets pages from the kernel until there are `count`, or as many as there is room for. May sleep.
    ///
    /// # Errors
    ///
    /// When the kernel has no more. What it had is kept.
    pub fn fill(&mut self, count: usize) -> Result {
        let count = count.min(self.room);
        while let Some(missing) = count.checked_sub(self.pages.len()).filter(|missing| *missing > 0)
        {
            let now = missing.min(CHUNK);
            let mut pages = [null_mut(); CHUNK];
            // SAFETY: There is room for so many pages, which is a small number.
            to_result(unsafe { sys::gnttab_alloc_pages(now as c_int, pages.as_mut_ptr()) })?;
            for page in pages.iter().take(now).filter_map(|page| NonNull::new(*page)) {
                // SAFETY: It was made just now.
                let page = unsafe { FreePage::from_raw(page) };
                // There is as much capacity as room.
                let _ = self.pages.push_within_capacity(page);
            }
        }
        Ok(())
    }

    /// Gives pages back to the kernel until no more than `count` are left. May sleep.
    pub fn shrink_to(&mut self, count: usize) {
        while self.pages.len() > count {
            let mut pages = [null_mut(); CHUNK];
            let mut taken = 0;
            while let Some(slot) = pages.get_mut(taken).filter(|_| self.pages.len() > count) {
                let Some(page) = self.pages.pop() else { break };
                *slot = page.into_raw().as_ptr();
                taken = taken.saturating_add(1);
            }
            // SAFETY: So many pages were taken, each owned and with nothing mapped at it.
            unsafe { sys::gnttab_free_pages(taken as c_int, pages.as_mut_ptr()) };
        }
    }
}

impl Drop for PagePool {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
