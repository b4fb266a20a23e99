// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory of this side for the kernel to reach, and the ioctls that discard.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use ring_proto::shared::{PAGE_SIZE, Region, SharedMemory};

/// Private pages, for data that the hypervisor copies. Pages never touched take no memory.
#[derive(Debug)]
pub(crate) struct PrivatePages {
    memory: Region,
}

impl PrivatePages {
    /// `count` pages of zeros, at least one.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let len = count.max(1) * PAGE_SIZE;
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: mapped just now, unmapped in `drop`, after the engine that might use it is gone (the queue's fields
        // are dropped in that order); page-aligned; no reference into it is ever made.
        Ok(Self { memory: unsafe { Region::new(base, len) } })
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn region(&self) -> Region {
        self.memory
    }

    /// One of them.
    pub(crate) fn page(&self, index: u32) -> Option<Region> {
        self.memory.part(index as usize * PAGE_SIZE, PAGE_SIZE)
    }

    /// Gives the memory back to the system; all pages are zeros again.
    pub(crate) fn release(&self) {
        // SAFETY: the range is this mapping. No operation is under way in it: the caller says so by calling.
        unsafe {
            libc::madvise(
                self.memory.base().as_ptr().cast(),
                self.memory.len(),
                libc::MADV_DONTNEED,
            )
        };
    }
}

impl Drop for PrivatePages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, used by nobody any more.
        unsafe { libc::munmap(self.memory.base().as_ptr().cast(), self.memory.len()) };
    }
}

/// A page on a page boundary, for trying out direct I/O.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct AlignedPage([u8; PAGE_SIZE]);

impl AlignedPage {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self([0; PAGE_SIZE]))
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// `BLKDISCARD`.
const BLKDISCARD: libc::c_ulong = 0x1277;
/// `BLKSECDISCARD`.
const BLKSECDISCARD: libc::c_ulong = 0x127d;

/// Discards a range of a block device, in bytes, and waits for it.
pub(crate) fn discard_range(device: &File, offset: u64, len: u64, secure: bool) -> io::Result<()> {
    let range = [offset, len];
    let request = if secure { BLKSECDISCARD } else { BLKDISCARD };
    // SAFETY: both ioctls read two words at the pointer and write nothing there.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const range) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a block device can discard securely. It is asked for a range that no device takes: one that can complains
/// about the range, one that cannot about the request.
pub(crate) fn can_secure_discard(device: &File) -> bool {
    discard_range(device, 1, 1, true).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}
