// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xen::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF};
use ring_proto::xen::{DomId, Errno, GrantRef};

use super::abi;
use super::ioctl::{Argument, ioctl, refused};
use crate::mapped::{Mapped, Memory};
use crate::status::grant_result;
use crate::{Access, CopyDirection, Error, GrantCopy};

/// The two drivers for grants.
#[derive(Debug)]
pub(super) struct Files {
    gntalloc: Arc<File>,
    gntdev: Arc<File>,
}

/// Pages that the kernel granted for this program, until dropped. The kernel reuses them when the peer let go of them.
#[derive(Debug)]
pub(crate) struct GrantedPages {
    gntalloc: Arc<File>,
    index: u64,
    count: u32,
}

/// A peer's pages, in the driver's table until dropped. It wants the memory unmapped before that.
#[derive(Debug)]
pub(crate) struct MappedPages {
    gntdev: Arc<File>,
    index: u64,
    count: u32,
}

impl Files {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let open = |name| super::open(directory, name, 0).map(Arc::new);
        Ok(Self { gntalloc: open("gntalloc")?, gntdev: open("gntdev")? })
    }

    pub fn grant(
        &self,
        peer: DomId,
        pages: usize,
        access: Access,
    ) -> Result<(Memory, Vec<GrantRef>, GrantedPages), Error> {
        let operation = || format!("grant of {pages} pages (gntalloc has a parameter `limit`)");
        let count = count(pages).ok_or_else(|| invalid(operation(), peer))?;
        let flags = if access == Access::ReadWrite { abi::GNTALLOC_FLAG_WRITABLE } else { 0 };
        let wish = abi::AllocGref { domid: peer.0, flags, count, index: 0 };
        let mut argument = Argument::new(&wish, pages * size_of::<u32>());
        ioctl(&self.gntalloc, abi::GNTALLOC_ALLOC_GREF, &mut argument)
            .map_err(|error| refused(operation(), peer, error))?;
        let index = argument.get::<abi::AllocGref>(0).index;
        let refs =
            argument.array(size_of::<abi::AllocGref>(), pages).into_iter().map(GrantRef).collect();
        // From here on a drop deallocates.
        let granted = GrantedPages { gntalloc: Arc::clone(&self.gntalloc), index, count };
        let memory = Mapped::file_at(&self.gntalloc, index, pages, Access::ReadWrite)
            .map_err(|error| refused(operation(), peer, error))?;
        Ok((Memory::all(memory), refs, granted))
    }

    pub fn map(
        &self,
        peer: DomId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Memory, MappedPages), Error> {
        let first = refs.first().copied().unwrap_or(GrantRef::INVALID);
        let operation = || format!("map of {} grants from {first} on for {access}", refs.len());
        let count = count(refs.len()).ok_or_else(|| invalid(operation(), peer))?;
        let wish = abi::MapGrantRef { count, ..abi::MapGrantRef::default() };
        let mut argument = Argument::new(&wish, size_of_val(refs) * 2);
        for (index, gref) in refs.iter().enumerate() {
            let offset = size_of::<abi::MapGrantRef>() + index * size_of::<abi::GrantRef>();
            argument.put(offset, &abi::GrantRef { domid: peer.0.into(), gref: gref.0 });
        }
        ioctl(&self.gntdev, abi::GNTDEV_MAP_GRANT_REF, &mut argument)
            .map_err(|error| refused(operation(), peer, error))?;
        let index = argument.get::<abi::MapGrantRef>(0).index;
        let grants = MappedPages { gntdev: Arc::clone(&self.gntdev), index, count };
        // It is this that asks the hypervisor.
        let memory = Mapped::file_at(&self.gntdev, index, refs.len(), access)
            .map_err(|error| refused(operation(), peer, error))?;
        Ok((Memory::all(memory), grants))
    }

    pub fn copy(&self, peer: DomId, operations: &mut [GrantCopy<'_>]) -> Result<(), Error> {
        let mut segments = Vec::with_capacity(operations.len());
        for operation in operations.iter_mut() {
            let fits = usize::from(operation.offset) + operation.local.len() <= PAGE_SIZE;
            operation.status = if fits { Ok(()) } else { Err(Errno::EINVAL) };
            if fits {
                segments.push(segment(peer, operation));
            }
        }
        if segments.is_empty() {
            return Ok(());
        }
        let failed = |error| refused(format!("copy of {} grants", operations.len()), peer, error);
        let request = abi::GrantCopy {
            count: segments.len() as u32,
            pad: 0,
            segments: segments.as_mut_ptr().expose_provenance() as u64,
        };
        // The segments name only memory of regions that the caller holds, and lie where `request` says.
        ioctl(&self.gntdev, abi::GNTDEV_GRANT_COPY, &mut Argument::new(&request, 0))
            .map_err(failed)?;
        let tried = operations.iter_mut().filter(|operation| operation.status.is_ok());
        for (operation, segment) in tried.zip(segments) {
            operation.status = grant_result(segment.status);
        }
        Ok(())
    }
}

fn segment(peer: DomId, operation: &GrantCopy<'_>) -> abi::CopySegment {
    let local = operation.local.base().as_ptr().expose_provenance() as u64;
    let foreign = abi::foreign(operation.gref.0, operation.offset, peer.0);
    let (source, dest, flags) = match operation.direction {
        CopyDirection::FromPeer => (foreign, local, GNTCOPY_SOURCE_GREF),
        CopyDirection::ToPeer => (local, foreign, GNTCOPY_DEST_GREF),
    };
    abi::CopySegment { source, dest, len: operation.local.len() as u16, flags, status: 0, pad: 0 }
}

/// A number of pages as the drivers take it.
fn count(pages: usize) -> Option<u32> {
    u32::try_from(pages).ok().filter(|&count| count > 0)
}

fn invalid(operation: String, peer: DomId) -> Error {
    Error::Refused { operation, peer, errno: Errno::EINVAL }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        let wish = abi::DeallocGref { index: self.index, count: self.count, pad: 0 };
        if let Err(error) =
            ioctl(&self.gntalloc, abi::GNTALLOC_DEALLOC_GREF, &mut Argument::new(&wish, 0))
        {
            log::error!("end the grants of {} pages: {error}", self.count);
        }
    }
}

impl Drop for MappedPages {
    fn drop(&mut self) {
        let wish = abi::UnmapGrantRef { index: self.index, count: self.count, pad: 0 };
        if let Err(error) =
            ioctl(&self.gntdev, abi::GNTDEV_UNMAP_GRANT_REF, &mut Argument::new(&wish, 0))
        {
            log::error!("unmap {} grants: {error}", self.count);
        }
    }
}
