// SPDX-License-Identifier: GPL-2.0

//! Pages of a ring, mapped by a backend.

use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use ring_proto::ring::MAX_ORDER;
use ring_proto::shared::{AsRegion, Region, PAGE_SIZE};
use ring_proto::xen::GrantRef;

use crate::xenbus::Device;

/// Most pages of a ring.
const MAX_PAGES: usize = 1 << MAX_ORDER;

/// The memory of a frontend's ring, one page after the other. It is unmapped when this is dropped, which may sleep.
///
/// # Invariants
///
/// `base` are `len` bytes that `xenbus_map_ring_valloc` mapped for `device`.
pub struct MappedRing {
    base: NonNull<u8>,
    len: usize,
    device: ARef<Device>,
}

// SAFETY: It owns the mapping, and gives access to it only as to memory shared with a peer.
unsafe impl Send for MappedRing {}
// SAFETY: As above.
unsafe impl Sync for MappedRing {}

impl MappedRing {
    /// Maps these grants of the other end of `device`. May sleep.
    ///
    /// # Errors
    ///
    /// When Xen refuses one of them (then `device` is `Closing`), or there is no memory, or there are none or more than
    /// 16 of them. Nothing stays mapped then.
    pub fn new(device: &Device, refs: &[GrantRef]) -> Result<Self> {
        if refs.is_empty() || refs.len() > MAX_PAGES {
            return Err(EINVAL);
        }
        let mut raw = [0; MAX_PAGES];
        for (raw, gref) in raw.iter_mut().zip(refs) {
            *raw = gref.0;
        }
        let mut base = core::ptr::null_mut();
        // SAFETY: The device is valid. So many references are there, and `base` is written.
        to_result(unsafe {
            sys::xenbus_map_ring_valloc(
                device.as_raw(),
                raw.as_mut_ptr(),
                refs.len() as u32,
                &raw mut base,
            )
        })?;
        // INVARIANT: It was mapped just now.
        let base = NonNull::new(base.cast()).ok_or(ENOMEM)?;
        Ok(Self { base, len: refs.len().saturating_mul(PAGE_SIZE), device: device.into() })
    }
}

impl AsRegion for MappedRing {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        // SAFETY: By the type invariant, the memory stays mapped until `self` is dropped. It begins with a page, and
        // nobody makes a reference into it.
        unsafe { Region::new(self.base, self.len) }
    }
}

impl Drop for MappedRing {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. What cannot be unmapped is lost, which C says in the log.
        unsafe { sys::xenbus_unmap_ring_vfree(self.device.as_raw(), self.base.as_ptr().cast()) };
    }
}
