// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hypervisor as a Linux process: a domain is a process, its memory a memfd, an event an eventfd.
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
    /// Domains.
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
    Bound::new(dir, Limits::default(), stop)?.serve()
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
