// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a port that has an event to the virtual CPU that has to know: which way a domain uses, and the operations that
//! belong to it.

use alloc::vec::Vec;

use ring_proto::xen::event_channel::{
    FIFO_NR_CHANNELS, FIFO_PRIORITY_DEFAULT, FIFO_PRIORITY_MIN, FifoControlBlock,
    TWO_LEVEL_NR_CHANNELS,
};
use ring_proto::xen::shared_info::{EVTCHN_UPCALL_PENDING, LEGACY_MAX_VCPUS, VCPU_INFO_SIZE};
use ring_proto::xen::{DomId, Errno, Port};

use super::EventChannels;
use super::fifo::{Delivered, Fifo, Queue};
use super::two_level::{self, VcpuInfo};
use crate::Hypervisor;
use crate::machine::{Gfn, Machine, Mfn, PAGE_SIZE};

/// How events reach a domain.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// By the embedder's doorbells.
    Embedder,
    /// By bits of the shared information page.
    TwoLevel,
    /// By queues in the domain's own frames.
    Fifo(Fifo),
}

impl Delivery {
    /// Ports that this way can deliver to.
    pub(crate) fn ports(&self) -> u32 {
        match self {
            Self::Embedder | Self::Fifo(_) => FIFO_NR_CHANNELS,
            Self::TwoLevel => TWO_LEVEL_NR_CHANNELS,
        }
    }
}

/// Tells a virtual CPU to look for events. Returns whether it was not told already.
pub(crate) fn mark_pending<M: Machine>(machine: &M, (mfn, offset): VcpuInfo) -> bool {
    machine.fetch_or(mfn, offset + EVTCHN_UPCALL_PENDING, 1) & 0xff == 0
}

impl EventChannels {
    /// Where the information about a virtual CPU stands, if it has a place.
    fn vcpu_info(&self, vcpu: u32) -> Option<VcpuInfo> {
        let page = self.shared_info?;
        (vcpu < LEGACY_MAX_VCPUS).then_some((page, vcpu as usize * VCPU_INFO_SIZE))
    }

    /// Delivers an event to a port that is in use. Returns the virtual CPU to interrupt.
    fn deliver<M: Machine>(&mut self, machine: &mut M, id: DomId, port: Port) -> Option<u32> {
        let channel = self.channels.get(&port)?;
        let (vcpu, priority) = (channel.vcpu, channel.priority);
        let (info, page) = (self.vcpu_info(vcpu), self.shared_info);
        let interrupt = match &mut self.delivery {
            Delivery::Embedder => {
                machine.ring(id, port);
                false
            }
            Delivery::TwoLevel => two_level::set_pending(machine, page?, port, info?),
            Delivery::Fifo(fifo) => {
                match fifo.set_pending(machine, port, Queue { vcpu, priority }, info?) {
                    Delivered::NoWord => {
                        self.channels.get_mut(&port)?.saved = true;
                        false
                    }
                    Delivered::Quietly => false,
                    Delivered::Interrupt => true,
                }
            }
        };
        interrupt.then_some(vcpu)
    }

    /// Forgets an event of a port that is closed.
    pub(super) fn clear_pending<M: Machine>(&self, machine: &M, port: Port) {
        match (&self.delivery, self.shared_info) {
            (Delivery::TwoLevel, Some(page)) => two_level::clear_pending(machine, page, port),
            (Delivery::Fifo(fifo), _) => fifo.clear_pending(machine, port),
            _ => {}
        }
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Delivers an event to a port that is in use.
    pub(crate) fn set_pending(&mut self, id: DomId, port: Port) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        if let Some(vcpu) = domain.events.deliver(&mut self.machine, id, port) {
            self.machine.upcall(id, vcpu);
        }
    }

    /// Unmasks a port of the caller, and delivers an event that waited (`EVTCHNOP_unmask`). A port that is not in use
    /// stays as it is; so does that of a process, whose doorbells have no mask.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a port that the domain does not have.
    pub fn unmask(&mut self, caller: DomId, port: Port) -> Result<(), Errno> {
        let domain = self.live(caller).ok_or(Errno::ESRCH)?;
        domain.events.check(port)?;
        let Some(channel) = domain.events.channels.get(&port) else { return Ok(()) };
        let (vcpu, events) = (channel.vcpu, &domain.events);
        match (&events.delivery, events.shared_info, events.vcpu_info(vcpu)) {
            (Delivery::TwoLevel, Some(page), Some(info)) => {
                if two_level::unmask(&self.machine, page, port, info) {
                    self.machine.upcall(caller, vcpu);
                }
            }
            (Delivery::Fifo(fifo), _, _) => {
                if fifo.unmask(&self.machine, port) {
                    self.set_pending(caller, port);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives a virtual CPU of the caller its control block, and makes the caller use queues from now on
    /// (`EVTCHNOP_init_control`). Returns the frame, which is held until the queues are given up.
    ///
    /// # Errors
    ///
    /// `ENOENT` for a virtual CPU that the domain does not have; `EINVAL` if the offset is no multiple of eight or the
    /// block crosses the frame, if the frame is none of the caller's memory, or if the virtual CPU has one already;
    /// `EOPNOTSUPP` for a process.
    pub fn init_control(
        &mut self,
        caller: DomId,
        vcpu: u32,
        gfn: Gfn,
        offset: u32,
    ) -> Result<(), Errno> {
        let domain = self.live_mut(caller).ok_or(Errno::ESRCH)?;
        if vcpu >= domain.vcpus {
            return Err(Errno::ENOENT);
        }
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        if offset > PAGE_SIZE - size_of::<FifoControlBlock>() || offset % 8 != 0 {
            return Err(Errno::EINVAL);
        }
        if matches!(domain.events.delivery, Delivery::Embedder) {
            return Err(Errno::EOPNOTSUPP);
        }
        let vcpus = domain.vcpus;
        let mfn = self.hold_own(caller, gfn)?;
        let domain = self.live_mut(caller).ok_or(Errno::ESRCH)?;
        let done = match &mut domain.events.delivery {
            Delivery::Fifo(fifo) => fifo.set_control(vcpu, (mfn, offset)),
            _ => {
                let mut fifo = Fifo::new(vcpus);
                let done = fifo.set_control(vcpu, (mfn, offset));
                domain.events.delivery = Delivery::Fifo(fifo);
                self.save_pending(caller);
                done
            }
        };
        if done.is_err() {
            self.release(mfn, true);
        }
        done
    }

    /// Remembers the events of all ports that are pending in the shared information page.
    fn save_pending(&mut self, id: DomId) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        let Some(page) = domain.events.shared_info else { return };
        for (port, channel) in domain.events.channels.range_mut(..Port(TWO_LEVEL_NR_CHANNELS)) {
            channel.saved |= two_level::is_pending(&self.machine, page, *port);
            channel.priority = FIFO_PRIORITY_DEFAULT as u8;
        }
    }

    /// Adds a page of event words to the caller's array (`EVTCHNOP_expand_array`), and delivers what waited for it.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the caller does not use queues; `ENOSPC` if the array has all its pages; `EINVAL` if the frame
    /// is none of the caller's memory.
    pub fn expand_array(&mut self, caller: DomId, gfn: Gfn) -> Result<(), Errno> {
        let domain = self.live_mut(caller).ok_or(Errno::ESRCH)?;
        match &domain.events.delivery {
            Delivery::Fifo(fifo) if fifo.is_full() => return Err(Errno::ENOSPC),
            Delivery::Fifo(_) => {}
            _ => return Err(Errno::EOPNOTSUPP),
        }
        let mfn = self.hold_own(caller, gfn)?;
        let events = &mut self.live_mut(caller).ok_or(Errno::ESRCH)?.events;
        let Delivery::Fifo(fifo) = &mut events.delivery else { return Err(Errno::EOPNOTSUPP) };
        let ports = fifo.add_words(mfn);
        let waiting = events.channels.range_mut(ports).filter(|(_, channel)| channel.saved);
        let waiting: Vec<Port> = waiting
            .map(|(port, channel)| {
                channel.saved = false;
                *port
            })
            .collect();
        for port in waiting {
            self.set_pending(caller, port);
        }
        Ok(())
    }

    /// Sets the priority of a port of the caller, from its next event on (`EVTCHNOP_set_priority`).
    ///
    /// # Errors
    ///
    /// `EINVAL` for a port that the domain does not have, and above 15; `ENOSYS` if the caller does not use queues.
    pub fn set_priority(&mut self, caller: DomId, port: Port, priority: u32) -> Result<(), Errno> {
        let events = &mut self.live_mut(caller).ok_or(Errno::ESRCH)?.events;
        events.check(port)?;
        if !matches!(events.delivery, Delivery::Fifo(_)) {
            return Err(Errno::ENOSYS);
        }
        let priority = u8::try_from(priority).map_err(|_| Errno::EINVAL)?;
        if u32::from(priority) > FIFO_PRIORITY_MIN {
            return Err(Errno::EINVAL);
        }
        if let Some(channel) = events.channels.get_mut(&port) {
            channel.priority = priority;
        }
        Ok(())
    }

    /// Takes a writing reference of one of the caller's own frames.
    fn hold_own(&mut self, caller: DomId, gfn: Gfn) -> Result<Mfn, Errno> {
        let mfn = self.live(caller).and_then(|domain| domain.own(gfn)).ok_or(Errno::EINVAL)?;
        if self.frames.hold(mfn, true) { Ok(mfn) } else { Err(Errno::EINVAL) }
    }

    /// Gives up the caller's queues, and uses the bits again.
    pub(super) fn leave_queues(&mut self, id: DomId) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        let delivery = &mut domain.events.delivery;
        let Delivery::Fifo(fifo) = delivery else { return };
        let held: Vec<Mfn> = fifo.frames().collect();
        *delivery = Delivery::TwoLevel;
        for mfn in held {
            self.release(mfn, true);
        }
    }
}
