// SPDX-License-Identifier: GPL-2.0

//! Block devices as their users see them.
//!
//! C header: `include/linux/blkdev.h`.

use core::ptr::NonNull;

use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;

/// A device number as major and minor (`dev_t`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber(bindings::dev_t);

impl DeviceNumber {
    const MINOR_BITS: u32 = 20;

    /// The number of these two parts, or `None` when one of them has too many bits.
    pub const fn new(major: u32, minor: u32) -> Option<Self> {
        if major >> (32 - Self::MINOR_BITS) != 0 || minor >> Self::MINOR_BITS != 0 {
            return None;
        }
        Some(Self(major << Self::MINOR_BITS | minor))
    }

    /// Its major number.
    pub const fn major(self) -> u32 {
        self.0 >> Self::MINOR_BITS
    }

    /// Its minor number.
    pub const fn minor(self) -> u32 {
        self.0 & ((1 << Self::MINOR_BITS) - 1)
    }
}

/// What a block device is and can do. It may change while the device is open, as with a new medium.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes of a logical block.
    pub logical_block_size: u32,
    /// Bytes of a physical block.
    pub physical_block_size: u32,
    /// Most sectors of one discard; 0 when it has none.
    pub max_discard_sectors: u32,
    /// Bytes that are discarded together.
    pub discard_granularity: u32,
    /// Bytes before the first such extent.
    pub discard_alignment: u32,
    /// Most sectors of one secure erase; 0 when it has none.
    pub max_secure_erase_sectors: u32,
    /// It has a volatile write cache, and so flushes.
    pub write_cache: bool,
    /// Its medium can be taken out.
    pub removable: bool,
    /// It is a CD-ROM drive.
    pub cdrom: bool,
}

/// An open block device, not claimed for exclusive use. Dropping it closes it, which may write back what others left in
/// its page cache, and so may sleep for long.
pub struct BlockDevice {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
    number: DeviceNumber,
}

// SAFETY: A file may be used and closed by any thread.
unsafe impl Send for BlockDevice {}
// SAFETY: All that is done through a shared reference is reading what the block layer lets anyone read, and submitting.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// Opens the device of this number, for reading, and also for writing if `write`.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be opened so.
    pub fn open(number: DeviceNumber, write: bool) -> Result<Self> {
        let mode = sys::causeway_blk_CAUSEWAY_BLK_OPEN_READ
            | if write { sys::causeway_blk_CAUSEWAY_BLK_OPEN_WRITE } else { 0 };
        // SAFETY: Without a holder there are no operations of one either.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_dev(
                number.0,
                mode,
                core::ptr::null_mut(),
                core::ptr::null(),
            )
        })?;
        let file = NonNull::new(file).ok_or(ENXIO)?;
        // SAFETY: The file is an open block device's; it holds the device.
        let bdev = unsafe { bindings::file_bdev(file.as_ptr()) };
        match NonNull::new(bdev) {
            Some(bdev) => Ok(Self { file, bdev, number }),
            None => {
                // SAFETY: The reference that the opening returned.
                unsafe { bindings::fput(file.as_ptr()) };
                Err(ENXIO)
            }
        }
    }

    /// Its number.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Its size at this moment, in sectors of 512 bytes.
    #[inline]
    pub fn sectors(&self) -> u64 {
        // SAFETY: The device is open.
        unsafe { sys::causeway_bdev_sectors(self.as_ptr()) }
    }

    /// What it is and can do at this moment.
    pub fn limits(&self) -> Limits {
        let mut limits = sys::causeway_bdev_limits::default();
        // SAFETY: The device is open, and `limits` can be written.
        unsafe { sys::causeway_bdev_limits(self.as_ptr(), &mut limits) };
        Limits {
            logical_block_size: limits.logical_block_size,
            physical_block_size: limits.physical_block_size,
            max_discard_sectors: limits.max_discard_sectors,
            discard_granularity: limits.discard_granularity,
            discard_alignment: limits.discard_alignment,
            max_secure_erase_sectors: limits.max_secure_erase_sectors,
            write_cache: limits.write_cache,
            removable: limits.removable,
            cdrom: limits.cdrom,
        }
    }

    /// Writes back the page cache of the device, and drops it: what is read past it afterwards is what others wrote
    /// through it before. May sleep for long.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    pub fn sync_and_invalidate(&self) -> Result {
        // SAFETY: The device is open.
        to_result(unsafe { bindings::sync_blockdev(self.as_ptr()) })?;
        // SAFETY: The file is open. A page that stays because it is in use is no error of ours.
        unsafe { bindings::invalidate_inode_pages2((*self.file.as_ptr()).f_mapping) };
        Ok(())
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        // SAFETY: This is the reference that `open` got. Put at once and not by the delayed work of kernel threads, so
        // that whoever waits for the device to be free (`losetup -d`) finds it so.
        unsafe { bindings::__fput_sync(self.file.as_ptr()) };
    }
}
