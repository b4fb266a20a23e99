// SPDX-License-Identifier: MIT OR Apache-2.0

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

use ring_proto::xen::Port;

use crate::{Error, dev, hosted};

/// One end of an interdomain event channel: a doorbell to ring, and a descriptor that is readable when the peer rang.
/// Dropping it closes the port.
///
/// The descriptor is to be waited for before it is read: a read need not wait until the peer rang.
#[derive(Debug)]
pub struct EventChannel {
    port: Port,
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Hosted(hosted::Doorbells),
    Device(dev::EventFile),
}

impl EventChannel {
    pub(crate) fn new(port: Port, kind: Kind) -> Self {
        Self { port, kind }
    }

    /// This domain's number for the channel, as told to the peer through xenstore.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Rings the peer's doorbell. Costs one system call; call it only when the ring says that the peer asked.
    ///
    /// # Errors
    ///
    /// When the channel is closed at the hypervisor.
    pub fn notify(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Hosted(doorbells) => doorbells.notify(),
            Kind::Device(file) => file.notify(),
        }
    }

    /// A descriptor to which writing the eight bytes of `1u64` rings the peer's doorbell, if this hypervisor has one:
    /// an io_uring can then ring it in the same submission as everything else.
    pub fn doorbell_fd(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::Hosted(doorbells) => Some(doorbells.outgoing()),
            Kind::Device(_) => None,
        }
    }

    /// How many bytes one read of the descriptor takes. An event loop reads that many to consume the event.
    pub fn read_len(&self) -> usize {
        match &self.kind {
            Kind::Hosted(_) => 8,
            Kind::Device(_) => 4,
        }
    }

    /// What an event loop writes to the descriptor after each event that it read, if anything: the driver masks the
    /// channel when it delivers an event, and this lets the next one through. Events that came meanwhile are not lost.
    pub fn rearm(&self) -> Option<[u8; 4]> {
        match &self.kind {
            Kind::Hosted(_) => None,
            Kind::Device(file) => Some(file.rearm_bytes()),
        }
    }

    /// Waits until the peer rang, or the time is over (`None`: never), and consumes the event. Returns whether it rang.
    ///
    /// # Errors
    ///
    /// When the channel is closed at the hypervisor, or the hypervisor is gone.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        match &self.kind {
            Kind::Hosted(doorbells) => doorbells.wait(timeout),
            Kind::Device(file) => file.wait(timeout),
        }
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Hosted(doorbells) => doorbells.as_fd(),
            Kind::Device(file) => file.as_fd(),
        }
    }
}
