// SPDX-License-Identifier: MIT OR Apache-2.0

//! A hypercall as it comes over a socket: core does it, and here the doorbells follow what it did to the ports.

use std::os::fd::BorrowedFd;

use hypervisor_client::hosted::protocol::Request;
use hypervisor_core::Hypervisor;
use hypervisor_core::event::Binding;
use hypervisor_core::hypercall::Buffer;
use ring_proto::shared::from_bytes;
use ring_proto::xen::event_channel::{
    AllocUnbound, BindInterdomain, BindIpi, BindVirq, PortOnly, op,
};
use ring_proto::xen::{DomId, Errno, Port, hypercall};

use crate::doorbells::Doorbells;
use crate::machine::ProcessMachine;

/// Does a hypercall, whose guest addresses are offsets in `memory`. Returns its result, and the doorbells of the port
/// that it opened, if it did.
pub(crate) fn call<'a>(
    hypervisor: &'a mut Hypervisor<ProcessMachine>,
    caller: DomId,
    request: &Request,
    memory: &mut [u8],
) -> (i64, Option<[BorrowedFd<'a>; 2]>) {
    let registers = [request.command.into(), 0, request.count.into(), 0, 0];
    let result =
        hypervisor.dispatch(caller, request.number.into(), &registers, &mut Buffer(memory));
    if result < 0 || request.number != hypercall::EVENT_CHANNEL_OP {
        return (result, None);
    }
    let doorbells = &mut hypervisor.machine_mut().doorbells;
    match request.command {
        op::CLOSE => {
            if let Some(PortOnly { port }) = from_bytes(memory) {
                doorbells.close(caller, Port(port));
            }
        }
        op::RESET => doorbells.close_all(caller),
        command => {
            if let Some(port) = opened(command, memory) {
                return match open(hypervisor, caller, port) {
                    Ok(fds) => (result, Some(fds)),
                    Err(errno) => (-i64::from(errno as i32), None),
                };
            }
        }
    }
    (result, None)
}

/// The port that an operation opened.
fn opened(command: u32, memory: &[u8]) -> Option<Port> {
    let port = match command {
        op::ALLOC_UNBOUND => from_bytes::<AllocUnbound>(memory)?.port,
        op::BIND_INTERDOMAIN => from_bytes::<BindInterdomain>(memory)?.local_port,
        op::BIND_VIRQ => from_bytes::<BindVirq>(memory)?.port,
        op::BIND_IPI => from_bytes::<BindIpi>(memory)?.port,
        _ => return None,
    };
    Some(Port(port))
}

/// Gives a new port its doorbells, or closes it again if there are none to be had.
fn open(
    hypervisor: &mut Hypervisor<ProcessMachine>,
    caller: DomId,
    port: Port,
) -> Result<[BorrowedFd<'_>; 2], Errno> {
    let peer = match hypervisor.binding(caller, port) {
        Some(Binding::Interdomain { remote, port }) => Some((remote, port)),
        _ => None,
    };
    if let Err(error) = hypervisor.machine_mut().doorbells.open(caller, port, peer) {
        log::error!("doorbells of port {port} of domain {caller}: {error}");
        hypervisor.close(caller, port)?;
        return Err(Errno::ENFILE);
    }
    let doorbells: &Doorbells = &hypervisor.machine().doorbells;
    doorbells.fds(caller, port).ok_or(Errno::ENFILE)
}
