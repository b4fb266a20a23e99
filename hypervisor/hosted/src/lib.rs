// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hypervisor as a Linux process: a domain is a process, its memory a memfd, an event an eventfd.
//!
//! The decisions are those of [`hypervisor_core`], with Xen's hypercalls, structures and error codes; this crate brings
//! the machine below it. A program becomes a domain with `hypervisor_client::hosted::connect`. No privilege, no virtual
//! machine and no kernel module is needed.
//!
//! | in Xen | here |
//! |---|---|
//! | a domain | a connection to `DIR/hypervisor.sock` ([the protocol](hypervisor_client::hosted::protocol)) |
//! | its memory | private memory of the process, and a *grant pool*: a sealed memfd of which pages can be granted |
//! | its grant table | another memfd, written by the domain and judged by the daemon |
//! | mapping a grant | a hypercall that pins the entry and tells the machine frame; then `mmap` of that page of the pool |
//! | an event channel | two eventfds, one for each direction, held by both ends |
//! | a hypercall | a message and its answer |
//! | xenstore | the library `xenstored`, at `DIR/xenstored.sock` for the toolstack |
//!
//! Granting, ending a grant, rings and doorbells make no trip through the daemon: it could stop, and what is connected
//! would go on.
//!
//! # The end of a domain
//!
//! A domain ends when its connection does, however that came about. Its ports are closed and the other ends' doorbells
//! rung, its mappings undone, its grants revoked; domain 0 gets `VIRQ_DOM_EXC`, and `@releaseDomain` fires in xenstore.
//! Pages that others still map live, and its id stays taken, until the last of them lets go. Then a new process can
//! have the id, and with it the directory in xenstore: so a backend is started again.
//!
//! # What this isolates
//!
//! * A domain's private memory: nobody gets at it through the hypervisor.
//! * Domains that share nothing: without a grant there is no descriptor, and without a descriptor no page.
//! * The daemon, and through it all others, from what a domain says: a message that breaks the protocol ends that
//!   domain's connection; a hypercall that makes no sense gets Xen's error; the table's entries are read once. Files
//!   are sealed against shrinking, so no access to them can fault.
//! * How much one domain can take ([`Limits`]).
//!
//! # What it does not
//!
//! * **A pool is shared as a whole.** The grant table decides *whether* a peer gets the pool and lets correct programs
//!   find their pages, but a peer that was granted one page holds a descriptor of them all, for as long as it likes. So
//!   a pool belongs to domains that trust each other as far as their shared pages go. For more, give each peer a domain
//!   of its own to talk to.
//! * **Read-only is a guard against mistakes.** The descriptor of a peer that was granted reading only cannot be mapped
//!   for writing, but a process of the same user can open it anew through `/proc`.
//! * **Doorbells are shared.** Both ends hold both eventfds, so a peer can swallow the other's events or make an eventfd
//!   one that blocks. It harms its own device with that, and an end that waits without a time limit.
//! * **The border between users is the sockets' permission**, 0600. Processes of one user can trace, stop and kill each
//!   other and the daemon; nothing here prevents it. Nor is a connection's claim to a domain id checked: whoever may
//!   connect may be any domain, domain 0 included.
//!
//! All of this is different on a real hypervisor, where each page is its own. Drivers are written for that one: they
//! treat every peer as hostile.
mod daemon;
mod domains;
mod doorbells;
mod hypercall;
mod machine;
mod xenstore;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Resource;

use daemon::Daemon;
use xenstore::Xenstore;

/// Why the hypervisor did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, naming the file.
        operation: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Another one serves this directory.
    #[error("a hypervisor is running in {} already", .0.display())]
    Running(PathBuf),
}

/// How much there may be. A domain that asks for more is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Domains, with those that are gone but whose pages a peer still holds mapped.
    pub domains: usize,
    /// Pages of a domain's grant pool.
    pub pool_pages: u32,
    /// The highest port of a domain. Each event channel takes two descriptors of the daemon.
    pub ports: u32,
    /// 256ths of how many grants a domain can hold mapped.
    pub maptrack_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { domains: 256, pool_pages: 1 << 17, ports: 1023, maptrack_frames: 1024 }
    }
}

/// Stops a hypervisor that [`run`]s. Copies stop the same one.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// One that is not yet used.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(rustix::event::eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Asks for the end. This is one write to a descriptor: a signal handler may do it.
    pub fn stop(&self) {
        // It fails only when full, and then it was called before.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Serves `DIR/hypervisor.sock` and `DIR/xenstored.sock` on this thread (and one more for xenstore) until stopped.
/// The directory is created if it is not there.
///
/// # Errors
///
/// When the sockets cannot be made, or a hypervisor runs in `dir` already.
pub fn run(dir: &Path, stop: &Stop) -> Result<(), Error> {
    raise_descriptor_limit();
    Bound::new(dir, Limits::default(), stop)?.serve()
}

/// Allows this process as many descriptors as it may have at most: each event channel takes two.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        log::warn!("raise the limit of open descriptors: {error}");
    }
}

/// A hypervisor on threads of this process. Dropping it stops it.
#[derive(Debug)]
pub struct Hosted {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Hosted {
    /// Starts one that serves `dir`, which is created if it is not there. Domains can connect as soon as this returns.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn start(dir: &Path) -> Result<Self, Error> {
        Self::start_with(dir, Limits::default())
    }

    /// As [`start`](Self::start), with limits of one's own.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn start_with(dir: &Path, limits: Limits) -> Result<Self, Error> {
        let failed =
            |source| Error::Io { operation: "start the hypervisor's thread".to_owned(), source };
        let stop = Stop::new().map_err(failed)?;
        let bound = Bound::new(dir, limits, &stop)?;
        let serve = move || {
            if let Err(error) = bound.serve() {
                log::error!("the hypervisor stopped: {error}");
            }
        };
        let thread = std::thread::Builder::new()
            .name("hypervisor".to_owned())
            .spawn(serve)
            .map_err(failed)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.stop.stop();
        let joined = self.thread.take().map(JoinHandle::join);
        if matches!(joined, Some(Err(_))) {
            log::error!("the hypervisor's thread panicked");
        }
    }
}

/// A hypervisor whose sockets are there.
struct Bound {
    daemon: Daemon,
    sockets: [PathBuf; 2],
    /// Locked as long as this lives.
    _lock: OwnedFd,
}

impl Bound {
    fn new(dir: &Path, limits: Limits, stop: &Stop) -> Result<Self, Error> {
        let failed = |what: &str, path: &Path| {
            let operation = format!("{what} {}", path.display());
            move |source| Error::Io { operation, source }
        };
        std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let lock = lock(dir)?;
        let sockets = [dir.join("hypervisor.sock"), dir.join("xenstored.sock")];
        let [hypervisor, xenstored] = &sockets;
        let listener =
            listen(hypervisor, SocketType::SEQPACKET).map_err(failed("listen at", hypervisor))?;
        let store = listen(xenstored, SocketType::STREAM)
            .and_then(|listener| Xenstore::start(UnixListener::from(listener)))
            .map_err(failed("serve xenstore at", xenstored))?;
        let daemon = Daemon::new(listener, store, stop.clone(), limits)
            .map_err(failed("serve", hypervisor))?;
        Ok(Self { daemon, sockets, _lock: lock })
    }

    fn serve(self) -> Result<(), Error> {
        let served = self.daemon.serve();
        let [hypervisor, _] = &self.sockets;
        let operation = format!("serve {}", hypervisor.display());
        for socket in &self.sockets {
            if let Err(error) = std::fs::remove_file(socket) {
                log::warn!("remove {}: {error}", socket.display());
            }
        }
        served.map_err(|source| Error::Io { operation, source })
    }
}

/// Sees to it that one hypervisor serves a directory at a time.
fn lock(dir: &Path) -> Result<OwnedFd, Error> {
    let path = dir.join("hypervisor.lock");
    let failed = |source: rustix::io::Errno| Error::Io {
        operation: format!("lock {}", path.display()),
        source: source.into(),
    };
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running(dir.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// A listening socket that only this user can connect to. What stood there before is left over from a hypervisor that
/// died: the directory is locked.
fn listen(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before it listens.
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}
