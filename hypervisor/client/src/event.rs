// SPDX-License-Identifier: MIT OR Apache-2.0

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ring_proto::xen::Port;

use crate::Error;

/// One end of an interdomain event channel: a doorbell to ring, and a descriptor that is readable when the peer rang.
/// Dropping it closes the port.
#[derive(Debug)]
pub struct EventChannel {
    port: Port,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Hosted: one eventfd for each direction.
    EventFd { incoming: OwnedFd, outgoing: OwnedFd },
}

impl EventChannel {
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
        todo!()
    }

    /// A descriptor to which writing the eight bytes of `1u64` rings the peer's doorbell, if this hypervisor has one:
    /// an io_uring can then ring it in the same submission as everything else.
    pub fn doorbell_fd(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::EventFd { outgoing, .. } => Some(outgoing.as_raw_fd()),
        }
    }

    /// How many bytes one read of the descriptor takes at most. An event loop reads that many to consume the event,
    /// then calls [`rearm`](Self::rearm).
    pub fn read_len(&self) -> usize {
        8
    }

    /// Lets the next event through after one was read from the descriptor. Without it there is none.
    ///
    /// # Errors
    ///
    /// When the channel is closed at the hypervisor.
    pub fn rearm(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Waits until the peer rang, or the time is over, and consumes the event. Returns whether it rang.
    ///
    /// # Errors
    ///
    /// When the channel is closed at the hypervisor.
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> Result<bool, Error> {
        let _ = timeout;
        todo!()
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::EventFd { incoming, .. } => incoming.as_fd(),
        }
    }
}
