// SPDX-License-Identifier: MIT OR Apache-2.0

use std::os::fd::BorrowedFd;

use hypervisor_core::grant::{Handle, MapGrant};
use ring_proto::shared::{Wire, bytes_of, from_bytes};
use ring_proto::xen::event_channel::{self, AllocUnbound, BindInterdomain, PortOnly};
use ring_proto::xen::grant_table::{
    self, GNTMAP_DEVICE_MAP, GNTMAP_READONLY, GrantError, MapGrantRef, UnmapGrantRef,
};
use ring_proto::xen::{DomId, Errno, GrantRef, Port, hypercall};

use crate::domains::Domains;

/// A hypercall's arguments.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) number: u32,
    pub(crate) command: u32,
    pub(crate) count: u32,
    /// What the guest addresses in the argument structures mean.
    pub(crate) memory: &'a mut [u8],
}

/// Does a hypercall. Returns the doorbells of a channel that it opened.
pub(crate) fn call<'a>(
    domains: &'a mut Domains,
    caller: DomId,
    call: &mut Call<'_>,
) -> Result<Option<[BorrowedFd<'a>; 2]>, Errno> {
    match (call.number, call.command) {
        (hypercall::GRANT_TABLE_OP, grant_table::op::MAP_GRANT_REF) => {
            each(call, |map: &mut MapGrantRef| map_grant(domains, caller, map)).map(|()| None)
        }
        (hypercall::GRANT_TABLE_OP, grant_table::op::UNMAP_GRANT_REF) => {
            each(call, |unmap: &mut UnmapGrantRef| {
                let result = domains.hypervisor.unmap_grant(caller, Handle(unmap.handle), None);
                unmap.status = GrantError::status(result.map(|_| ()));
            })
            .map(|()| None)
        }
        (hypercall::EVENT_CHANNEL_OP, event_channel::op::ALLOC_UNBOUND) => {
            let mut alloc: AllocUnbound = argument(call)?;
            let port = domains.hypervisor.alloc_unbound(
                caller,
                DomId(alloc.dom),
                DomId(alloc.remote_dom),
            )?;
            alloc.port = port.0;
            answer(call, &alloc);
            opened(domains, caller, port, None)
        }
        (hypercall::EVENT_CHANNEL_OP, event_channel::op::BIND_INTERDOMAIN) => {
            let mut bind: BindInterdomain = argument(call)?;
            let peer = (DomId(bind.remote_dom), Port(bind.remote_port));
            let port = domains.hypervisor.bind_interdomain(caller, peer.0, peer.1)?;
            bind.local_port = port.0;
            answer(call, &bind);
            let peer = if peer.0 == DomId::SELF { (caller, peer.1) } else { peer };
            opened(domains, caller, port, Some(peer))
        }
        (hypercall::EVENT_CHANNEL_OP, event_channel::op::CLOSE) => {
            let port = Port(argument::<PortOnly>(call)?.port);
            let far = domains.hypervisor.close(caller, port)?;
            let doorbells = &mut domains.hypervisor.machine_mut().doorbells;
            doorbells.close(caller, port);
            if let Some((peer, port)) = far {
                doorbells.ring(peer, port);
            }
            Ok(None)
        }
        (hypercall::EVENT_CHANNEL_OP, event_channel::op::SEND) => {
            let port = Port(argument::<PortOnly>(call)?.port);
            domains.hypervisor.send(caller, port).map(|_| None)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn map_grant(domains: &mut Domains, caller: DomId, map: &mut MapGrantRef) {
    if map.flags & GNTMAP_DEVICE_MAP == 0 {
        map.status = GrantError::BadGntref as i16;
        return;
    }
    let wish = MapGrant {
        granter: DomId(map.dom),
        gref: GrantRef(map.gref),
        readonly: map.flags & GNTMAP_READONLY != 0,
        at: None,
    };
    let mapped = domains.hypervisor.map_grant(caller, wish);
    if let Ok(mapped) = &mapped {
        map.handle = mapped.handle.0;
        map.dev_bus_addr = mapped.mfn.address();
    }
    map.status = GrantError::status(mapped.map(|_| ()));
}

fn opened(
    domains: &mut Domains,
    caller: DomId,
    port: Port,
    peer: Option<(DomId, Port)>,
) -> Result<Option<[BorrowedFd<'_>; 2]>, Errno> {
    let _ = peer;
    match domains.open_port(caller, port, peer) {
        Some(fds) => Ok(Some(fds)),
        None => Err(Errno::ENOMEM),
    }
}

/// The argument at address 0.
fn argument<T: Wire>(call: &Call<'_>) -> Result<T, Errno> {
    from_bytes(call.memory).ok_or(Errno::EFAULT)
}

fn answer<T: Wire>(call: &mut Call<'_>, value: &T) {
    if let Some(place) = call.memory.get_mut(..size_of::<T>()) {
        place.copy_from_slice(bytes_of(value));
    }
}

fn each<T: Wire>(call: &mut Call<'_>, mut operation: impl FnMut(&mut T)) -> Result<(), Errno> {
    let len = size_of::<T>();
    for index in 0..call.count as usize {
        let place = call.memory.get_mut(index * len..(index + 1) * len).ok_or(Errno::EFAULT)?;
        let mut value = from_bytes(place).ok_or(Errno::EFAULT)?;
        operation(&mut value);
        place.copy_from_slice(bytes_of(&value));
    }
    Ok(())
}
