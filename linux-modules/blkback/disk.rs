// SPDX-License-Identifier: GPL-2.0

//! The disk: what all queues of a device share.

use block::bdev::BlockDevice;
use kernel::sync::Arc;
use ring_proto::blkif::limits::{Limits, Rates};
use ring_proto::blkif::Disk as Rules;
use ring_proto::xenbus::vbd::{BackendConfig, BackendFeatures, Discard, Geometry};

/// An open disk.
pub(crate) struct Disk {
    pub(crate) device: Arc<BlockDevice>,
    /// What requests are judged by. Its capacity is not used.
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    /// A discard is done in pieces: the sectors that each begins at a multiple of, and the most that it has.
    pub(crate) discard: (u32, u32),
    /// The same of one that nothing can restore.
    pub(crate) secure: (u32, u32),
    /// Such a one was offered.
    pub(crate) has_secure: bool,
}

/// The most sectors that a bio's length of 32 bits can say.
const MOST_SECTORS: u32 = u32::MAX >> 9;

impl Disk {
    /// A disk of this geometry, offered with these features.
    pub(crate) fn new(
        device: Arc<BlockDevice>,
        config: &BackendConfig,
        features: &BackendFeatures,
        geometry: &Geometry,
    ) -> Self {
        let limits = device.limits();
        let pieces = |unit: u32, most: u32| {
            let unit = (unit.max(geometry.sector_size) >> 9).max(1);
            let whole = most.min(MOST_SECTORS).checked_div(unit).unwrap_or(0).saturating_mul(unit);
            (unit, whole.max(unit))
        };
        Self {
            rules: geometry.disk(features),
            limits: Limits::new(Rates::from(config)),
            discard: pieces(limits.discard_granularity, MOST_SECTORS),
            secure: pieces(0, limits.max_secure_erase_sectors),
            has_secure: geometry.discard.is_some_and(|discard| discard.secure),
            device,
        }
    }
}

/// What a device offers its frontend of this disk.
pub(crate) fn geometry(device: &BlockDevice, config: &BackendConfig, cdrom: bool) -> Geometry {
    let limits = device.limits();
    let discard = config.discard && limits.max_discard_sectors > 0 && !config.read_only;
    let block = limits.logical_block_size;
    Geometry {
        sectors: whole_blocks(device.sectors(), block),
        sector_size: block,
        physical_sector_size: limits.physical_block_size.max(block),
        cdrom: cdrom || limits.cdrom,
        removable: limits.removable,
        read_only: config.read_only,
        discard: discard.then_some(Discard {
            granularity: limits.discard_granularity.max(block),
            alignment: limits.discard_alignment,
            secure: limits.max_secure_erase_sectors > 0,
        }),
    }
}

/// The sectors of a disk that make up whole logical blocks.
pub(crate) fn whole_blocks(sectors: u64, block: u32) -> u64 {
    let unit = u64::from(block >> 9).max(1);
    sectors.wrapping_sub(sectors.checked_rem(unit).unwrap_or(0))
}
