// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory mapped into this process until dropped.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use ring_proto::shared::{AsRegion, PAGE_SIZE, Region, SharedMemory};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::Access;

/// A mapping. It owns the address range and unmaps it when dropped.
#[derive(Debug)]
pub struct Mapped {
    /// Valid until the drop, so handed out only for as long as `self` is borrowed.
    region: Region<'static>,
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

    /// Maps `pages` pages of zeros that are no file's. One never touched takes no memory.
    ///
    /// # Errors
    ///
    /// What `mmap` says; `InvalidInput` for no pages at all.
    pub fn anonymous(pages: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        Self::unnamed(pages, protection(Access::ReadWrite), flags)
    }

    fn unnamed(pages: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        let len = length(pages)?;
        // SAFETY: as in `file_at`.
        let base = unsafe { rustix::mm::mmap_anonymous(null_mut(), len, protection, flags)? };
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
        let whole = Self::unnamed(frames.len(), ProtFlags::empty(), MapFlags::PRIVATE)?;
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

    /// Makes all pages of an [`anonymous`](Self::anonymous) mapping zeros again, and gives their memory back to the
    /// system. Nothing else happens to a mapping of a file.
    ///
    /// # Errors
    ///
    /// What `madvise` says.
    pub fn forget(&self) -> io::Result<()> {
        let base = self.region.base().as_ptr().cast();
        // SAFETY: the range stays mapped; its contents may change at any time, as all shared memory's.
        unsafe { rustix::mm::madvise(base, self.region.len(), Advice::LinuxDontNeed)? };
        Ok(())
    }
}

impl AsRegion for Mapped {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        self.region
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this value owns the range, and every region of it borrowed this value.
        let unmapped =
            unsafe { rustix::mm::munmap(self.region.base().as_ptr().cast(), self.region.len()) };
        if let Err(error) = unmapped {
            log::error!("munmap of {:?}: {error}", self.region);
        }
    }
}

/// Part of a mapping, which it keeps mapped.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Valid as long as `owner` lives, so handed out only for as long as `self` is borrowed.
    region: Region<'static>,
    owner: Arc<Mapped>,
}

impl Memory {
    /// All of a mapping.
    pub fn all(owner: Mapped) -> Self {
        Self { region: owner.region, owner: Arc::new(owner) }
    }

    /// `len` bytes from `offset` on, or `None` if they do not lie inside.
    pub fn part(owner: &Arc<Mapped>, offset: usize, len: usize) -> Option<Self> {
        Some(Self { region: owner.region.part(offset, len)?, owner: Arc::clone(owner) })
    }

    /// The mapping that it is a part of.
    pub fn owner(&self) -> &Arc<Mapped> {
        &self.owner
    }
}

impl AsRegion for Memory {
    #[inline]
    fn as_region(&self) -> Region<'_> {
        self.region
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
