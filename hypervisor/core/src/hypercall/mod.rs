// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a hypercall, as a guest makes it, to the operations of this crate, and back to the number it returns.
//!
//! The arguments are registers, some of which are addresses of structures in the guest's memory. How that memory is
//! reached is the embedder's matter ([`GuestMemory`]): page tables on bare metal, a [`Buffer`] that came over a socket
//! in the hosted mode. Each structure is copied in once, judged, and copied out.

mod event;
mod grant;

use ring_proto::shared::{Wire, bytes_of, bytes_of_mut, zeroed};
use ring_proto::xen::{DomId, Errno, hypercall};

use crate::Hypervisor;
use crate::machine::Machine;

/// Memory of the guest that makes a hypercall.
pub trait GuestMemory {
    /// Copies from the guest.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the guest cannot read all of that.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies to the guest.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the guest cannot write all of that.
    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Errno>;
}

/// Guest memory that is just some bytes: an address is an offset.
#[derive(Debug)]
pub struct Buffer<'a>(pub &'a mut [u8]);

impl Buffer<'_> {
    fn range(address: u64, len: usize) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(address).ok()?;
        Some(start..start.checked_add(len)?)
    }
}

impl GuestMemory for Buffer<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        let range = Self::range(address, into.len()).ok_or(Errno::EFAULT)?;
        into.copy_from_slice(self.0.get(range).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Errno> {
        let range = Self::range(address, from.len()).ok_or(Errno::EFAULT)?;
        self.0.get_mut(range).ok_or(Errno::EFAULT)?.copy_from_slice(from);
        Ok(())
    }
}

/// Copies a structure in.
fn read<T: Wire>(memory: &impl GuestMemory, address: u64) -> Result<T, Errno> {
    let mut value = zeroed();
    memory.read(address, bytes_of_mut(&mut value))?;
    Ok(value)
}

/// Copies a structure out.
fn write<T: Wire>(memory: &mut impl GuestMemory, address: u64, value: &T) -> Result<(), Errno> {
    memory.write(address, bytes_of(value))
}

impl<M: Machine> Hypervisor<M> {
    /// Carries out hypercall `number` with the arguments in `registers`, in the order of Xen's calling convention.
    /// Returns what the guest finds in its result register: a negative [`Errno`], or else not less than 0.
    pub fn dispatch(
        &mut self,
        caller: DomId,
        number: u64,
        registers: &[u64; 5],
        memory: &mut impl GuestMemory,
    ) -> i64 {
        if self.live(caller).is_none() {
            return -(Errno::ESRCH as i64);
        }
        let [command, address, count, ..] = *registers;
        // Xen declares these two as 32 bits wide and looks at no more of the register.
        let (command, count) = (command as u32, count as u32);
        let done = match u32::try_from(number) {
            Ok(hypercall::GRANT_TABLE_OP) => {
                self.grant_table_op(caller, command, address, count, memory)
            }
            Ok(hypercall::EVENT_CHANNEL_OP) => {
                self.event_channel_op(caller, command, address, memory)
            }
            _ => Err(Errno::ENOSYS),
        };
        match done {
            Ok(()) => 0,
            Err(errno) => -(errno as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::event_channel as evtchn;
    use ring_proto::xen::grant_table::{self as gnttab, GrantError};
    use ring_proto::xen::hypercall::{EVENT_CHANNEL_OP, GRANT_TABLE_OP, XEN_VERSION};

    use super::*;
    use crate::machine::{FrameUse, Gfn};
    use crate::ram::{A, B, Ram, domains, grant_v1, processes};
    use crate::{DomainConfig, DomainKind};

    /// Makes a hypercall with one structure at address 8. Returns its result and the structure.
    fn call<T: Wire>(
        hv: &mut Hypervisor<Ram>,
        caller: DomId,
        number: u32,
        command: u32,
        arg: T,
    ) -> (i64, T) {
        let mut bytes = std::vec![0; 8];
        bytes.extend_from_slice(bytes_of(&arg));
        let registers = [command.into(), 8, 1, 0, 0];
        let result = hv.dispatch(caller, number.into(), &registers, &mut Buffer(&mut bytes));
        (result, ring_proto::shared::from_bytes(&bytes[8..]).unwrap())
    }

    fn grant<T: Wire>(hv: &mut Hypervisor<Ram>, caller: DomId, command: u32, arg: T) -> (i64, T) {
        call(hv, caller, GRANT_TABLE_OP, command, arg)
    }

    fn event<T: Wire>(hv: &mut Hypervisor<Ram>, caller: DomId, command: u32, arg: T) -> (i64, T) {
        call(hv, caller, EVENT_CHANNEL_OP, command, arg)
    }

    fn refused(errno: Errno) -> i64 {
        -(errno as i64)
    }

    #[test]
    fn what_does_not_exist() {
        let mut hv = processes();
        let port = evtchn::PortOnly::default();
        assert_eq!(call(&mut hv, A, XEN_VERSION, 0, port).0, refused(Errno::ENOSYS));
        assert_eq!(event(&mut hv, A, 14, port).0, refused(Errno::ENOSYS));
        assert_eq!(grant(&mut hv, A, 13, port).0, refused(Errno::ENOSYS));
        let dump = gnttab::DumpTable::default();
        assert_eq!(grant(&mut hv, A, gnttab::op::DUMP_TABLE, dump).0, refused(Errno::ENOSYS));
        let flush = gnttab::CacheFlush::default();
        assert_eq!(grant(&mut hv, A, gnttab::op::CACHE_FLUSH, flush).0, refused(Errno::ENOSYS));
        assert_eq!(event(&mut hv, DomId(77), evtchn::op::SEND, port).0, refused(Errno::ESRCH));
        let far_away = hv.dispatch(A, 1 << 32 | 20, &[0; 5], &mut Buffer(&mut []));
        assert_eq!(far_away, refused(Errno::ENOSYS));
    }

    #[test]
    fn memory_that_is_not_there() {
        let mut hv = processes();
        let mut at = |number: u32, command: u32, address: u64, count: u64, len: usize| {
            let mut bytes = std::vec![0; len];
            let registers = [command.into(), address, count, 0, 0];
            hv.dispatch(A, number.into(), &registers, &mut Buffer(&mut bytes))
        };
        let (fault, invalid) = (refused(Errno::EFAULT), refused(Errno::EINVAL));
        for command in 0..=13 {
            assert_eq!(at(EVENT_CHANNEL_OP, command, 0, 1, 1), fault, "event {command}");
            assert_eq!(at(EVENT_CHANNEL_OP, command, u64::MAX, 1, 64), fault, "event {command}");
        }
        for command in (0..=11).filter(|command| *command != gnttab::op::DUMP_TABLE) {
            assert_eq!(at(GRANT_TABLE_OP, command, 0, 1, 3), fault, "grant {command}");
            assert_eq!(at(GRANT_TABLE_OP, command, u64::MAX - 7, 1, 64), fault, "grant {command}");
            assert_eq!(at(GRANT_TABLE_OP, command, 0, 1 << 31, 64), invalid, "grant {command}");
        }
        use gnttab::op;
        assert_eq!(at(GRANT_TABLE_OP, op::MAP_GRANT_REF, 0, 2, 63), fault, "the second one");
        assert_eq!(at(GRANT_TABLE_OP, op::MAP_GRANT_REF, 0, 0, 0), 0);
        for command in [op::SETUP_TABLE, op::QUERY_SIZE, op::GET_STATUS_FRAMES] {
            assert_eq!(at(GRANT_TABLE_OP, command, 0, 2, 64), invalid);
        }
    }

    #[test]
    fn a_guest_maps_copies_and_unmaps() {
        let mut hv = domains(DomainKind::Pvh);
        let gref = grant_v1(&hv, A, 9, B, 3, 0).0;
        let wish = gnttab::MapGrantRef {
            host_addr: 20 * 4096 + 5,
            flags: gnttab::GNTMAP_HOST_MAP,
            gref,
            dom: A.0,
            ..Default::default()
        };
        let map = gnttab::op::MAP_GRANT_REF;
        for (flags, error) in [
            (0, GrantError::BadGntref),
            (gnttab::GNTMAP_READONLY, GrantError::BadGntref),
            (gnttab::GNTMAP_DEVICE_MAP, GrantError::GeneralError),
            (gnttab::GNTMAP_HOST_MAP | gnttab::GNTMAP_CONTAINS_PTE, GrantError::GeneralError),
            (gnttab::GNTMAP_HOST_MAP | 1 << 16, GrantError::GeneralError),
        ] {
            let (result, arg) = grant(&mut hv, B, map, gnttab::MapGrantRef { flags, ..wish });
            assert_eq!((result, arg.status), (0, error as i16), "{flags:#x}");
        }
        let (result, arg) = grant(&mut hv, B, map, wish);
        assert_eq!((result, arg.status), (0, 0));
        let mfn = hv.frame_at(A, Gfn(3)).unwrap();
        assert_eq!((hv.frame_at(B, Gfn(20)), arg.dev_bus_addr), (Some(mfn), mfn.address()));

        let unmap = gnttab::op::UNMAP_GRANT_REF;
        let mut wish = gnttab::UnmapGrantRef { handle: arg.handle, ..Default::default() };
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, 0, "names nothing to unmap");
        wish.host_addr = 21 * 4096;
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, GrantError::GeneralError as i16);
        wish.host_addr = 20 * 4096;
        let replace = gnttab::UnmapAndReplace {
            host_addr: 20 * 4096,
            new_addr: 4096,
            handle: arg.handle,
            ..Default::default()
        };
        let (result, refusal) = grant(&mut hv, B, gnttab::op::UNMAP_AND_REPLACE, replace);
        assert_eq!((result, refusal.status), (0, GrantError::GeneralError as i16));
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, 0);
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, GrantError::BadHandle as i16);

        hv.machine().store(mfn, 8, 0x0102_0304);
        let mut copy = gnttab::Copy {
            source: gnttab::CopyPtr { frame: gref.into(), domid: A.0, offset: 8, pad: 0 },
            dest: gnttab::CopyPtr { frame: 1, domid: DomId::SELF.0, offset: 12, pad: 0 },
            len: 4,
            flags: gnttab::GNTCOPY_SOURCE_GREF,
            ..Default::default()
        };
        assert_eq!(grant(&mut hv, B, gnttab::op::COPY, copy).1.status, 0);
        let own = hv.frame_at(B, Gfn(1)).unwrap();
        assert_eq!(hv.machine().load(own, 12), 0x0102_0304);
        copy.dest.domid = B.0;
        let denied = grant(&mut hv, B, gnttab::op::COPY, copy).1.status;
        assert_eq!(denied, GrantError::PermissionDenied as i16, "frames only as SELF");
    }

    #[test]
    fn a_process_maps_by_machine_address() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0).0;
        let mut wish = gnttab::MapGrantRef { gref, dom: A.0, ..Default::default() };
        wish.flags = gnttab::GNTMAP_HOST_MAP;
        let map = gnttab::op::MAP_GRANT_REF;
        assert_eq!(grant(&mut hv, B, map, wish).1.status, GrantError::GeneralError as i16);
        wish.flags = gnttab::GNTMAP_DEVICE_MAP;
        let (_, mapped) = grant(&mut hv, B, map, wish);
        assert_eq!(mapped.status, 0);
        let unmap = gnttab::op::UNMAP_GRANT_REF;
        let mut wish = gnttab::UnmapGrantRef { handle: mapped.handle, ..Default::default() };
        wish.dev_bus_addr = mapped.dev_bus_addr + 4096;
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, GrantError::BadDevAddr as i16);
        wish.dev_bus_addr = mapped.dev_bus_addr;
        assert_eq!(grant(&mut hv, B, unmap, wish).1.status, 0);
        assert_eq!(hv.mappings(B).count(), 0);
    }

    #[test]
    fn the_table_of_grants() {
        use gnttab::op;
        let mut hv = domains(DomainKind::Pvh);
        hv.place_frame(A, FrameUse::GrantTable(0), Gfn(40)).unwrap();
        // The list stands behind the structure.
        let mut bytes = std::vec![0; 48];
        let setup = gnttab::SetupTable {
            dom: DomId::SELF.0,
            nr_frames: 3,
            frame_list: 24,
            ..Default::default()
        };
        bytes[..24].copy_from_slice(bytes_of(&setup));
        let registers = [op::SETUP_TABLE.into(), 0, 1, 0, 0];
        let result = hv.dispatch(A, GRANT_TABLE_OP.into(), &registers, &mut Buffer(&mut bytes));
        let arg: gnttab::SetupTable = ring_proto::shared::from_bytes(&bytes).unwrap();
        assert_eq!((result, arg.status), (0, 0));
        let list: [u64; 3] = ring_proto::shared::from_bytes(&bytes[24..]).unwrap();
        assert_eq!(list, [40, u64::MAX, u64::MAX], "the others have no place yet");

        let status = |arg: gnttab::SetupTable| arg.status;
        for (arg, error) in [
            (gnttab::SetupTable { nr_frames: 65, ..setup }, GrantError::GeneralError),
            (gnttab::SetupTable { frame_list: 999, ..setup }, GrantError::BadVirtAddr),
            (gnttab::SetupTable { frame_list: u64::MAX - 3, ..setup }, GrantError::BadVirtAddr),
            (gnttab::SetupTable { dom: 77, ..setup }, GrantError::BadDomain),
            (gnttab::SetupTable { dom: B.0, ..setup }, GrantError::PermissionDenied),
        ] {
            assert_eq!(status(grant(&mut hv, A, op::SETUP_TABLE, arg).1), error as i16);
        }
        let size = gnttab::QuerySize { dom: DomId::SELF.0, ..Default::default() };
        let (_, size) = grant(&mut hv, A, op::QUERY_SIZE, size);
        assert_eq!((size.status, size.nr_frames, size.max_nr_frames), (0, 3, 64));
        let foreign = gnttab::QuerySize { dom: B.0, ..Default::default() };
        let denied = grant(&mut hv, A, op::QUERY_SIZE, foreign).1.status;
        assert_eq!(denied, GrantError::PermissionDenied as i16);

        let frames = gnttab::GetStatusFrames { nr_frames: 1, dom: A.0, ..Default::default() };
        let none = grant(&mut hv, A, op::GET_STATUS_FRAMES, frames).1.status;
        assert_eq!(none, GrantError::GeneralError as i16, "not in version 1");
        let version = gnttab::SetVersion { version: 9 };
        let (result, arg) = grant(&mut hv, A, op::SET_VERSION, version);
        assert_eq!((result, arg.version), (refused(Errno::EINVAL), 1));
        let version = gnttab::SetVersion { version: 2 };
        assert_eq!(grant(&mut hv, A, op::SET_VERSION, version), (0, version));
        assert_eq!(grant(&mut hv, A, op::GET_STATUS_FRAMES, frames).1.status, 0);
        let get = gnttab::GetVersion { dom: A.0, ..Default::default() };
        assert_eq!(grant(&mut hv, A, op::GET_VERSION, get).1.version, 2);
        assert_eq!(grant(&mut hv, B, op::GET_VERSION, get).0, refused(Errno::EPERM));

        let swap = gnttab::SwapGrantRef { ref_a: 1, ref_b: 99999, ..Default::default() };
        let (result, arg) = grant(&mut hv, A, op::SWAP_GRANT_REF, swap);
        assert_eq!((result, arg.status), (0, GrantError::BadGntref as i16));
        let mut transfer = gnttab::Transfer { mfn: 3, domid: B.0, ..Default::default() };
        let refusal = grant(&mut hv, A, op::TRANSFER, transfer).1.status;
        assert_eq!(refusal, GrantError::GeneralError as i16);
        transfer.mfn = 99;
        let refusal = grant(&mut hv, A, op::TRANSFER, transfer).1.status;
        assert_eq!(refusal, GrantError::BadPage as i16);
    }

    #[test]
    fn the_life_of_a_port() {
        use evtchn::op;
        let mut hv = Hypervisor::new(Ram::new(100));
        let config = DomainConfig { vcpus: 2, ..DomainConfig::new(DomainKind::Pvh, 4) };
        for id in [A, B] {
            hv.create_domain(id, &config).unwrap();
        }
        let (result, unbound) = event(
            &mut hv,
            A,
            op::ALLOC_UNBOUND,
            evtchn::AllocUnbound { dom: DomId::SELF.0, remote_dom: B.0, port: 0 },
        );
        assert_eq!((result, unbound.port), (0, 1));
        let port = evtchn::PortOnly { port: 1 };
        let ask = evtchn::Status { dom: DomId::SELF.0, port: 1, ..Default::default() };
        let (_, status) = event(&mut hv, A, op::STATUS, ask);
        assert_eq!((status.status, status.bound_to), (evtchn::EVTCHNSTAT_UNBOUND, B.0.into()));
        let bind =
            evtchn::BindInterdomain { remote_dom: A.0, remote_port: 1, ..Default::default() };
        let (result, bound) = event(&mut hv, B, op::BIND_INTERDOMAIN, bind);
        assert_eq!((result, bound.local_port), (0, 1));
        assert_eq!(event(&mut hv, B, op::BIND_INTERDOMAIN, bind).0, refused(Errno::EINVAL));
        assert_eq!(event(&mut hv, A, op::SEND, port).0, 0);
        let vcpu = evtchn::BindVcpu { port: 1, vcpu: 1 };
        assert_eq!(event(&mut hv, A, op::BIND_VCPU, vcpu).0, 0);
        let (_, status) = event(&mut hv, A, op::STATUS, ask);
        assert_eq!((status.status, status.vcpu), (evtchn::EVTCHNSTAT_INTERDOMAIN, 1));
        assert_eq!((status.bound_to, status.remote_port), (B.0.into(), 1));
        assert_eq!(event(&mut hv, A, op::UNMASK, port).0, 0);
        assert_eq!(event(&mut hv, A, op::CLOSE, port).0, 0);
        assert_eq!(event(&mut hv, A, op::CLOSE, port).0, refused(Errno::EINVAL));
        let (_, status) = event(&mut hv, A, op::STATUS, ask);
        assert_eq!(status.status, evtchn::EVTCHNSTAT_CLOSED);

        let timer = evtchn::BindVirq { virq: evtchn::virq::TIMER, vcpu: 1, port: 0 };
        assert_eq!(event(&mut hv, A, op::BIND_VIRQ, timer).1.port, 1);
        let (_, status) = event(&mut hv, A, op::STATUS, ask);
        assert_eq!((status.status, status.bound_to), (evtchn::EVTCHNSTAT_VIRQ, 0));
        let ipi = evtchn::BindIpi { vcpu: 1, port: 0 };
        assert_eq!(event(&mut hv, A, op::BIND_IPI, ipi).1.port, 2);
        let (_, status) = event(&mut hv, A, op::STATUS, evtchn::Status { port: 2, ..ask });
        assert_eq!((status.status, status.vcpu), (evtchn::EVTCHNSTAT_IPI, 1));
        let pirq = evtchn::BindPirq::default();
        assert_eq!(event(&mut hv, A, op::BIND_PIRQ, pirq).0, refused(Errno::EINVAL));

        let control = evtchn::InitControl { control_gfn: 1, ..Default::default() };
        let (result, control) = event(&mut hv, A, op::INIT_CONTROL, control);
        assert_eq!((result, control.link_bits), (0, 17));
        let array = evtchn::ExpandArray { array_gfn: 2 };
        assert_eq!(event(&mut hv, A, op::EXPAND_ARRAY, array).0, 0);
        let priority = evtchn::SetPriority { port: 1, priority: 3 };
        assert_eq!(event(&mut hv, A, op::SET_PRIORITY, priority).0, 0);
        assert_eq!(event(&mut hv, A, op::RESET, evtchn::Reset { dom: A.0 }).0, 0);
        assert_eq!(event(&mut hv, A, op::SET_PRIORITY, priority).0, refused(Errno::ENOSYS));
    }
}
