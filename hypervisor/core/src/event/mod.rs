// SPDX-License-Identifier: MIT OR Apache-2.0

//! Event channels: one bit from one domain (or the hypervisor) to another.
//!
//! The state of the ports is here. How an event reaches its domain is a second matter: the embedder's doorbell for a
//! process, the pages that a PVH guest shares for the others.

mod delivery;
mod fifo;
mod port;
mod two_level;

use alloc::collections::BTreeMap;

use ring_proto::xen::{DomId, Errno, Port};

use crate::domain::{DomainConfig, DomainKind, Hypervisor};
use crate::machine::{Machine, Mfn};
use delivery::Delivery;

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Waits for this domain to bind.
    Unbound {
        /// Who may bind.
        remote: DomId,
    },
    /// Connected.
    Interdomain {
        /// The other domain.
        remote: DomId,
        /// Its port.
        port: Port,
    },
    /// A virtual interrupt (`VIRQ_*`).
    Virq(u32),
    /// An interrupt from one virtual CPU of the domain to another.
    Ipi,
}

/// A port that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What it is bound to.
    pub binding: Binding,
    /// The virtual CPU that it notifies.
    pub vcpu: u32,
    /// Its queue: 0 (first) to 15.
    pub(crate) priority: u8,
    /// It has an event that waits for its event word.
    saved: bool,
}

/// The ports of a domain.
#[derive(Debug)]
pub(crate) struct EventChannels {
    pub(crate) channels: BTreeMap<Port, Channel>,
    /// The port that each virtual interrupt of each virtual CPU is bound to. A global one counts as virtual CPU 0's.
    virqs: BTreeMap<(u32, u32), Port>,
    max_port: u32,
    /// All ports below it are in use.
    first_free: u32,
    /// Ports below it exist; the others never were in use.
    valid: u32,
    pub(crate) shared_info: Option<Mfn>,
    delivery: Delivery,
}

impl EventChannels {
    /// Ports come to be in groups of this size.
    const GROUP: u32 = 64;

    pub(crate) fn new(config: &DomainConfig) -> Self {
        Self {
            channels: BTreeMap::new(),
            virqs: BTreeMap::new(),
            max_port: config.max_port,
            first_free: 1,
            valid: Self::GROUP,
            shared_info: None,
            delivery: match config.kind {
                DomainKind::Process => Delivery::Embedder,
                DomainKind::Pvh => Delivery::TwoLevel,
            },
        }
    }

    /// Refuses a port that the domain does not have.
    fn check(&self, port: Port) -> Result<(), Errno> {
        if port.0 < self.valid { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// The lowest free port. Port 0 is never used.
    fn free_port<M: Machine>(&mut self, machine: &M) -> Result<Port, Errno> {
        while self.channels.contains_key(&Port(self.first_free)) {
            self.first_free += 1;
        }
        let end = self.max_port.saturating_add(1).min(self.delivery.ports());
        for port in (self.first_free..end).map(Port) {
            // One that was closed may still be in a queue, which the guest has to see to first.
            let busy = match &self.delivery {
                Delivery::Fifo(fifo) => fifo.is_busy(machine, port),
                Delivery::Embedder | Delivery::TwoLevel => false,
            };
            if !busy && !self.channels.contains_key(&port) {
                return Ok(port);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Takes a port out of use.
    fn remove(&mut self, port: Port) -> Option<Channel> {
        let channel = self.channels.remove(&port)?;
        self.first_free = self.first_free.min(port.0);
        Some(channel)
    }

    /// Puts a free port into use.
    fn insert(&mut self, port: Port, binding: Binding, vcpu: u32) {
        let priority = ring_proto::xen::event_channel::FIFO_PRIORITY_DEFAULT as u8;
        self.channels.insert(port, Channel { binding, vcpu, priority, saved: false });
        self.valid = self.valid.max((port.0 / Self::GROUP + 1) * Self::GROUP);
    }

    /// Takes the lowest free port for a binding.
    fn bind<M: Machine>(
        &mut self,
        machine: &M,
        binding: Binding,
        vcpu: u32,
    ) -> Result<Port, Errno> {
        let port = self.free_port(machine)?;
        self.insert(port, binding, vcpu);
        Ok(port)
    }
}

impl<M: Machine> Hypervisor<M> {
    /// A port of a domain, if it is in use.
    pub fn channel(&self, id: DomId, port: Port) -> Option<Channel> {
        self.live(id)?.events.channels.get(&port).copied()
    }

    /// What a port of a domain is bound to, if it is in use.
    pub fn binding(&self, id: DomId, port: Port) -> Option<Binding> {
        self.channel(id, port).map(|channel| channel.binding)
    }
}
