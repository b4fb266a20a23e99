// SPDX-License-Identifier: GPL-2.0

//! Pages of a ring, granted by a frontend.

use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use ring_proto::ring::MAX_ORDER;
use ring_proto::shared::{AsRegion, Region, PAGE_SIZE};
use ring_proto::xen::GrantRef;

use crate::xenbus::Device;

/// No grant (`INVALID_GRANT_REF`).
const INVALID: u32 = u32::MAX;

/// Most pages of a ring.
const MAX_PAGES: usize = 1 << MAX_ORDER;

/// The memory of a ring, zeroed and granted to a device's other end for reading and writing.
///
/// When it is dropped, the grants end and the pages are freed; what the peer still maps, when it has let go of it.
///
/// # Invariants
///
/// `base` are `len` bytes from `xenbus_setup_ring`, and `raw` the grants of its `refs.len()` pages, or `INVALID` for one that
/// has ended.
pub struct GrantedRing {
    base: NonNull<u8>,
    len: usize,
    raw: [u32; MAX_PAGES],
    refs: KVec<GrantRef>,
}

// SAFETY: It owns the memory, and gives access to it only as to memory shared with a peer.
unsafe impl Send for GrantedRing {}
// SAFETY: As above.
unsafe impl Sync for GrantedRing {}

impl GrantedRing {
    /// Allocates 2^`order` pages and grants them to the other end of `device`. May sleep.
    ///
    /// # Errors
    ///
    /// When there are no pages or no grants left, or `order` is larger than [`MAX_ORDER`].
    pub fn new(device: &Device, order: u32) -> Result<Self> {
        if order > MAX_ORDER {
            return Err(EINVAL);
        }
        let pages = 1_usize << order;
        let mut refs = KVec::with_capacity(pages, GFP_KERNEL)?;
        let mut raw = [0; MAX_PAGES];
        let mut base = core::ptr::null_mut();
        // SAFETY: The device is valid. `raw` has room for so many references, and `base` is written.
        to_result(unsafe {
            sys::causeway_setup_ring(device.as_raw(), &raw mut base, pages as u32, raw.as_mut_ptr())
        })?;
        // INVARIANT: This was set up just now. The references are counted below.
        let base = NonNull::new(base.cast()).ok_or(ENOMEM)?;
        for gref in raw.iter().take(pages) {
            // There is room for all of them.
            let _ = refs.push_within_capacity(GrantRef(*gref));
        }
        Ok(Self { base, len: PAGE_SIZE << order, raw, refs })
    }

    /// Frees it now, unless the peer has a page of it mapped. It is not a ring any more then: pages that the peer has let
    /// go of are granted to nobody. In any context.
    ///
    /// # Errors
    ///
    /// Gives it back if it could not be freed.
    pub fn try_free(mut self) -> Result<(), Self> {
        for gref in self.raw.iter_mut().take(self.refs.len()).filter(|gref| **gref != INVALID) {
            // SAFETY: By the type invariant it is a grant of ours that has not ended.
            if unsafe { sys::gnttab_try_end_foreign_access(*gref) } == 0 {
                return Err(self);
            }
            *gref = INVALID;
        }
        // What remains is the memory.
        drop(self);
        Ok(())
    }

    /// The grants of its pages, in their order.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }
}

impl AsRegion for GrantedRing {
    fn as_region(&self) -> Region<'_> {
        // SAFETY: By the type invariant, the memory stays until `self` is dropped. It begins with a page, and nobody
        // makes a reference into it.
        unsafe { Region::new(self.base, self.len) }
    }
}

impl Drop for GrantedRing {
    fn drop(&mut self) {
        let mut base = self.base.as_ptr().cast();
        // SAFETY: By the type invariant. Pages that are still mapped keep a reference that the kernel drops later.
        unsafe {
            sys::xenbus_teardown_ring(&raw mut base, self.refs.len() as u32, self.raw.as_mut_ptr())
        };
    }
}
