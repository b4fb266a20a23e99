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
    /// The domain's own frames that are held for its queues.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Vec<Mfn> {
        match &self.delivery {
            Delivery::Fifo(fifo) => fifo.frames().collect(),
            Delivery::Embedder | Delivery::TwoLevel => Vec::new(),
        }
    }

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

    /// Unmasks a port. Returns the virtual CPU to interrupt, if an event waited.
    fn unmask<M: Machine>(&mut self, machine: &mut M, id: DomId, port: Port) -> Option<u32> {
        let vcpu = self.channels.get(&port)?.vcpu;
        match &self.delivery {
            Delivery::Embedder => None,
            Delivery::TwoLevel => {
                let (page, info) = (self.shared_info?, self.vcpu_info(vcpu)?);
                two_level::unmask(machine, page, port, info).then_some(vcpu)
            }
            Delivery::Fifo(fifo) if fifo.unmask(machine, port) => self.deliver(machine, id, port),
            Delivery::Fifo(_) => None,
        }
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
        let domain =
            self.domains.get_mut(&caller).filter(|domain| !domain.dying).ok_or(Errno::ESRCH)?;
        domain.events.check(port)?;
        if let Some(vcpu) = domain.events.unmask(&mut self.machine, caller, port) {
            self.machine.upcall(caller, vcpu);
        }
        Ok(())
    }

    /// Gives a virtual CPU of the caller its control block, and makes the caller use queues from now on
    /// (`EVTCHNOP_init_control`). The frame is held until the queues are given up.
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

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use ring_proto::xen::event_channel::{FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING};
    use ring_proto::xen::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, EVTCHN_PENDING_SEL};

    use super::*;
    use crate::ram::{A, B, Ram, domains, processes};
    use crate::{DomainConfig, DomainKind};

    /// Two guests, of which the first has two virtual CPUs, and a channel between them: (of the first, of the second).
    fn guests() -> (Hypervisor<Ram>, Port, Port) {
        let mut hv = Hypervisor::new(Ram::new(1000));
        let config =
            DomainConfig { vcpus: 2, max_port: 5000, ..DomainConfig::new(DomainKind::Pvh, 8) };
        hv.create_domain(A, &config).unwrap();
        hv.create_domain(B, &DomainConfig::new(DomainKind::Pvh, 8)).unwrap();
        let near = hv.alloc_unbound(A, DomId::SELF, B).unwrap();
        let far = hv.bind_interdomain(B, A, near).unwrap();
        hv.machine_mut().upcalls.clear();
        (hv, near, far)
    }

    fn shared(hv: &Hypervisor<Ram>) -> Mfn {
        hv.domains[&A].events.shared_info.unwrap()
    }

    /// As the first guest, sees to all events of a virtual CPU. Returns the ports that had one.
    fn take_events(hv: &mut Hypervisor<Ram>, vcpu: usize) -> Vec<u32> {
        let page = shared(hv);
        let info = vcpu * VCPU_INFO_SIZE;
        let mut ports = Vec::new();
        hv.machine().fetch_and(page, info + EVTCHN_UPCALL_PENDING, !0xff);
        for half in 0..2 {
            let select = hv.machine().fetch_and(page, info + EVTCHN_PENDING_SEL + half * 4, 0);
            for word in (0..32).filter(|bit| select & 1 << bit != 0) {
                for offset in [word * 8 + half * 256, word * 8 + half * 256 + 4] {
                    let mask = !hv.machine().load(page, EVTCHN_MASK + offset);
                    let kept = !mask;
                    let bits = hv.machine().fetch_and(page, EVTCHN_PENDING + offset, kept) & mask;
                    let first = offset as u32 * 8;
                    ports.extend((0..32).filter(|bit| bits & 1 << bit != 0).map(|bit| first + bit));
                }
            }
        }
        ports
    }

    #[test]
    fn two_levels_of_bits() {
        let (mut hv, near, far) = guests();
        hv.send(B, far).unwrap();
        hv.send(B, far).unwrap();
        assert_eq!(hv.machine().upcalls, [(A, 0)], "told once");
        assert_eq!(take_events(&mut hv, 0), [near.0]);
        hv.send(B, far).unwrap();
        assert_eq!(hv.machine().upcalls, [(A, 0), (A, 0)]);
        assert_eq!(take_events(&mut hv, 0), [near.0]);

        // Masked: no upcall before it is unmasked.
        let (page, bit) = (shared(&hv), 1 << near.0);
        hv.machine().fetch_or(page, EVTCHN_MASK, bit);
        hv.send(B, far).unwrap();
        assert_eq!(hv.machine().upcalls.len(), 2);
        assert_eq!(take_events(&mut hv, 0), []);
        hv.unmask(A, near).unwrap();
        assert_eq!(hv.machine().upcalls.len(), 3);
        assert_eq!(take_events(&mut hv, 0), [near.0]);
        hv.unmask(A, near).unwrap();
        assert_eq!(hv.machine().upcalls.len(), 3, "nothing waited");

        hv.bind_vcpu(A, near, 1).unwrap();
        hv.send(B, far).unwrap();
        assert_eq!(hv.machine().upcalls[3..], [(A, 1)]);
        assert_eq!(take_events(&mut hv, 1), [near.0]);
    }

    #[test]
    fn the_last_port_of_two_levels() {
        let (mut hv, ..) = guests();
        for port in 2..4096 {
            assert_eq!(hv.bind_ipi(A, port % 2), Ok(Port(port)));
        }
        assert_eq!(hv.bind_ipi(A, 0), Err(Errno::ENOSPC), "the bits end here");
        for port in [63, 64, 2047, 2048, 4095] {
            hv.send(A, Port(port)).unwrap();
            assert_eq!(take_events(&mut hv, port as usize % 2), [port]);
        }
        // A port that is closed with an event begins anew without.
        hv.send(A, Port(4095)).unwrap();
        hv.close(A, Port(4095)).unwrap();
        assert_eq!(hv.bind_ipi(A, 1), Ok(Port(4095)));
        assert_eq!(take_events(&mut hv, 1), []);
    }

    /// The first guest's side of the queues, as a kernel has it.
    struct Queues {
        heads: BTreeMap<(u32, u32), u32>,
    }

    impl Queues {
        /// Event words are in frame 0, control blocks in frame 1.
        fn start(hv: &mut Hypervisor<Ram>) -> Self {
            hv.init_control(A, 0, Gfn(1), 0).unwrap();
            hv.init_control(A, 1, Gfn(1), 128).unwrap();
            hv.expand_array(A, Gfn(0)).unwrap();
            Self { heads: BTreeMap::new() }
        }

        fn word(hv: &Hypervisor<Ram>, port: u32) -> (Mfn, usize) {
            (hv.frame_at(A, Gfn(0)).unwrap(), port as usize * 4)
        }

        fn take(&mut self, hv: &mut Hypervisor<Ram>, vcpu: u32) -> Vec<u32> {
            let block = hv.frame_at(A, Gfn(1)).unwrap();
            let at = vcpu as usize * 128;
            let machine = hv.machine();
            machine.fetch_and(shared(hv), vcpu as usize * VCPU_INFO_SIZE, !0xff);
            let mut ports = Vec::new();
            loop {
                let ready = machine.load(block, at);
                if ready == 0 {
                    return ports;
                }
                let queue = ready.trailing_zeros();
                let head = self.heads.entry((vcpu, queue)).or_default();
                if *head == 0 {
                    *head = machine.load(block, at + 8 + queue as usize * 4);
                }
                let port = *head;
                let (mfn, at_word) = Self::word(hv, port);
                let old = machine.fetch_and(mfn, at_word, !(FIFO_LINKED | FIFO_LINK_MASK));
                *head = old & FIFO_LINK_MASK;
                if *head == 0 {
                    machine.fetch_and(block, at, !(1 << queue));
                }
                if old & FIFO_PENDING != 0 && old & FIFO_MASKED == 0 {
                    machine.fetch_and(mfn, at_word, !FIFO_PENDING);
                    ports.push(port);
                }
            }
        }
    }

    #[test]
    fn queues_keep_the_order_and_go_by_priority() {
        let (mut hv, near, far) = guests();
        hv.send(B, far).unwrap();
        let mut queues = Queues::start(&mut hv);
        assert_eq!(queues.take(&mut hv, 0), [near.0], "pending before the queues were there");

        let ports: Vec<Port> = (0..5).map(|_| hv.bind_ipi(A, 0).unwrap()).collect();
        hv.machine_mut().upcalls.clear();
        for index in [3, 0, 4, 1, 3] {
            hv.send(A, ports[index]).unwrap();
        }
        assert_eq!(hv.machine().upcalls, [(A, 0)]);
        let order: Vec<u32> = [3, 0, 4, 1].map(|index: usize| ports[index].0).into();
        assert_eq!(queues.take(&mut hv, 0), order);

        hv.set_priority(A, ports[2], 0).unwrap();
        hv.set_priority(A, ports[1], 15).unwrap();
        for port in &ports {
            hv.send(A, *port).unwrap();
        }
        let order: Vec<u32> = [2, 0, 3, 4, 1].map(|index: usize| ports[index].0).into();
        assert_eq!(queues.take(&mut hv, 0), order);
        assert_eq!(queues.take(&mut hv, 0), []);
    }

    #[test]
    fn masked_ports_are_not_queued() {
        let (mut hv, near, far) = guests();
        let mut queues = Queues::start(&mut hv);
        queues.take(&mut hv, 0);
        let (mfn, at) = Queues::word(&hv, near.0);
        hv.machine().fetch_or(mfn, at, FIFO_MASKED);
        hv.machine_mut().upcalls.clear();
        hv.send(B, far).unwrap();
        assert_eq!(hv.machine().upcalls, []);
        assert_eq!(hv.machine().load(mfn, at), FIFO_MASKED | FIFO_PENDING);
        hv.unmask(A, near).unwrap();
        assert_eq!(hv.machine().upcalls, [(A, 0)]);
        assert_eq!(queues.take(&mut hv, 0), [near.0]);
        // Moved to another virtual CPU and priority while it is the tail.
        hv.send(B, far).unwrap();
        assert_eq!(queues.take(&mut hv, 0), [near.0]);
        hv.bind_vcpu(A, near, 1).unwrap();
        hv.set_priority(A, near, 3).unwrap();
        hv.send(B, far).unwrap();
        let ipi = hv.bind_ipi(A, 0).unwrap();
        hv.send(A, ipi).unwrap();
        assert_eq!(queues.take(&mut hv, 0), [ipi.0]);
        assert_eq!(queues.take(&mut hv, 1), [near.0]);
    }

    #[test]
    fn a_port_in_a_queue_is_not_used_anew() {
        let (mut hv, near, far) = guests();
        let mut queues = Queues::start(&mut hv);
        queues.take(&mut hv, 0);
        hv.send(B, far).unwrap();
        hv.close(A, near).unwrap();
        assert_eq!(hv.bind_ipi(A, 0), Ok(Port(near.0 + 1)));
        assert_eq!(queues.take(&mut hv, 0), [], "closed");
        assert_eq!(hv.bind_ipi(A, 0), Ok(near));
    }

    #[test]
    fn queues_have_more_ports_and_end_with_a_reset() {
        let (mut hv, ..) = guests();
        let words = hv.frame_at(A, Gfn(0)).unwrap();
        assert_eq!(hv.expand_array(A, Gfn(0)), Err(Errno::EOPNOTSUPP));
        Queues::start(&mut hv);
        assert_eq!(hv.frames().get(words).unwrap().references(), 2);
        for port in 2..=5000 {
            assert_eq!(hv.bind_ipi(A, 0), Ok(Port(port)));
        }
        assert_eq!(hv.bind_ipi(A, 0), Err(Errno::ENOSPC));
        hv.machine_mut().upcalls.clear();
        hv.send(A, Port(1024)).unwrap();
        assert_eq!(hv.machine().upcalls, [], "there is no word for it yet");
        hv.expand_array(A, Gfn(2)).unwrap();
        assert_eq!(hv.machine().upcalls, [(A, 0)]);
        let second = hv.frame_at(A, Gfn(2)).unwrap();
        assert_eq!(hv.machine().load(second, 0) & FIFO_PENDING, FIFO_PENDING);

        assert_eq!(hv.reset_events(A, DomId::SELF), Ok([(B, Port(1))].into()));
        assert_eq!(hv.frames().get(words).unwrap().references(), 1);
        assert_eq!(hv.set_priority(A, Port(1), 0), Err(Errno::ENOSYS));
        assert_eq!(hv.init_control(A, 0, Gfn(1), 0), Ok(()));
        hv.destroy_domain(A).unwrap();
        hv.destroy_domain(B).unwrap();
        assert_eq!(hv.machine().used(), 0);
    }

    #[test]
    fn refusals_of_queues() {
        let (mut hv, near, _) = guests();
        assert_eq!(hv.init_control(A, 2, Gfn(1), 0), Err(Errno::ENOENT));
        assert_eq!(hv.init_control(A, 0, Gfn(1), 4), Err(Errno::EINVAL));
        assert_eq!(hv.init_control(A, 0, Gfn(1), 4032), Err(Errno::EINVAL));
        assert_eq!(hv.init_control(A, 0, Gfn(8), 0), Err(Errno::EINVAL));
        assert_eq!(hv.set_priority(A, near, 0), Err(Errno::ENOSYS));
        assert_eq!(hv.init_control(A, 0, Gfn(1), 4024), Ok(()));
        assert_eq!(hv.init_control(A, 0, Gfn(2), 0), Err(Errno::EINVAL), "it has one");
        assert_eq!(hv.expand_array(A, Gfn(8)), Err(Errno::EINVAL));
        assert_eq!(hv.set_priority(A, near, 16), Err(Errno::EINVAL));
        assert_eq!(hv.set_priority(A, Port(64), 0), Err(Errno::EINVAL));
        for _ in 0..128 {
            hv.expand_array(A, Gfn(0)).unwrap();
        }
        assert_eq!(hv.expand_array(A, Gfn(0)), Err(Errno::ENOSPC));
        let mut hv = processes();
        assert_eq!(hv.init_control(A, 0, Gfn(1), 0), Err(Errno::EOPNOTSUPP));
        assert_eq!(hv.expand_array(A, Gfn(1)), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn unmasking_what_is_not_in_use() {
        let mut hv = domains(DomainKind::Pvh);
        assert_eq!(hv.unmask(A, Port(63)), Ok(()));
        assert_eq!(hv.unmask(A, Port(64)), Err(Errno::EINVAL));
        assert_eq!(hv.machine().upcalls, []);
    }
}
