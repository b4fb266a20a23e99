// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages of a file, mapped into this process until dropped.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use ring_proto::shared::{PAGE_SIZE, Region};
use rustix::mm::{MapFlags, ProtFlags};

use crate::Access;

/// A shared mapping of a file. It owns the address range and unmaps it when dropped.
#[derive(Debug)]
pub struct Mapped {
    region: Region,
}

impl Mapped {
    /// Maps the first `pages` pages of `file`.
    ///
    /// # Errors
    ///
    /// What `mmap` says; `InvalidInput` for no pages at all.
    pub fn file(file: impl AsFd, pages: usize, access: Access) -> io::Result<Self> {
        Self::file_at(file, 0, pages, access)
    }

    /// Maps `pages` pages of `file` from byte `offset` on, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// What `mmap` says; `InvalidInput` for no pages at all.
    pub fn file_at(file: impl AsFd, offset: u64, pages: usize, access: Access) -> io::Result<Self> {
        let len = length(pages)?;
        // SAFETY: the system chooses an unused address range, which this value then owns.
        let base = unsafe {
            rustix::mm::mmap(null_mut(), len, protection(access), MapFlags::SHARED, file, offset)?
        };
        Self::owning(base, len)
    }

    /// Maps single pages of `file`, adjacent here in the order of `frames` (page numbers in the file).
    ///
    /// # Errors
    ///
    /// What `mmap` says; `InvalidInput` for no pages at all.
    pub fn stitched(
        file: impl AsFd,
        frames: impl ExactSizeIterator<Item = u64>,
        access: Access,
    ) -> io::Result<Self> {
        let len = length(frames.len())?;
        // SAFETY: as in `file_at`.
        let base = unsafe {
            rustix::mm::mmap_anonymous(null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)?
        };
        let whole = Self::owning(base, len)?;
        for (page, frame) in frames.enumerate() {
            let Some(at) = whole.region.part(page * PAGE_SIZE, PAGE_SIZE) else { break };
            // SAFETY: the page lies in the range that `whole` owns and nothing else refers to yet.
            unsafe {
                rustix::mm::mmap(
                    at.base().as_ptr().cast(),
                    PAGE_SIZE,
                    protection(access),
                    MapFlags::SHARED | MapFlags::FIXED,
                    &file,
                    frame * PAGE_SIZE as u64,
                )?;
            }
        }
        Ok(whole)
    }

    fn owning(base: *mut std::ffi::c_void, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // SAFETY: `base..base + len` was mapped just now, page aligned, and stays so until the drop. A read-only
        // mapping is written by nobody, or the process faults: `Access` is the caller's promise.
        Ok(Self { region: unsafe { Region::new(base, len) } })
    }

    /// The memory. Valid as long as this value lives.
    pub fn region(&self) -> Region {
        self.region
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        use ring_proto::shared::SharedMemory;
        // SAFETY: this value owns the range, and whoever took a region from it keeps it alive.
        let unmapped =
            unsafe { rustix::mm::munmap(self.region.base().as_ptr().cast(), self.region.len()) };
        if let Err(error) = unmapped {
            log::error!("munmap of {:?}: {error}", self.region);
        }
    }
}

fn length(pages: usize) -> io::Result<usize> {
    match pages.checked_mul(PAGE_SIZE) {
        Some(len) if len > 0 => Ok(len),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a mapping of {pages} pages")))
        }
    }
}

fn protection(access: Access) -> ProtFlags {
    match access {
        Access::ReadOnly => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    }
}
