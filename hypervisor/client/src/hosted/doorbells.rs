// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring_proto::xen::event_channel::{PortOnly, op};
use ring_proto::xen::{Port, hypercall};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, ReadWriteFlags};

use super::connection::Connection;
use crate::Error;

/// An event channel of the hosted mode: one eventfd for each direction. Dropping it closes the port.
#[derive(Debug)]
pub(crate) struct Doorbells {
    incoming: OwnedFd,
    outgoing: OwnedFd,
    port: Port,
    connection: Arc<Connection>,
}

impl Doorbells {
    pub(super) fn new(
        incoming: OwnedFd,
        outgoing: OwnedFd,
        port: Port,
        connection: Arc<Connection>,
    ) -> Self {
        Self { incoming, outgoing, port, connection }
    }

    pub(crate) fn outgoing(&self) -> RawFd {
        self.outgoing.as_raw_fd()
    }

    pub(crate) fn notify(&self) -> Result<(), Error> {
        match rustix::io::write(&self.outgoing, &1u64.to_ne_bytes()) {
            // Full: it has been rung and not looked at.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(self.failed("ring", error)),
        }
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // A time too long for the system's clock is as good as none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let hangup = self.connection.hangup();
            let mut fds = [
                PollFd::new(&self.incoming, PollFlags::IN),
                PollFd::new(&hangup, PollFlags::empty()),
            ];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(self.failed("wait on", error)),
            }
            let [incoming, hypervisor] = fds.map(|fd| fd.revents());
            if incoming.contains(PollFlags::IN) {
                if self.consume()? {
                    return Ok(true);
                }
            } else if !hypervisor.is_empty() {
                return Err(self.connection.gone());
            }
        }
    }

    /// Resets the doorbell. Returns whether it had rung: the peer has the same descriptor and may have been faster.
    fn consume(&self) -> Result<bool, Error> {
        let mut count = [0; 8];
        // NOWAIT, since the peer may have made the descriptor a blocking one.
        let at_current = u64::MAX;
        match rustix::io::preadv2(
            &self.incoming,
            &mut [IoSliceMut::new(&mut count)],
            at_current,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn failed(&self, what: &str, error: Errno) -> Error {
        Error::Io {
            operation: format!("{what} the doorbell of port {}", self.port),
            source: error.into(),
        }
    }
}

impl AsFd for Doorbells {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.as_fd()
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        let close = [PortOnly { port: self.port.0 }];
        self.connection.hypercall_quiet(hypercall::EVENT_CHANNEL_OP, op::CLOSE, &close);
    }
}
