// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store served over sockets, by one thread that never waits for any one of its clients.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use ring_proto::xen::DomId;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno as SystemError;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::client::ClientId;
use crate::connection::{Connection, Malformed, Message};
use crate::quota::Quota;
use crate::request::{Request, handle};
use crate::store::Store;

/// Connections at once, over all domains. One more waits in the listener's queue, or is refused.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes read from one client at once.
const READ_LEN: usize = 8192;
/// Requests of one client that are done before the others have their turn.
const TURN: usize = 16;
/// How long to wait before the listener is tried again.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The store at work, on a thread of its own. Dropping it closes all connections and ends the thread; the listener's
/// path in the file system is the caller's.
#[derive(Debug)]
pub struct Server {
    commands: Sender<Command>,
    doorbell: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// What the owner of a [`Server`] asks of its thread; each is acknowledged.
enum Command {
    Connect(DomId, UnixStream, SyncSender<io::Result<()>>),
    Introduce(DomId, SyncSender<()>),
    Release(DomId, SyncSender<()>),
    Stop,
}

impl Server {
    /// Serves an empty store. Whoever can connect to `listener` is domain 0, which may do everything.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or a descriptor.
    pub fn start(listener: UnixListener) -> io::Result<Self> {
        Self::with_quota(listener, Quota::default())
    }

    /// Like [`start`](Self::start), with other limits than Xen's.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or a descriptor.
    pub fn with_quota(listener: UnixListener, quota: Quota) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (commands, receiver) = channel();
        let mut service = Service {
            listener,
            doorbell: doorbell.try_clone()?,
            commands: receiver,
            store: Store::new(quota),
            sockets: BTreeMap::new(),
            accept_failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("xenstored".to_owned())
            .spawn(move || service.run())?;
        Ok(Self { commands, doorbell, thread: Some(thread) })
    }

    /// Opens a connection with the identity of a domain, and returns the client's end.
    ///
    /// # Errors
    ///
    /// When the domain, or all together, have as many as they may have, or the system refuses a descriptor.
    pub fn connect(&self, domid: DomId) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.ask(|done| Command::Connect(domid, ours, done))??;
        Ok(theirs)
    }

    /// Makes a domain known, and fires `@introduceDomain` the first time.
    ///
    /// # Errors
    ///
    /// When the thread is gone.
    pub fn introduce(&self, domid: DomId) -> io::Result<()> {
        self.ask(|done| Command::Introduce(domid, done))
    }

    /// Forgets a domain, closes its connections and fires `@releaseDomain` if it was introduced. Its nodes stay; the
    /// toolstack removes what it made for the domain.
    ///
    /// # Errors
    ///
    /// When the thread is gone.
    pub fn release(&self, domid: DomId) -> io::Result<()> {
        self.ask(|done| Command::Release(domid, done))
    }

    /// Has the thread do something, and waits until it did. It waits for nothing but work, so that is soon.
    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the store's thread is gone");
        let (done, answer) = sync_channel(1);
        self.commands.send(command(done)).map_err(|_| gone())?;
        self.ring()?;
        answer.recv().map_err(|_| gone())
    }

    fn ring(&self) -> io::Result<()> {
        rustix::io::write(&self.doorbell, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when the thread is gone already.
        let _ = self.commands.send(Command::Stop);
        let _ = self.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the store's thread panicked");
        }
    }
}

/// A client and its socket.
struct Socket {
    stream: UnixStream,
    connection: Connection,
}

/// What the thread owns.
struct Service {
    listener: UnixListener,
    doorbell: OwnedFd,
    commands: Receiver<Command>,
    store: Store,
    sockets: BTreeMap<ClientId, Socket>,
    /// The system had no descriptor for the last connection: the listener is left alone for [`ACCEPT_PAUSE`].
    accept_failed: bool,
}

impl Service {
    fn run(&mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    log::error!("the store stops: poll: {error}");
                    return;
                }
            };
            if self.obey().is_break() {
                return;
            }
            for id in ready {
                if let Err(reason) = self.serve(id) {
                    self.close(id, reason);
                }
            }
            self.accept();
            self.send();
        }
    }

    /// Waits until there is something to do, and returns the clients that have to do with it.
    fn wait(&mut self) -> rustix::io::Result<Vec<ClientId>> {
        let listens = !self.accept_failed && self.sockets.len() < MAX_CONNECTIONS;
        let mut fds = vec![
            PollFd::new(&self.doorbell, PollFlags::IN),
            PollFd::new(&self.listener, if listens { PollFlags::IN } else { PollFlags::empty() }),
        ];
        fds.extend(self.sockets.values().map(|socket| {
            let mut interest = PollFlags::empty();
            let reads = socket.connection.wants_input() && !socket.connection.has_message();
            interest.set(PollFlags::IN, reads);
            interest.set(PollFlags::OUT, !socket.connection.output().is_empty());
            PollFd::new(&socket.stream, interest)
        }));
        let whole_message = |socket: &Socket| socket.connection.has_message();
        let timeout = if self.sockets.values().any(whole_message) {
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 })
        } else {
            self.accept_failed.then_some(&ACCEPT_PAUSE)
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(SystemError::INTR) => {}
            Err(error) => return Err(error),
        }
        self.accept_failed = false;
        let ready = fds
            .iter()
            .skip(2)
            .zip(&self.sockets)
            .filter(|(fd, (_, socket))| !fd.revents().is_empty() || whole_message(socket));
        Ok(ready.map(|(_, (id, _))| *id).collect())
    }

    /// Does what the owner asks for.
    fn obey(&mut self) -> ControlFlow<()> {
        let mut rung = [0; 8];
        // Nothing to read is no error: the commands below are taken whether it rang or not.
        let _ = rustix::io::read(&self.doorbell, &mut rung);
        while let Ok(command) = self.commands.try_recv() {
            // An owner that does not wait for the answer is none of the thread's business.
            match command {
                Command::Connect(domid, stream, done) => {
                    let _ = done.send(self.add(domid, stream));
                }
                Command::Introduce(domid, done) => {
                    self.store.introduce(domid);
                    self.deliver();
                    let _ = done.send(());
                }
                Command::Release(domid, done) => {
                    self.store.release(domid);
                    self.deliver();
                    let _ = done.send(());
                }
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn accept(&mut self) {
        while self.sockets.len() < MAX_CONNECTIONS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let added =
                        stream.set_nonblocking(true).and_then(|()| self.add(DomId::DOM0, stream));
                    if let Err(error) = added {
                        log::warn!("a connection is refused: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::warn!("accept: {error}; the next try is in a second");
                    self.accept_failed = true;
                    return;
                }
            }
        }
    }

    fn add(&mut self, domid: DomId, stream: UnixStream) -> io::Result<()> {
        let refused = |what| io::Error::new(io::ErrorKind::QuotaExceeded, what);
        if self.sockets.len() >= MAX_CONNECTIONS {
            return Err(refused(format!("{MAX_CONNECTIONS} connections are open")));
        }
        let id = self.store.connect(domid).map_err(|_| {
            refused(format!("domain {domid} has as many connections as it may have"))
        })?;
        self.sockets.insert(id, Socket { stream, connection: Connection::default() });
        Ok(())
    }

    /// Reads from a client once if need be, and answers the next few of its requests.
    fn serve(&mut self, id: ClientId) -> Result<(), Closed> {
        // Another client's request may have closed it since the poll.
        let Some(socket) = self.sockets.get_mut(&id) else { return Ok(()) };
        socket.send()?;
        socket.receive()?;
        for _ in 0..TURN {
            // Its own request may have closed it, too.
            let Some(socket) = self.sockets.get_mut(&id) else { break };
            let Some(message) = socket.connection.next_message()? else { break };
            let Message { header, payload } = &message;
            let request = Request { kind: header.kind, transaction: header.transaction, payload };
            let answer = handle(&mut self.store, id, request);
            socket.connection.reply(*header, answer);
            self.deliver();
        }
        Ok(())
    }

    /// Hands events to their clients, and lets go of the clients that the store let go of.
    fn deliver(&mut self) {
        for (id, event) in self.store.take_events() {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.connection.event(&event);
            }
        }
        if self.store.clients() < self.sockets.len() {
            self.sockets.retain(|id, _| self.store.is_connected(*id));
        }
    }

    /// Sends what the clients have room for.
    fn send(&mut self) {
        let sent = self.sockets.iter_mut().map(|(id, socket)| (*id, socket.send()));
        let failed: Vec<_> = sent.filter_map(|(id, sent)| Some((id, sent.err()?))).collect();
        for (id, reason) in failed {
            self.close(id, reason);
        }
    }

    fn close(&mut self, id: ClientId, reason: Closed) {
        if let (Closed::Because(reason), Ok(domid)) = (reason, self.store.domid(id)) {
            log::warn!("domain {domid}: connection closed: {reason}");
        }
        self.store.disconnect(id);
        self.sockets.remove(&id);
    }
}

/// Why a connection ended.
enum Closed {
    /// The peer closed it.
    ByPeer,
    /// The peer did what ends it.
    Because(String),
}

impl Socket {
    fn receive(&mut self) -> Result<(), Closed> {
        if !self.connection.wants_input() || self.connection.has_message() {
            return Ok(());
        }
        let mut bytes = [0; READ_LEN];
        match recv(&self.stream, &mut bytes, RecvFlags::empty()) {
            Ok((0, _)) => Err(Closed::ByPeer),
            Ok((len, _)) => {
                self.connection.receive(bytes.get(..len).unwrap_or_default());
                Ok(())
            }
            Err(SystemError::AGAIN | SystemError::INTR) => Ok(()),
            Err(error) => Err(Closed::from(error)),
        }
    }

    fn send(&mut self) -> Result<(), Closed> {
        while !self.connection.output().is_empty() {
            match send(&self.stream, self.connection.output(), SendFlags::NOSIGNAL) {
                Ok(len) => self.connection.advance(len),
                Err(SystemError::AGAIN) => return Ok(()),
                Err(SystemError::INTR) => {}
                Err(error) => return Err(Closed::from(error)),
            }
        }
        Ok(())
    }
}

impl From<Malformed> for Closed {
    fn from(malformed: Malformed) -> Self {
        Self::Because(malformed.to_string())
    }
}

impl From<SystemError> for Closed {
    fn from(error: SystemError) -> Self {
        match error {
            SystemError::PIPE | SystemError::CONNRESET => Self::ByPeer,
            error => Self::Because(error.to_string()),
        }
    }
}
