// SPDX-License-Identifier: MIT OR Apache-2.0

//! Delivery through queues: each port has a word in pages that the guest gave, each virtual CPU a control block with
//! the heads of sixteen queues, one for each priority. The hypervisor links a port behind the tail of its queue; the
//! guest unlinks from the head.
//!
//! The guest may write all of it at any moment. The hypervisor keeps the tails to itself, follows no link, and only
//! ever writes words of ports and of control blocks, so a guest can confuse nobody but itself.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ring_proto::xen::event_channel::{
    FIFO_BUSY, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_MAX_QUEUES, FIFO_NR_CHANNELS,
    FIFO_PENDING, FIFO_WORDS_PER_PAGE,
};
use ring_proto::xen::{Errno, Port};

use super::delivery::mark_pending;
use super::two_level::VcpuInfo;
use crate::machine::{Machine, Mfn};

/// Offset of the heads in a control block.
const HEADS: usize = 8;

/// One queue of one virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) vcpu: u32,
    /// At most 15.
    pub(crate) priority: u8,
}

/// What a virtual CPU has.
#[derive(Clone, Debug, Default)]
struct Vcpu {
    /// Frame and offset of the control block.
    control: Option<(Mfn, usize)>,
    /// The last port of each queue, 0 if empty.
    tails: [u32; FIFO_MAX_QUEUES],
}

/// The queues of a domain.
#[derive(Debug)]
pub(crate) struct Fifo {
    /// Pages of event words.
    words: Vec<Mfn>,
    vcpus: Vec<Vcpu>,
    /// The queue that a port was last put into.
    last: BTreeMap<Port, Queue>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The port has no word yet: remember the event until it has.
    NoWord,
    /// It is pending, or dropped since the virtual CPU has no control block.
    Quietly,
    /// It is pending, and the virtual CPU has to be interrupted.
    Interrupt,
}

impl Fifo {
    pub(crate) fn new(vcpus: u32) -> Self {
        let vcpus = (0..vcpus).map(|_| Vcpu::default()).collect();
        Self { words: Vec::new(), vcpus, last: BTreeMap::new() }
    }

    /// Gives a virtual CPU its control block.
    pub(crate) fn set_control(&mut self, vcpu: u32, at: (Mfn, usize)) -> Result<(), Errno> {
        let vcpu = self.vcpus.get_mut(vcpu as usize).ok_or(Errno::ENOENT)?;
        if vcpu.control.is_some() {
            return Err(Errno::EINVAL);
        }
        vcpu.control = Some(at);
        Ok(())
    }

    /// Whether there is no room for one more page of words.
    pub(crate) fn is_full(&self) -> bool {
        self.words.len() >= (FIFO_NR_CHANNELS / FIFO_WORDS_PER_PAGE) as usize
    }

    /// Adds a page of words. Returns the ports whose words it has.
    pub(crate) fn add_words(&mut self, page: Mfn) -> core::ops::Range<Port> {
        let first = u32::try_from(self.words.len()).unwrap_or(u32::MAX) * FIFO_WORDS_PER_PAGE;
        self.words.push(page);
        Port(first)..Port(first + FIFO_WORDS_PER_PAGE)
    }

    /// The guest's frames that are held.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Mfn> + '_ {
        let controls = self.vcpus.iter().filter_map(|vcpu| vcpu.control.map(|(mfn, _)| mfn));
        self.words.iter().copied().chain(controls)
    }

    fn word(&self, port: Port) -> Option<(Mfn, usize)> {
        let page = self.words.get((port.0 / FIFO_WORDS_PER_PAGE) as usize)?;
        Some((*page, (port.0 % FIFO_WORDS_PER_PAGE * 4) as usize))
    }

    /// Whether the port is still in a queue, so that it cannot be used anew.
    pub(crate) fn is_busy<M: Machine>(&self, machine: &M, port: Port) -> bool {
        self.word(port).is_some_and(|(mfn, at)| machine.load(mfn, at) & FIFO_LINKED != 0)
    }

    /// Makes a port that is closed not pending. The guest unlinks it when it finds it.
    pub(crate) fn clear_pending<M: Machine>(&self, machine: &M, port: Port) {
        if let Some((mfn, at)) = self.word(port) {
            machine.fetch_and(mfn, at, !FIFO_PENDING);
        }
    }

    /// Unmasks a port. Returns whether an event waited, which then has to be delivered again.
    pub(crate) fn unmask<M: Machine>(&self, machine: &M, port: Port) -> bool {
        self.word(port).is_some_and(|(mfn, at)| {
            machine.fetch_and(mfn, at, !FIFO_MASKED);
            machine.load(mfn, at) & FIFO_PENDING != 0
        })
    }

    /// Sets a port pending, and links it into its queue if it may be delivered.
    pub(crate) fn set_pending<M: Machine>(
        &mut self,
        machine: &M,
        port: Port,
        queue: Queue,
        info: VcpuInfo,
    ) -> Delivered {
        let Some((mfn, at)) = self.word(port) else { return Delivered::NoWord };
        let control = self.vcpus.get(queue.vcpu as usize).and_then(|vcpu| vcpu.control);
        // A guest does not unmask before it gave a control block, so nobody waits for this event.
        let Some(control) = control else { return Delivered::Quietly };

        machine.fetch_or(mfn, at, FIFO_PENDING);
        if machine.load(mfn, at) & FIFO_MASKED != 0
            || machine.fetch_or(mfn, at, FIFO_LINKED) & FIFO_LINKED != 0
        {
            return Delivered::Quietly;
        }
        // The guest took the port out of the queue it was in last. If it was the tail there, that queue is empty, and
        // what links behind the tail would link behind a port of another queue.
        let last = self.last.insert(port, queue).unwrap_or(queue);
        if let Some(tail) = self.tail(last).filter(|tail| **tail == port.0) {
            *tail = 0;
        }
        let tail = self.tail(queue).map_or(0, |tail| core::mem::replace(tail, port.0));
        let behind = if tail == 0 { None } else { self.word(Port(tail)) };
        if behind.is_some_and(|word| link(machine, word, port.0)) {
            return Delivered::Quietly;
        }
        let (block, offset) = control;
        let priority = queue.priority.min(FIFO_MAX_QUEUES as u8 - 1);
        machine.store(block, offset + HEADS + usize::from(priority) * 4, port.0);
        let ready = 1 << priority;
        if machine.fetch_or(block, offset, ready) & ready == 0 && mark_pending(machine, info) {
            return Delivered::Interrupt;
        }
        Delivered::Quietly
    }

    fn tail(&mut self, queue: Queue) -> Option<&mut u32> {
        self.vcpus.get_mut(queue.vcpu as usize)?.tails.get_mut(usize::from(queue.priority))
    }
}

/// Links a port behind the tail of a queue, if the tail is still linked. Returns whether it was; if not, the queue is
/// empty.
///
/// A guest may mask, unmask and take off a linked port at any time. `BUSY` keeps it from unmasking, so the second
/// round of tries ends; a guest that writes more than it may is not waited for.
fn link<M: Machine>(machine: &M, (mfn, at): (Mfn, usize), port: u32) -> bool {
    const TRIES: u32 = 4;
    let mut word = machine.load(mfn, at);
    for tries in 0..=TRIES {
        if word & FIFO_LINKED == 0 {
            if tries > 0 {
                machine.fetch_and(mfn, at, !FIFO_BUSY);
            }
            return false;
        }
        let linked = word & !(FIFO_BUSY | FIFO_LINK_MASK) | port;
        match machine.compare_exchange(mfn, at, word, linked) {
            Ok(_) => return true,
            Err(_) if tries == 0 => word = machine.fetch_or(mfn, at, FIFO_BUSY) | FIFO_BUSY,
            Err(now) => word = now,
        }
    }
    machine.fetch_and(mfn, at, !FIFO_BUSY);
    true
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::DomId;

    use super::*;
    use crate::machine::FrameUse;
    use crate::ram::Ram;

    const TAIL: usize = 4;

    /// Links port 7 behind a tail, whose word the guest changes to these just before each change by the hypervisor.
    /// Returns whether it took the tail for linked, and the word.
    fn race(word: u32, words: &[u32]) -> (bool, u32) {
        let mut ram = Ram::new(1);
        let mfn = ram.allocate(DomId(1), FrameUse::SharedInfo).unwrap();
        ram.store(mfn, TAIL, word);
        ram.races.borrow_mut().extend(words.iter().map(|word| (mfn, TAIL, *word)));
        let linked = link(&ram, (mfn, TAIL), 7);
        ram.races.borrow_mut().clear();
        (linked, ram.load(mfn, TAIL))
    }

    #[test]
    fn links_behind_a_tail_that_changes() {
        let pending = FIFO_LINKED | FIFO_PENDING;
        assert_eq!(race(pending, &[]), (true, pending | 7));
        assert_eq!(race(pending | 5, &[]), (true, pending | 7), "a link that a guest made up");
        assert_eq!(race(FIFO_PENDING, &[]), (false, FIFO_PENDING));
        // The guest took it off, or masks and sees to it.
        assert_eq!(race(pending, &[0]), (false, 0));
        assert_eq!(race(pending, &[FIFO_LINKED]), (true, FIFO_LINKED | 7));
        let masked = FIFO_LINKED | FIFO_MASKED;
        assert_eq!(race(pending, &[masked, masked, FIFO_LINKED]), (true, FIFO_LINKED | 7));
    }

    #[test]
    fn does_not_wait_for_a_guest_that_never_stops() {
        let word = |n: u32| FIFO_LINKED | n << 18;
        let words: Vec<u32> = (1..20).map(word).collect();
        let (linked, left) = race(word(0), &words);
        assert!(linked);
        assert_eq!(left & FIFO_BUSY, 0);
    }
}
