// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, KeyError, ReadDirectory, Reason, WriteDirectory};
use super::{keys, BackendFeatures};
use crate::blkif::{info, Disk};

/// Bytes of a sector, as in every number that counts sectors.
const SECTOR_SIZE: u32 = crate::blkif::SECTOR_SIZE as u32;

/// How a disk discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes that are discarded together, a multiple of 512.
    pub granularity: u32,
    /// Bytes before the first such extent.
    pub alignment: u32,
    /// A discard can be made unrecoverable.
    pub secure: bool,
}

/// Size and nature of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in units of 512 bytes; a multiple of the logical block. 0 is a drive without a medium.
    pub sectors: u64,
    /// Bytes of a logical block: a power of two from 512 to 4096.
    pub sector_size: u32,
    /// Bytes of a physical block: a multiple of the logical one.
    pub physical_sector_size: u32,
    /// It is a CD-ROM drive.
    pub cdrom: bool,
    /// Its medium can be removed.
    pub removable: bool,
    /// Writes are refused.
    pub read_only: bool,
    /// How it discards, if it does.
    pub discard: Option<Discard>,
}

impl Geometry {
    /// A writable disk of `sectors` times 512 bytes, in blocks of 512 bytes, that does not discard.
    pub const fn new(sectors: u64) -> Self {
        Self {
            sectors,
            sector_size: SECTOR_SIZE,
            physical_sector_size: SECTOR_SIZE,
            cdrom: false,
            removable: false,
            read_only: false,
            discard: None,
        }
    }

    /// Size in bytes.
    pub const fn len(&self) -> u64 {
        // `sectors` of a checked geometry is at most u64::MAX / 512.
        self.sectors.saturating_mul(SECTOR_SIZE as u64)
    }

    /// Whether there is no sector at all.
    pub const fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// What requests to this disk are judged by, when the backend offers `features`.
    pub const fn disk(&self, features: &BackendFeatures) -> Disk {
        Disk {
            capacity: self.sectors,
            logical: self.sector_size,
            read_only: self.read_only,
            flush: features.flush_cache,
            barrier: features.barrier,
            discard: self.discard.is_some(),
        }
    }

    /// Checks it.
    ///
    /// # Errors
    ///
    /// Names the key that would be wrong.
    pub fn check(&self) -> Result<(), KeyError> {
        let refuse =
            |key: super::super::Key, number, reason| Err(key.refuse(&key.path(), number, reason));
        keys::SECTORS.check(&keys::SECTORS.path(), self.sectors)?;
        keys::SECTOR_SIZE.check(&keys::SECTOR_SIZE.path(), u64::from(self.sector_size))?;
        let block = u64::from(self.sector_size);
        if !block.is_power_of_two() {
            return refuse(keys::SECTOR_SIZE, block, Reason::NotAPowerOfTwo);
        }
        let block_sectors = block / u64::from(SECTOR_SIZE);
        if self.sectors % block_sectors != 0 {
            return refuse(keys::SECTORS, self.sectors, Reason::NotAMultipleOf(block_sectors));
        }
        let physical = u64::from(self.physical_sector_size);
        if physical == 0 || physical % block != 0 {
            let reason = Reason::NotAMultipleOf(block);
            return refuse(keys::PHYSICAL_SECTOR_SIZE, physical, reason);
        }
        if let Some(discard) = self.discard {
            let granularity = u64::from(discard.granularity);
            let unit = u64::from(SECTOR_SIZE);
            if granularity == 0 || granularity % unit != 0 {
                let reason = Reason::NotAMultipleOf(unit);
                return refuse(keys::DISCARD_GRANULARITY, granularity, reason);
            }
        }
        Ok(())
    }

    /// Publishes it in the backend's own directory, before the backend goes to `Connected`, or writes `Connected` once
    /// more because the disk changed.
    ///
    /// # Errors
    ///
    /// When it is not legal, or xenstore cannot be written.
    pub fn write<D: WriteDirectory>(&self, own: &mut D) -> Result<(), Error<D::Error>> {
        self.check()?;
        let bit = |on, bit| if on { bit } else { 0 };
        let info = bit(self.cdrom, info::CDROM)
            | bit(self.removable, info::REMOVABLE)
            | bit(self.read_only, info::READONLY);
        for (key, number) in [
            (keys::SECTORS, self.sectors),
            (keys::SECTOR_SIZE, u64::from(self.sector_size)),
            (keys::PHYSICAL_SECTOR_SIZE, u64::from(self.physical_sector_size)),
            (keys::INFO, u64::from(info)),
            (keys::DISCARD, u64::from(self.discard.is_some())),
        ] {
            own.write(key.name, format_args!("{number}")).map_err(Error::Store)?;
        }
        if let Some(discard) = self.discard {
            for (key, number) in [
                (keys::DISCARD_GRANULARITY, discard.granularity),
                (keys::DISCARD_ALIGNMENT, discard.alignment),
                (keys::DISCARD_SECURE, u32::from(discard.secure)),
            ] {
                own.write(key.name, format_args!("{number}")).map_err(Error::Store)?;
            }
        }
        Ok(())
    }

    /// Reads it from the backend's directory, when the backend is `Connected` and each time its `state` is written
    /// again.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is not legal.
    pub fn read<D: ReadDirectory>(backend: &mut D) -> Result<Self, Error<D::Error>> {
        let sector_size = keys::SECTOR_SIZE.u32(backend)?;
        let physical_sector_size =
            keys::PHYSICAL_SECTOR_SIZE.optional_u32(backend)?.unwrap_or(sector_size);
        let info = keys::INFO.u32(backend)?;
        let discard = if keys::DISCARD.flag(backend)? {
            let granularity = keys::DISCARD_GRANULARITY.optional_u32(backend)?;
            let granularity = granularity.filter(|bytes| *bytes != 0).unwrap_or(sector_size);
            Some(Discard {
                granularity,
                alignment: keys::DISCARD_ALIGNMENT.u32(backend)?,
                secure: keys::DISCARD_SECURE.flag(backend)?,
            })
        } else {
            None
        };
        let geometry = Self {
            sectors: keys::SECTORS.number(backend)?,
            sector_size,
            physical_sector_size,
            cdrom: info & info::CDROM != 0,
            removable: info & info::REMOVABLE != 0,
            read_only: info & info::READONLY != 0,
            discard,
        };
        geometry.check()?;
        Ok(geometry)
    }
}
