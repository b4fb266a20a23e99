// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ring_proto::xen::{DomId, Port};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::abi;
use super::ioctl::{Argument, ioctl, refused};
use crate::Error;

/// An event channel as `/dev/xen/evtchn` has it. Each has a file of its own: what is read from it is always this port,
/// and closing the file closes the port.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
    port: Port,
}

impl EventFile {
    pub(super) fn alloc_unbound(directory: &Path, peer: DomId) -> Result<(Port, Self), Error> {
        let bind = abi::BindUnboundPort { remote_domain: peer.0.into() };
        let argument = Argument::new(&bind, 0);
        Self::bind(directory, abi::EVTCHN_BIND_UNBOUND_PORT, argument)
            .map_err(|error| error.named("alloc_unbound".to_owned(), peer))
    }

    pub(super) fn bind_interdomain(
        directory: &Path,
        peer: DomId,
        port: Port,
    ) -> Result<(Port, Self), Error> {
        let bind = abi::BindInterdomain { remote_domain: peer.0.into(), remote_port: port.0 };
        let argument = Argument::new(&bind, 0);
        Self::bind(directory, abi::EVTCHN_BIND_INTERDOMAIN, argument)
            .map_err(|error| error.named(format!("bind_interdomain to port {port}"), peer))
    }

    fn bind(
        directory: &Path,
        request: u64,
        mut argument: Argument,
    ) -> Result<(Port, Self), BindError> {
        // On an io_uring, a read or write of a file that waits goes to a worker thread whether it has to wait or not:
        // this driver has no other way to say that it would.
        let file = super::open(directory, "evtchn", libc::O_NONBLOCK).map_err(BindError::Open)?;
        let port = Port(ioctl(&file, request, &mut argument).map_err(BindError::Bind)?);
        Ok((port, Self { file, port }))
    }

    pub(crate) fn notify(&self) -> Result<(), Error> {
        let mut argument = Argument::new(&abi::Notify { port: self.port.0 }, 0);
        ioctl(&self.file, abi::EVTCHN_NOTIFY, &mut argument)
            .map_err(|error| self.failed("notify", error))?;
        Ok(())
    }

    /// Writing the port unmasks it, which the driver masked when it delivered the event.
    pub(crate) fn rearm_bytes(&self) -> [u8; 4] {
        self.port.0.to_ne_bytes()
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed("wait on", error.into())),
            }
        }
        let mut port = [0; 4];
        (&self.file).read_exact(&mut port).map_err(|error| self.failed("read", error))?;
        (&self.file)
            .write_all(&self.rearm_bytes())
            .map_err(|error| self.failed("unmask", error))?;
        Ok(true)
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        Error::Io { operation: format!("{what} event channel {}", self.port), source }
    }
}

impl AsFd for EventFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why there is no channel.
enum BindError {
    Open(Error),
    Bind(io::Error),
}

impl BindError {
    fn named(self, operation: String, peer: DomId) -> Error {
        match self {
            Self::Open(error) => error,
            Self::Bind(error) => refused(operation, peer, error),
        }
    }
}
