// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory of this side for the kernel to reach, and the ioctls that discard.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use hypervisor_client::mapped::Mapped;
use ring_proto::shared::{AsRegion, PAGE_SIZE, Region};

/// Private pages, for data that the hypervisor copies. Pages never touched take no memory.
#[derive(Debug)]
pub(crate) struct PrivatePages {
    memory: Arc<Mapped>,
}

impl PrivatePages {
    /// `count` pages of zeros, at least one.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        Ok(Self { memory: Arc::new(Mapped::anonymous(count)?) })
    }

    /// One of them.
    pub(crate) fn page(&self, index: u32) -> Option<Region<'_>> {
        self.memory.as_region().part(index as usize * PAGE_SIZE, PAGE_SIZE)
    }

    /// All of them.
    pub(crate) fn memory(&self) -> &Arc<Mapped> {
        &self.memory
    }

    /// Gives the memory back to the system; all pages are zeros again. Nobody else may hold on to them.
    pub(crate) fn release(&self) {
        if let Err(error) = self.memory.forget() {
            log::debug!("memory that is not in use stays: {error}");
        }
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
