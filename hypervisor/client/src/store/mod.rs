// SPDX-License-Identifier: MIT OR Apache-2.0

//! A connection to xenstore: over a Unix socket, or through the kernel's `/dev/xen/xenbus`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ring_proto::xen::Errno;
use ring_proto::xenstore::{
    HEADER_LEN, Header, MessageType, PAYLOAD_MAX, Permission, decimal, error_from_payload,
    one_string, watch_event,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;

mod device;
#[cfg(test)]
mod tests;
mod transaction;
pub use device::Device;
pub use transaction::Transaction;

/// How often a transaction that meets the changes of others is tried before it fails with `EAGAIN`. Somebody who
/// writes all the time to the nodes it looks at must not hold this program for ever.
const TRANSACTION_TRIES: u32 = 100;

/// A connection to xenstore, with the identity of this program's domain. Dropping it ends its watches.
///
/// A path that does not begin with a slash begins at the domain's home, `/local/domain/<domid>`.
///
/// A request waits for its reply, and watch events that come before are kept. So whoever waits for the descriptor
/// (an event loop) takes all events with [`pending_event`](Self::pending_event) first: after the descriptor was
/// readable, and after any other call.
///
/// ```no_run
/// # use hypervisor_client::{Error, store::Store};
/// # fn main() -> Result<(), Error> {
/// let store = Store::connect("/run/causeway/xenstored.sock")?;
/// store.transaction(|tx| {
///     tx.write("device/vbd/51712/ring-ref", "8")?;
///     tx.write("device/vbd/51712/event-channel", "3")
/// })?;
/// store.watch("device/vbd/51712", "disk")?;
/// while let Some(event) = store.next_event(None)? {
///     println!("{} changed", event.path);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    file: File,
    /// What an error calls the other end.
    name: String,
    last_request: Cell<u32>,
    /// Bytes received that are no whole message yet.
    input: RefCell<Vec<u8>>,
    events: RefCell<VecDeque<WatchEvent>>,
}

/// Something changed at or below a watched node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchEvent {
    /// The node that changed, or the watched node when that is all that is known. Relative if the watch is.
    pub path: String,
    /// The token of the watch.
    pub token: String,
}

/// One message from the store.
#[derive(Debug)]
struct Message {
    header: Header,
    payload: Vec<u8>,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Yes,
    No,
    Interrupted,
}

impl Store {
    /// Connects to a store's Unix socket, or to the kernel's `/dev/xen/xenbus`.
    ///
    /// # Errors
    ///
    /// When there is none, or nobody serves it.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let is_device = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_char_device());
        let open = || -> io::Result<File> {
            if is_device {
                return File::options().read(true).write(true).open(path);
            }
            Ok(OwnedFd::from(UnixStream::connect(path)?).into())
        };
        let file = open().map_err(|source| Error::Io {
            operation: format!("connecting to xenstore at {name}"),
            source,
        })?;
        Ok(Self::new(file, name))
    }

    /// Uses a connection that somebody else opened, and with it the identity that it was opened with.
    pub fn from_stream(stream: UnixStream) -> Self {
        Self::new(OwnedFd::from(stream).into(), "xenstore".to_owned())
    }

    fn new(file: File, name: String) -> Self {
        Self {
            file,
            name,
            last_request: Cell::new(0),
            input: RefCell::default(),
            events: RefCell::default(),
        }
    }

    /// The value of a node.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such node, `EACCES`; or when the store is gone.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.direct().read(path)
    }

    /// The value of a node, as text.
    ///
    /// # Errors
    ///
    /// Like [`read`](Self::read); `EILSEQ` when it is not UTF-8.
    pub fn read_str(&self, path: &str) -> Result<String, Error> {
        self.direct().read_str(path)
    }

    /// The value of a node, or `None` when there is no such node.
    ///
    /// # Errors
    ///
    /// Like [`read`](Self::read), without `ENOENT`.
    pub fn try_read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        self.direct().try_read(path)
    }

    /// Gives a node a value. Makes the node, and any missing above it.
    ///
    /// # Errors
    ///
    /// `EACCES`, `ENOSPC` when the domain's quota is used up, `E2BIG` when path and value exceed a message.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.direct().write(path, value)
    }

    /// Makes a node without a value, and any missing above it, unless it is there.
    ///
    /// # Errors
    ///
    /// Like [`write`](Self::write).
    pub fn mkdir(&self, path: &str) -> Result<(), Error> {
        self.direct().mkdir(path)
    }

    /// Removes a node and all below it. One that is not there is removed already.
    ///
    /// # Errors
    ///
    /// `EACCES`; `ENOENT` when not even its parent is there.
    pub fn rm(&self, path: &str) -> Result<(), Error> {
        self.direct().rm(path)
    }

    /// Names of a node's children.
    ///
    /// # Errors
    ///
    /// Like [`read`](Self::read).
    pub fn directory(&self, path: &str) -> Result<Vec<String>, Error> {
        self.direct().directory(path)
    }

    /// Who may do what with a node: the first entry names the owner, and the rights of all that no other names.
    ///
    /// # Errors
    ///
    /// Like [`read`](Self::read).
    pub fn get_perms(&self, path: &str) -> Result<Vec<Permission>, Error> {
        self.direct().get_perms(path)
    }

    /// Replaces what [`get_perms`](Self::get_perms) tells.
    ///
    /// # Errors
    ///
    /// `EACCES` for who does not own the node, `EPERM` for who gives it away, `EINVAL` for an empty list.
    pub fn set_perms(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.direct().set_perms(path, permissions)
    }

    /// Asks to be told of changes at and below a node, whether it is there or not, beginning with one event at once;
    /// or of `@introduceDomain` and `@releaseDomain`. An event may come without a change.
    ///
    /// # Errors
    ///
    /// `EEXIST` for the same path and token again, `ENOSPC` for too many.
    pub fn watch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.direct().call(
            MessageType::Watch,
            path,
            &[path.as_bytes(), &[0], token.as_bytes(), &[0]],
        )?;
        Ok(())
    }

    /// Ends a watch. Its events that have arrived are dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such watch.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.direct().call(
            MessageType::Unwatch,
            path,
            &[path.as_bytes(), &[0], token.as_bytes(), &[0]],
        )?;
        let of_watch = |event: &WatchEvent| {
            let below = event.path.strip_prefix(path);
            event.token == token
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path == "/")
        };
        self.events.borrow_mut().retain(|event| !of_watch(event));
        Ok(())
    }

    /// Does what `body` does to the store at once, or not at all. When others changed what it looked at, it is done
    /// anew, so `body` may run several times. When it fails, nothing is changed.
    ///
    /// # Errors
    ///
    /// The body's, the store's, and `EAGAIN` when others keep interfering.
    pub fn transaction<T>(
        &self,
        mut body: impl FnMut(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let reply = self.direct().call(MessageType::TransactionStart, "", &[&[0]])?;
            let id = one_string(&reply).and_then(decimal).filter(|id| *id != 0);
            let id = id.ok_or_else(|| self.nonsense("a transaction without an id"))?;
            let transaction = Transaction { store: self, id };
            let done = match body(&transaction) {
                Ok(done) => done,
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = transaction.call(MessageType::TransactionEnd, "", &[b"F\0"]);
                    return Err(error);
                }
            };
            match transaction.call(MessageType::TransactionEnd, "", &[b"T\0"]) {
                Ok(_) => return Ok(done),
                Err(error) if is_conflict(&error) && tries < TRANSACTION_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a watch event, for ever without a timeout. `None` when the time is over.
    ///
    /// # Errors
    ///
    /// When the store is gone.
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Option<WatchEvent>, Error> {
        // A time too long for the clock is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return Ok(Some(event));
            }
            if let Some(message) = self.parse()? {
                self.keep_event(message)?;
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.poll(PollFlags::IN, left)? {
                Ready::Yes => self.receive()?,
                Ready::Interrupted => {}
                Ready::No => return Ok(None),
            }
        }
    }

    /// A watch event that has arrived, without waiting.
    ///
    /// # Errors
    ///
    /// When the store is gone.
    pub fn pending_event(&self) -> Result<Option<WatchEvent>, Error> {
        self.next_event(Some(Duration::ZERO))
    }

    /// Operations outside of any transaction.
    fn direct(&self) -> Transaction<'_> {
        Transaction { store: self, id: 0 }
    }

    /// Sends a request and waits for its reply.
    fn exchange(
        &self,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Result<Vec<u8>, Errno>, Error> {
        let request = self.last_request.get().wrapping_add(1);
        self.last_request.set(request);
        // `call` has checked the length.
        let header = Header::new(kind, request, transaction, payload.len() as u32);
        self.send(&[&header.to_bytes(), payload].concat())?;
        loop {
            let Some(message) = self.parse()? else {
                self.receive()?;
                continue;
            };
            let Message { header: reply, payload } = message;
            if reply.kind == MessageType::WatchEvent as u32 {
                self.keep_event(Message { header: reply, payload })?;
            } else if reply.request != request {
                return Err(self.nonsense("a reply to no request"));
            } else if reply.kind == MessageType::Error as u32 {
                let errno = error_from_payload(&payload);
                return errno
                    .map(Err)
                    .ok_or_else(|| self.nonsense("an error without a known name"));
            } else if reply.kind == kind as u32 {
                return Ok(Ok(payload));
            } else {
                return Err(self.nonsense("a reply of another kind than the request"));
            }
        }
    }

    /// Sends a whole message at once, as the device wants it.
    fn send(&self, mut message: &[u8]) -> Result<(), Error> {
        while !message.is_empty() {
            let sent =
                match rustix::net::send(&self.file, message, rustix::net::SendFlags::NOSIGNAL) {
                    Err(rustix::io::Errno::NOTSOCK) => rustix::io::write(&self.file, message),
                    sent => sent,
                };
            match sent {
                Ok(len) => message = message.get(len..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Err(self.gone());
                }
                Err(rustix::io::Errno::AGAIN) => drop(self.poll(PollFlags::OUT, None)?),
                Err(error) => return Err(self.failed("writing to", error)),
            }
        }
        Ok(())
    }

    /// Takes in what has arrived, and waits when nothing has.
    fn receive(&self) -> Result<(), Error> {
        let mut bytes = [0; HEADER_LEN + PAYLOAD_MAX];
        match rustix::io::read(&self.file, &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => Err(self.gone()),
            Ok(len) => {
                self.input.borrow_mut().extend_from_slice(bytes.get(..len).unwrap_or_default());
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(rustix::io::Errno::AGAIN) => self.poll(PollFlags::IN, None).map(drop),
            Err(error) => Err(self.failed("reading from", error)),
        }
    }

    /// Takes a message out of what was received, if one is whole.
    fn parse(&self) -> Result<Option<Message>, Error> {
        let mut input = self.input.borrow_mut();
        let Some(header) = input.first_chunk() else { return Ok(None) };
        let header = Header::from_bytes(header);
        let len = header
            .payload_len()
            .ok_or_else(|| self.nonsense("a message longer than the protocol has"))?;
        if input.len() < HEADER_LEN + len {
            return Ok(None);
        }
        let payload = input.drain(..HEADER_LEN + len).skip(HEADER_LEN).collect();
        Ok(Some(Message { header, payload }))
    }

    /// Keeps an event until it is asked for.
    fn keep_event(&self, message: Message) -> Result<(), Error> {
        if message.header.kind != MessageType::WatchEvent as u32 {
            return Err(self.nonsense("a reply to no request"));
        }
        let event = watch_event(&message.payload).and_then(|(path, token)| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).ok();
            Some(WatchEvent { path: text(path)?, token: text(token)? })
        });
        let event = event.ok_or_else(|| self.nonsense("a watch event without path and token"))?;
        self.events.borrow_mut().push_back(event);
        Ok(())
    }

    fn poll(&self, what: PollFlags, timeout: Option<Duration>) -> Result<Ready, Error> {
        // Too long for the system is long enough to be for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut [PollFd::new(&self.file, what)], timeout.as_ref()) {
            Ok(0) => Ok(Ready::No),
            Ok(_) => Ok(Ready::Yes),
            Err(rustix::io::Errno::INTR) => Ok(Ready::Interrupted),
            Err(error) => Err(self.failed("waiting for", error)),
        }
    }

    fn gone(&self) -> Error {
        Error::Gone(self.name.clone())
    }

    fn failed(&self, operation: &str, error: rustix::io::Errno) -> Error {
        Error::Io { operation: format!("{operation} {}", self.name), source: error.into() }
    }

    /// The store does not keep to the protocol.
    fn nonsense(&self, what: &str) -> Error {
        let source = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        Error::Io { operation: format!("reading from {}", self.name), source }
    }
}

impl AsFd for Store {
    /// Readable when something has arrived; see [`Store::pending_event`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a transaction failed only because others were at work at the same time.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Store { errno: Errno::EAGAIN, .. })
}
