// SPDX-License-Identifier: MIT OR Apache-2.0

//! `HYPERVISOR_event_channel_op`.

use ring_proto::xen::event_channel::{
    self as abi, AllocUnbound, BindInterdomain, BindIpi, BindPirq, BindVcpu, BindVirq, ExpandArray,
    InitControl, PortOnly, Reset, SetPriority, Status, op,
};
use ring_proto::xen::{DomId, Errno, Port};

use super::{GuestMemory, read, write};
use crate::Hypervisor;
use crate::event::{Binding, Channel};
use crate::machine::{Gfn, Machine};

impl<M: Machine> Hypervisor<M> {
    pub(super) fn event_channel_op(
        &mut self,
        caller: DomId,
        command: u32,
        at: u64,
        memory: &mut impl GuestMemory,
    ) -> Result<(), Errno> {
        match command {
            op::ALLOC_UNBOUND => {
                let mut arg: AllocUnbound = read(memory, at)?;
                arg.port = self.alloc_unbound(caller, DomId(arg.dom), DomId(arg.remote_dom))?.0;
                write(memory, at, &arg)
            }
            op::BIND_INTERDOMAIN => {
                let mut arg: BindInterdomain = read(memory, at)?;
                let (remote, port) = (DomId(arg.remote_dom), Port(arg.remote_port));
                arg.local_port = self.bind_interdomain(caller, remote, port)?.0;
                write(memory, at, &arg)
            }
            op::BIND_VIRQ => {
                let mut arg: BindVirq = read(memory, at)?;
                arg.port = self.bind_virq(caller, arg.virq, arg.vcpu)?.0;
                write(memory, at, &arg)
            }
            op::BIND_PIRQ => {
                // No domain has physical interrupts yet, so each number is one too high.
                let _: BindPirq = read(memory, at)?;
                Err(Errno::EINVAL)
            }
            op::BIND_IPI => {
                let mut arg: BindIpi = read(memory, at)?;
                arg.port = self.bind_ipi(caller, arg.vcpu)?.0;
                write(memory, at, &arg)
            }
            op::CLOSE => {
                let arg: PortOnly = read(memory, at)?;
                self.close(caller, Port(arg.port)).map(drop)
            }
            op::SEND => {
                let arg: PortOnly = read(memory, at)?;
                self.send(caller, Port(arg.port)).map(drop)
            }
            op::STATUS => {
                let mut arg: Status = read(memory, at)?;
                let channel = self.port_status(caller, DomId(arg.dom), Port(arg.port))?;
                tell(&mut arg, channel);
                write(memory, at, &arg)
            }
            op::BIND_VCPU => {
                let arg: BindVcpu = read(memory, at)?;
                self.bind_vcpu(caller, Port(arg.port), arg.vcpu)
            }
            op::UNMASK => {
                let arg: PortOnly = read(memory, at)?;
                self.unmask(caller, Port(arg.port))
            }
            op::RESET => {
                let arg: Reset = read(memory, at)?;
                self.reset_events(caller, DomId(arg.dom)).map(drop)
            }
            op::INIT_CONTROL => {
                let mut arg: InitControl = read(memory, at)?;
                self.init_control(caller, arg.vcpu, Gfn(arg.control_gfn), arg.offset)?;
                arg.link_bits = abi::FIFO_LINK_BITS as u8;
                write(memory, at, &arg)
            }
            op::EXPAND_ARRAY => {
                let arg: ExpandArray = read(memory, at)?;
                self.expand_array(caller, Gfn(arg.array_gfn))
            }
            op::SET_PRIORITY => {
                let arg: SetPriority = read(memory, at)?;
                self.set_priority(caller, Port(arg.port), arg.priority)
            }
            _ => Err(Errno::ENOSYS),
        }
    }
}

/// Fills in what a port is bound to. Fields that mean nothing for it stay as the guest had them.
fn tell(arg: &mut Status, channel: Option<Channel>) {
    let Some(channel) = channel else {
        (arg.status, arg.vcpu) = (abi::EVTCHNSTAT_CLOSED, 0);
        return;
    };
    arg.vcpu = channel.vcpu;
    // The domain id is half of a word, of which the other half is nothing.
    let with_domain = |word: u32, domain: DomId| word & !0xffff | u32::from(domain.0);
    match channel.binding {
        Binding::Unbound { remote } => {
            arg.status = abi::EVTCHNSTAT_UNBOUND;
            arg.bound_to = with_domain(arg.bound_to, remote);
        }
        Binding::Interdomain { remote, port } => {
            arg.status = abi::EVTCHNSTAT_INTERDOMAIN;
            arg.bound_to = with_domain(arg.bound_to, remote);
            arg.remote_port = port.0;
        }
        Binding::Virq(number) => {
            arg.status = abi::EVTCHNSTAT_VIRQ;
            arg.bound_to = number;
        }
        Binding::Ipi => arg.status = abi::EVTCHNSTAT_IPI,
    }
}
