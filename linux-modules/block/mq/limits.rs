// SPDX-License-Identifier: GPL-2.0

//! What a disk can do (`struct queue_limits`).

use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// How a disk discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes that are discarded together.
    pub granularity: u32,
    /// Bytes before the first such extent.
    pub alignment: u32,
    /// A discard can be made unrecoverable.
    pub secure: bool,
}

/// Limits of a disk whose requests are made of parts of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a logical block.
    pub logical_block: u32,
    /// Bytes of a physical block.
    pub physical_block: u32,
    /// Most segments of a request. None crosses the border of a page.
    pub segments: u16,
    /// Completed writes may be lost unless they are flushed.
    pub write_cache: bool,
    /// A single write can be made durable.
    pub fua: bool,
    /// How it discards, if it does.
    pub discard: Option<Discard>,
}

impl Limits {
    /// Checks what the block layer takes for granted.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it would not hold.
    pub(super) fn check(&self) -> Result {
        let blocks = [self.logical_block, self.physical_block];
        let powers = blocks.iter().all(|block| block.is_power_of_two() && *block >= 512);
        let page = u32::try_from(PAGE_SIZE)?;
        if powers && self.logical_block <= page && self.segments > 0 {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Overwrites the limits that this type has.
    pub(super) fn apply(&self, limits: &mut bindings::queue_limits) {
        limits.logical_block_size = self.logical_block;
        limits.physical_block_size = self.physical_block;
        limits.io_min = self.physical_block;
        limits.max_segments = self.segments;
        limits.max_segment_size = PAGE_SIZE as u32;
        limits.seg_boundary_mask = PAGE_SIZE - 1;
        limits.max_hw_sectors = u32::from(self.segments) * (PAGE_SIZE / 512) as u32;
        // A logical block must not lie in two segments.
        limits.dma_alignment = self.logical_block - 1;

        limits.features &= !(sys::CAUSEWAY_FEAT_WRITE_CACHE | sys::CAUSEWAY_FEAT_FUA);
        if self.write_cache {
            limits.features |= sys::CAUSEWAY_FEAT_WRITE_CACHE;
            if self.fua {
                limits.features |= sys::CAUSEWAY_FEAT_FUA;
            }
        }
        let discard = self.discard.filter(|discard| discard.granularity >= 512);
        limits.max_hw_discard_sectors = if discard.is_some() { u32::MAX } else { 0 };
        limits.max_secure_erase_sectors =
            if discard.is_some_and(|discard| discard.secure) { u32::MAX } else { 0 };
        limits.discard_granularity = discard.map_or(0, |discard| discard.granularity);
        limits.discard_alignment = discard.map_or(0, |discard| discard.alignment);
    }
}
