// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ring_proto::shared::{Wire, from_bytes};
use ring_proto::xen::{DomId, Errno};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{self, Answer, QUIET, Request, array, kind, message, message_of};
use super::socket;
use crate::Error;

/// The socket to the hypervisor: one request at a time, each with its answer.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    dir: PathBuf,
    /// Held from a request to its answer.
    answer: Mutex<Vec<u8>>,
    hypercalls: AtomicU64,
}

/// What a hypercall returned, and the descriptors that came with it.
#[derive(Debug)]
pub(super) struct Returned {
    pub result: i64,
    pub fds: Vec<OwnedFd>,
}

impl Connection {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("hypervisor.sock");
        let failed = |source: rustix::io::Errno| Error::Io {
            operation: format!("connect to the hypervisor at {}", path.display()),
            source: source.into(),
        };
        let address = SocketAddrUnix::new(&path).map_err(failed)?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        Ok(Self {
            socket,
            dir: dir.to_owned(),
            answer: Mutex::new(socket::buffer()),
            hypercalls: AtomicU64::new(0),
        })
    }

    /// Readable, with `POLLHUP`, once the hypervisor is gone.
    pub fn hangup(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn hypercalls(&self) -> u64 {
        self.hypercalls.load(Ordering::Relaxed)
    }

    /// A request of the hosted mode's own. `operation` and `peer` are for the error.
    pub fn request<B: Wire, A: Wire>(
        &self,
        kind: u32,
        body: &B,
        operation: &str,
        peer: DomId,
    ) -> Result<(A, Vec<OwnedFd>), Error> {
        let request = Request { kind, ..Request::default() };
        let mut found = None;
        let returned =
            self.exchange(&message(&request, ring_proto::shared::bytes_of(body)), |answer| {
                found = from_bytes(answer);
            })?;
        if returned.result < 0 {
            return Err(refused(operation, peer, errno(returned.result)));
        }
        found.map(|found| (found, returned.fds)).ok_or_else(|| self.nonsense(operation))
    }

    /// A connection to xenstore.
    pub fn store(&self, own: DomId) -> Result<OwnedFd, Error> {
        let operation = "connect to xenstore";
        let request = Request { kind: kind::STORE, ..Request::default() };
        let returned = self.exchange(&message(&request, &[]), |_| ())?;
        if returned.result < 0 {
            return Err(refused(operation, own, errno(returned.result)));
        }
        returned.fds.into_iter().next().ok_or_else(|| self.nonsense(operation))
    }

    /// A hypercall with an array of argument structures, which come back filled in.
    pub fn hypercall<T: Wire>(
        &self,
        number: u32,
        command: u32,
        arguments: &mut [T],
    ) -> Result<Returned, Error> {
        self.hypercalls.fetch_add(1, Ordering::Relaxed);
        let request = hypercall(number, command, arguments.len(), 0);
        self.exchange(&message_of(&request, arguments), |answer| {
            for (argument, filled) in arguments.iter_mut().zip(array(answer)) {
                *argument = filled;
            }
        })
    }

    /// A hypercall whose result nobody looks at, as at the end of a mapping: it costs no wait.
    pub fn hypercall_quiet<T: Wire>(&self, number: u32, command: u32, arguments: &[T]) {
        self.hypercalls.fetch_add(1, Ordering::Relaxed);
        let request = hypercall(number, command, arguments.len(), QUIET);
        // A failure means that the hypervisor is gone, and with it all that was to be released.
        if let Err(error) =
            socket::send(&self.socket, &message_of(&request, arguments), &[], SendFlags::empty())
        {
            log::debug!("hypercall {number}.{command}: {error}");
        }
    }

    fn exchange(&self, message: &[u8], read: impl FnOnce(&[u8])) -> Result<Returned, Error> {
        let mut buffer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        match socket::send(&self.socket, message, &[], SendFlags::empty()) {
            // One that turned this connection away said why before it closed it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent.map_err(|error| self.failed(error))?,
        }
        let mut reset = false;
        let packet = loop {
            match socket::receive(&self.socket, &mut buffer, RecvFlags::empty()) {
                // It closed the connection with the request unread. What it said is still to come.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !reset => {
                    reset = true;
                }
                received => break received,
            }
        };
        let packet = packet.map_err(|error| self.failed(error))?.ok_or_else(|| self.gone())?;
        let answer: Answer = from_bytes(packet.bytes).ok_or_else(|| self.nonsense("a request"))?;
        read(packet.bytes.get(size_of::<Answer>()..).unwrap_or_default());
        Ok(Returned { result: answer.result as i64, fds: packet.fds })
    }

    pub fn gone(&self) -> Error {
        Error::Gone(self.dir.display().to_string())
    }

    /// An answer that breaks the protocol.
    pub fn nonsense(&self, operation: &str) -> Error {
        let source = io::Error::new(
            io::ErrorKind::InvalidData,
            "the hypervisor's answer breaks the protocol",
        );
        Error::Io { operation: operation.to_owned(), source }
    }

    fn failed(&self, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => self.gone(),
            _ => Error::Io {
                operation: format!("talk to the hypervisor at {}", self.dir.display()),
                source,
            },
        }
    }
}

fn hypercall(number: u32, command: u32, count: usize, flags: u32) -> Request {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Request { kind: kind::HYPERCALL, flags, number, command, count, pad: 0 }
}

pub(super) fn refused(operation: impl Into<String>, peer: DomId, errno: Errno) -> Error {
    Error::Refused { operation: operation.into(), peer, errno }
}

/// The reason in a negative result.
pub(super) fn errno(result: i64) -> Errno {
    i32::try_from(-result).ok().and_then(Errno::from_raw).unwrap_or(Errno::EINVAL)
}

/// How many argument structures a message holds at most.
pub(super) const fn batch<T>() -> usize {
    (protocol::MAX_MESSAGE - size_of::<Request>()) / size_of::<T>()
}
