// SPDX-License-Identifier: MIT OR Apache-2.0

//! `HYPERVISOR_grant_table_op`.

use alloc::vec::Vec;

use ring_proto::shared::Wire;
use ring_proto::xen::grant_table::{
    self as abi, Copy, CopyPtr, GetStatusFrames, GetVersion, GrantError, MapGrantRef, QuerySize,
    SetVersion, SetupTable, SwapGrantRef, Transfer, UnmapAndReplace, UnmapGrantRef, op,
};
use ring_proto::xen::{DomId, Errno, GrantRef};

use super::{GuestMemory, read, write};
use crate::Hypervisor;
use crate::domain::DomainKind;
use crate::grant::{CopyEnd, Handle, MapGrant};
use crate::machine::{Gfn, Machine, Mfn, PAGE_SIZE};

/// The frame that a guest-physical address lies in.
fn frame_of(address: u64) -> Gfn {
    Gfn(address / PAGE_SIZE as u64)
}

impl<M: Machine> Hypervisor<M> {
    pub(super) fn grant_table_op(
        &mut self,
        caller: DomId,
        command: u32,
        at: u64,
        count: u32,
        memory: &mut impl GuestMemory,
    ) -> Result<(), Errno> {
        if i32::try_from(count).is_err() {
            return Err(Errno::EINVAL);
        }
        match command {
            op::MAP_GRANT_REF => each(memory, at, count, |arg: &mut MapGrantRef| {
                arg.status = GrantError::status(self.map_grant_ref(caller, arg));
            }),
            op::UNMAP_GRANT_REF => each(memory, at, count, |arg: &mut UnmapGrantRef| {
                let UnmapGrantRef { host_addr, dev_bus_addr, handle, .. } = *arg;
                let done = self.unmap_grant_ref(caller, handle, host_addr, dev_bus_addr);
                arg.status = GrantError::status(done);
            }),
            op::UNMAP_AND_REPLACE => each(memory, at, count, |arg: &mut UnmapAndReplace| {
                arg.status = GrantError::status(self.unmap_and_replace(caller, arg));
            }),
            op::TRANSFER => each(memory, at, count, |arg: &mut Transfer| {
                arg.status = GrantError::status(Err(self.refuse_transfer(caller, arg)));
            }),
            op::COPY => each(memory, at, count, |arg: &mut Copy| {
                arg.status = GrantError::status(self.copy(caller, arg));
            }),
            op::SWAP_GRANT_REF => each(memory, at, count, |arg: &mut SwapGrantRef| {
                let (one, other) = (GrantRef(arg.ref_a), GrantRef(arg.ref_b));
                arg.status = GrantError::status(self.swap_grant_refs(caller, one, other));
            }),
            op::SETUP_TABLE | op::QUERY_SIZE | op::GET_STATUS_FRAMES if count != 1 => {
                Err(Errno::EINVAL)
            }
            op::SETUP_TABLE => {
                let mut arg: SetupTable = read(memory, at)?;
                let done = self.setup_table(caller, &arg, memory);
                arg.status = GrantError::status(done);
                write(memory, at, &arg)
            }
            op::QUERY_SIZE => {
                let mut arg: QuerySize = read(memory, at)?;
                let done = self.query_size(caller, &mut arg);
                arg.status = GrantError::status(done);
                write(memory, at, &arg)
            }
            op::GET_STATUS_FRAMES => {
                let mut arg: GetStatusFrames = read(memory, at)?;
                let done = self.get_status_frames(caller, &arg, memory);
                arg.status = GrantError::status(done);
                write(memory, at, &arg)
            }
            op::SET_VERSION => {
                let mut arg: SetVersion = read(memory, at)?;
                let done = self.set_grant_table_version(caller, arg.version);
                arg.version = self.grant_table_version(caller)?;
                write(memory, at, &arg)?;
                done
            }
            op::GET_VERSION => {
                let mut arg: GetVersion = read(memory, at)?;
                let id = self.resolve(caller, DomId(arg.dom))?;
                self.may_control(caller, id)?;
                arg.version = self.grant_table_version(id)?;
                write(memory, at, &arg)
            }
            // Xen has a dump only for its own console, and cache maintenance not on x86.
            _ => Err(Errno::ENOSYS),
        }
    }

    fn is_process(&self, id: DomId) -> bool {
        self.live(id).is_some_and(|domain| domain.kind == DomainKind::Process)
    }

    fn map_grant_ref(&mut self, caller: DomId, arg: &mut MapGrantRef) -> Result<(), GrantError> {
        let ways = arg.flags & (abi::GNTMAP_HOST_MAP | abi::GNTMAP_DEVICE_MAP);
        if ways == 0 {
            return Err(GrantError::BadGntref);
        }
        let process = self.is_process(caller);
        let way = if process { abi::GNTMAP_DEVICE_MAP } else { abi::GNTMAP_HOST_MAP };
        if arg.flags & !abi::GNTMAP_READONLY != way {
            return Err(GrantError::GeneralError);
        }
        let wish = MapGrant {
            granter: DomId(arg.dom),
            gref: GrantRef(arg.gref),
            readonly: arg.flags & abi::GNTMAP_READONLY != 0,
            at: (!process).then(|| frame_of(arg.host_addr)),
        };
        let mapped = self.map_grant(caller, wish)?;
        arg.handle = mapped.handle.0;
        arg.dev_bus_addr = mapped.mfn.address();
        Ok(())
    }

    /// An address of 0 leaves its way of the mapping alone, so an unmapping that names none is one of nothing.
    fn unmap_grant_ref(
        &mut self,
        caller: DomId,
        handle: u32,
        host_addr: u64,
        dev_bus_addr: u64,
    ) -> Result<(), GrantError> {
        let handle = Handle(handle);
        let mfn = self.mapped_frame(caller, handle).ok_or(GrantError::BadHandle)?;
        let (named, at) = if self.is_process(caller) {
            if dev_bus_addr != 0 && dev_bus_addr != mfn.address() {
                return Err(GrantError::BadDevAddr);
            }
            (dev_bus_addr != 0, None)
        } else {
            (host_addr != 0, Some(frame_of(host_addr)))
        };
        if named { self.unmap_grant(caller, handle, at).map(drop) } else { Ok(()) }
    }

    /// Only the page tables of PV guests have something to replace; without a replacement it unmaps.
    fn unmap_and_replace(
        &mut self,
        caller: DomId,
        arg: &UnmapAndReplace,
    ) -> Result<(), GrantError> {
        let handle = Handle(arg.handle);
        self.mapped_frame(caller, handle).ok_or(GrantError::BadHandle)?;
        if self.is_process(caller) || arg.host_addr == 0 {
            return Ok(());
        }
        if arg.new_addr != 0 {
            return Err(GrantError::GeneralError);
        }
        self.unmap_grant(caller, handle, Some(frame_of(arg.host_addr))).map(drop)
    }

    /// No frame ever leaves a domain whose memory the hypervisor translates.
    fn refuse_transfer(&self, caller: DomId, arg: &Transfer) -> GrantError {
        match self.frame_at(caller, Gfn(arg.mfn)) {
            None => GrantError::BadPage,
            Some(_) => GrantError::GeneralError,
        }
    }

    fn copy(&mut self, caller: DomId, arg: &Copy) -> Result<(), GrantError> {
        if arg.len == 0 {
            return Ok(());
        }
        let source = copy_end(&arg.source, arg.flags & abi::GNTCOPY_SOURCE_GREF != 0)?;
        let dest = copy_end(&arg.dest, arg.flags & abi::GNTCOPY_DEST_GREF != 0)?;
        self.copy_grant(caller, (source, arg.source.offset), (dest, arg.dest.offset), arg.len)
    }

    /// Whose table the caller means, if it may.
    fn table_of(&self, caller: DomId, id: u16) -> Result<DomId, GrantError> {
        let id = self.resolve(caller, DomId(id)).map_err(|_| GrantError::BadDomain)?;
        self.may_control(caller, id).map_err(|_| GrantError::PermissionDenied)?;
        Ok(id)
    }

    fn setup_table(
        &mut self,
        caller: DomId,
        arg: &SetupTable,
        memory: &mut impl GuestMemory,
    ) -> Result<(), GrantError> {
        let id = self.table_of(caller, arg.dom)?;
        let frames = self.grant_table_frames(id, arg.nr_frames);
        let frames = frames.map_err(|_| GrantError::GeneralError)?.to_vec();
        self.tell_frames(id, &frames, arg.nr_frames, arg.frame_list, memory)
    }

    fn get_status_frames(
        &mut self,
        caller: DomId,
        arg: &GetStatusFrames,
        memory: &mut impl GuestMemory,
    ) -> Result<(), GrantError> {
        let id = self.table_of(caller, arg.dom)?;
        let frames = self.grant_status_frames(id).map_err(|_| GrantError::BadDomain)?.to_vec();
        if arg.nr_frames as usize > frames.len() {
            return Err(GrantError::GeneralError);
        }
        self.tell_frames(id, &frames, arg.nr_frames, arg.frame_list, memory)
    }

    /// Writes a list of frames as the domain knows them: a process by machine frame, a guest by the place that it gave
    /// the frame in its memory.
    fn tell_frames(
        &self,
        id: DomId,
        frames: &[Mfn],
        count: u32,
        list: u64,
        memory: &mut impl GuestMemory,
    ) -> Result<(), GrantError> {
        const NOWHERE: u64 = u64::MAX;
        let process = self.is_process(id);
        let placed = self.live(id).map(|domain| &domain.placed);
        let numbers: Vec<u64> = frames
            .iter()
            .take(count as usize)
            .map(|mfn| match placed.and_then(|placed| placed.get(mfn)) {
                _ if process => mfn.0,
                Some(gfn) => gfn.0,
                None => NOWHERE,
            })
            .collect();
        for (index, number) in (0..).zip(numbers) {
            let address = list.checked_add(index * 8).ok_or(GrantError::BadVirtAddr)?;
            write(memory, address, &number).map_err(|_| GrantError::BadVirtAddr)?;
        }
        Ok(())
    }

    fn query_size(&self, caller: DomId, arg: &mut QuerySize) -> Result<(), GrantError> {
        let id = self.table_of(caller, arg.dom)?;
        let size = self.grant_table_size(id).map_err(|_| GrantError::BadDomain)?;
        (arg.nr_frames, arg.max_nr_frames) = (size.frames, size.max_frames);
        Ok(())
    }
}

/// Does `operation` to `count` structures in a row, which each carry their own status.
fn each<T: Wire>(
    memory: &mut impl GuestMemory,
    at: u64,
    count: u32,
    mut operation: impl FnMut(&mut T),
) -> Result<(), Errno> {
    for index in 0..u64::from(count) {
        let offset = index * size_of::<T>() as u64;
        let address = at.checked_add(offset).ok_or(Errno::EFAULT)?;
        let mut arg = read(memory, address)?;
        operation(&mut arg);
        write(memory, address, &arg)?;
    }
    Ok(())
}

/// An end of a copy: a domain's frame can be named only by the domain itself.
fn copy_end(end: &CopyPtr, is_gref: bool) -> Result<CopyEnd, GrantError> {
    let domain = DomId(end.domid);
    if is_gref {
        Ok(CopyEnd::Grant(domain, GrantRef(end.frame as u32)))
    } else if domain == DomId::SELF {
        Ok(CopyEnd::Own(Gfn(end.frame)))
    } else {
        Err(GrantError::PermissionDenied)
    }
}
