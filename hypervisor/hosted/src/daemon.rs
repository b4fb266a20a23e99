// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon's loop: one thread that owns all state, woken by sockets.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hypervisor_client::hosted::protocol::{
    Answer, Join, MAX_MESSAGE, QUIET, Request, VERSION, kind, message,
};
use hypervisor_client::hosted::socket;
use ring_proto::shared::{bytes_of, from_bytes};
use ring_proto::xen::{DomId, Errno};
use rustix::event::{EventfdFlags, epoll};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::domains::Domains;
use crate::xenstore::Xenstore;
use crate::{Limits, Stop, hypercall};

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_SESSION: u64 = 2;

/// Connections beyond the limit of domains, for whoever has not joined yet and may be told that there is no room.
const NOT_JOINED: usize = 16;

/// Everything that the daemon has.
pub(crate) struct Daemon {
    poll: OwnedFd,
    listener: OwnedFd,
    /// Open as long as it is watched.
    _stop: Stop,
    sessions: BTreeMap<u64, Session>,
    /// Given up to accept, and close, a connection when there is no other descriptor left: it would wait for ever.
    spare: Option<OwnedFd>,
    next_session: u64,
    domains: Domains,
    limits: Limits,
    store: Xenstore,
    buffer: Vec<u8>,
}

/// A connection.
struct Session {
    socket: OwnedFd,
    /// The domain that it is, once it joined.
    domain: Option<DomId>,
}

/// Why a connection ends.
enum End {
    /// The other side closed it.
    Closed,
    /// It broke the protocol.
    Violation(String),
    /// The socket failed.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            io::ErrorKind::InvalidData => Self::Violation(error.to_string()),
            _ => Self::Failed(error),
        }
    }
}

impl Daemon {
    pub(crate) fn new(
        listener: OwnedFd,
        store: Xenstore,
        stop: Stop,
        limits: Limits,
    ) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&poll, &listener, LISTENER)?;
        watch(&poll, &stop, STOP)?;
        Ok(Self {
            poll,
            listener,
            _stop: stop,
            sessions: BTreeMap::new(),
            spare: spare(),
            next_session: FIRST_SESSION,
            domains: Domains::new(limits),
            limits,
            store,
            buffer: socket::buffer(),
        })
    }

    /// Serves until stopped.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    STOP => return Ok(()),
                    session => self.receive(session),
                }
            }
        }
    }

    fn accept(&mut self) {
        let socket = match rustix::net::accept_with(
            &self.listener,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        ) {
            Ok(socket) => socket,
            Err(error) => {
                if self.spare.take().is_some() {
                    log::warn!("accept a domain: {error}: refused");
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    if let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
                        turn_away(&socket, Errno::EMFILE);
                    }
                }
                self.spare = spare();
                return;
            }
        };
        if self.sessions.len() >= self.limits.domains + NOT_JOINED {
            turn_away(&socket, Errno::ENOSPC);
            return log::warn!("connection refused: there are {} of them", self.sessions.len());
        }
        let id = self.next_session;
        self.next_session += 1;
        match watch(&self.poll, &socket, id) {
            Ok(()) => {
                self.sessions.insert(id, Session { socket, domain: None });
            }
            Err(error) => log::warn!("watch a connection: {error}"),
        }
    }

    /// Takes one message of a connection, and ends the connection if that is the end of it.
    fn receive(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Err(end) = session.receive(&mut self.domains, &self.store, &mut self.buffer) else {
            return;
        };
        let who = match session.domain {
            Some(domain) => format!("domain {domain}"),
            None => "a connection that is no domain yet".to_owned(),
        };
        match end {
            End::Closed => log::info!("{who} is gone"),
            End::Violation(reason) => {
                log::warn!("{who} broke the protocol: {reason}: disconnected")
            }
            End::Failed(error) => log::warn!("{who}: {error}: disconnected"),
        }
        if let Some(Session { domain: Some(domain), .. }) = self.sessions.remove(&id) {
            self.domains.end(domain);
            self.store.release(domain);
        }
    }
}

impl Session {
    fn receive(
        &mut self,
        domains: &mut Domains,
        store: &Xenstore,
        buffer: &mut [u8],
    ) -> Result<(), End> {
        let packet = match socket::receive(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(End::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !packet.fds.is_empty() {
            return Err(End::Violation("a message with descriptors".to_owned()));
        }
        let len = packet.bytes.len();
        let Some(request) = from_bytes::<Request>(packet.bytes) else {
            return Err(End::Violation(format!("a message of {len} bytes")));
        };
        let body = buffer.get_mut(size_of::<Request>()..len).unwrap_or_default();
        match (request.kind, self.domain) {
            (kind::JOIN, None) => self.join(domains, store, body),
            (kind::HYPERCALL, Some(domain)) => self.hypercall(domains, domain, &request, body),
            (kind::POOL, Some(domain)) => {
                let wish = from_bytes(body).ok_or_else(|| short(kind::POOL, body))?;
                match domains.pool(domain, &wish) {
                    Ok((found, fd)) => self.answer(0, bytes_of(&found), &[fd.as_fd()]),
                    Err(errno) => self.refuse(errno),
                }
            }
            (kind::STORE, Some(domain)) => match store.connect(domain) {
                Ok(stream) => self.answer(0, &[], &[stream.as_fd()]),
                Err(error) => {
                    log::error!("connect domain {domain} to xenstore: {error}");
                    self.refuse(errno_of(&error).unwrap_or(Errno::EIO))
                }
            },
            (kind, None) => {
                Err(End::Violation(format!("a request of kind {kind} before it joined")))
            }
            (kind, Some(_)) => Err(End::Violation(format!("a request of kind {kind}"))),
        }
    }

    fn join(&mut self, domains: &mut Domains, store: &Xenstore, body: &[u8]) -> Result<(), End> {
        let join: Join = from_bytes(body).ok_or_else(|| short(kind::JOIN, body))?;
        if join.version != VERSION {
            return Err(End::Violation(format!(
                "version {} of the protocol, this is {VERSION}",
                join.version
            )));
        }
        let name = usize::try_from(join.name_len).ok().and_then(|len| join.name.get(..len));
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
            return Err(End::Violation("a name that is none".to_owned()));
        };
        match domains.join(&join) {
            Ok((id, joined, fds)) => {
                log::info!("domain {id} joined: {name:?}, {} pages to grant", join.pool_pages);
                self.domain = Some(id);
                store.introduce(id, name);
                self.answer(0, bytes_of(&joined), &fds)
            }
            Err(errno) => {
                log::warn!(
                    "{name:?} asked for domain id {:#x}, {} pages: {errno}",
                    join.domid,
                    join.pool_pages
                );
                self.refuse(errno)
            }
        }
    }

    fn hypercall(
        &self,
        domains: &mut Domains,
        domain: DomId,
        request: &Request,
        body: &mut [u8],
    ) -> Result<(), End> {
        let (result, fds) = hypercall::call(&mut domains.hypervisor, domain, request, body);
        if result < 0 {
            log::debug!(
                "domain {domain}: hypercall {}.{}: {result}",
                request.number,
                request.command
            );
        }
        if request.flags & QUIET != 0 {
            return Ok(());
        }
        self.answer(result, body, fds.as_ref().map_or(&[], |fds| fds))
    }

    fn refuse(&self, errno: Errno) -> Result<(), End> {
        self.answer(refusal(errno), &[], &[])
    }

    /// Sends an answer. A domain that does not read its answers has nobody wait for it.
    fn answer(&self, result: i64, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), End> {
        let answer = message(&Answer { result: result as u64 }, body);
        debug_assert!(answer.len() <= MAX_MESSAGE);
        match socket::send(&self.socket, &answer, fds, SendFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(End::Violation("it does not read its answers".to_owned()))
            }
            sent => Ok(sent?),
        }
    }
}

/// The result that says why not.
fn refusal(errno: Errno) -> i64 {
    -i64::from(errno as i32)
}

/// The system's reason, if Xen has it too.
pub(crate) fn errno_of(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().and_then(Errno::from_raw)
}

/// Answers what a connection will ask for, before it is closed.
fn turn_away(socket: &OwnedFd, errno: Errno) {
    let answer = message(&Answer { result: refusal(errno) as u64 }, &[]);
    // Whoever is gone again need not know.
    let _ = socket::send(socket, &answer, &[], SendFlags::DONTWAIT);
}

fn short(kind: u32, body: &[u8]) -> End {
    End::Violation(format!("a request of kind {kind} with {} bytes", body.len()))
}

fn spare() -> Option<OwnedFd> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok()
}

fn watch(poll: &OwnedFd, fd: impl AsFd, id: u64) -> io::Result<()> {
    Ok(epoll::add(poll, fd, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?)
}
