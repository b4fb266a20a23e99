// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{SocketFlags, accept_with};

use super::handshake::Export;
use super::wire::{Limits, export};
use super::worker::{Inbox, Worker};
use crate::{Disk, Error, SECTOR_SIZE};

/// Longest read or write that clients are offered.
const LONGEST: u32 = 1 << 20;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address of the loopback interface.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    /// A path, which contains a `/`, or an address and port.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("\"{text}\" is neither a path with a / nor an address and port")
        })?;
        match address.ip().is_loopback() {
            true => Ok(Self::Tcp(address)),
            false => Err(format!(
                "{address} is not on the loopback interface, and NBD has no access control"
            )),
        }
    }
}

impl fmt::Display for Listen {
    /// The NBD URI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "nbd+unix:///?socket={}", path.display()),
            Self::Tcp(address) => write!(f, "nbd://{address}/"),
        }
    }
}

/// What to serve where.
#[derive(Clone, Debug, clap::Args)]
// All options may stand in one command.
#[group(skip)]
pub struct Options {
    /// Path of a Unix socket, or a loopback address and port
    #[arg(long, value_name = "SOCKET")]
    pub listen: Listen,
    /// Name of the export; a client that asks for none gets it too
    #[arg(long, value_name = "NAME", default_value = "disk")]
    pub export: String,
}

/// A running server. Dropping it closes all connections, and the disk.
#[derive(Debug)]
pub struct Server {
    listen: Listen,
    disk: Arc<Disk>,
    stop: Arc<OwnedFd>,
    inboxes: Vec<Arc<Inbox>>,
    accept: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<Result<(), Error>>>,
}

impl Server {
    /// Serves a disk none of whose queues was taken.
    ///
    /// # Errors
    ///
    /// When the socket cannot be listened on.
    pub fn start(mut disk: Disk, options: &Options) -> io::Result<Self> {
        let (listener, listen) = bind(&options.listen)?;
        let export = describe(&disk, options);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let queues = disk.take_queues();
        let mut server = Self {
            listen,
            disk: Arc::new(disk),
            stop: stop.clone(),
            inboxes: Vec::new(),
            accept: None,
            workers: Vec::new(),
        };
        for queue in queues {
            let inbox = Arc::new(Inbox::new()?);
            let name = format!("nbd-{}", queue.index());
            let worker = Worker::new(queue, export.clone(), inbox.clone())?;
            server.inboxes.push(inbox);
            server
                .workers
                .push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        let inboxes = server.inboxes.clone();
        let work = move || accept(&listener, &stop, &inboxes);
        server.accept =
            Some(std::thread::Builder::new().name("nbd-accept".to_owned()).spawn(work)?);
        log::info!("nbd: serving {} bytes at {}", export.limits.size, server.listen);
        Ok(server)
    }

    /// Where it listens, with the port that was chosen if none was given.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// A function that ends the server: [`wait`](Self::wait) returns then.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let inboxes = self.inboxes.clone();
        move || inboxes.iter().for_each(|inbox| inbox.stop())
    }

    /// Waits until the disk fails, or the server is told to end, and closes the disk.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub fn wait(mut self) -> Result<(), Error> {
        std::mem::take(&mut self.workers).into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It fails only when it is readable already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        self.inboxes.iter().for_each(|inbox| inbox.stop());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
        if let Listen::Unix(path) = &self.listen {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What clients are told of the disk.
fn describe(disk: &Disk, options: &Options) -> Export {
    let (geometry, settings) = (disk.geometry(), disk.settings());
    let mut flags = export::HAS_FLAGS | export::MULTI_CONN;
    for (on, flag) in [
        (geometry.read_only, export::READ_ONLY),
        (settings.flush || settings.barrier, export::FLUSH | export::FUA),
        (geometry.discard.is_some() && !geometry.read_only, export::TRIM),
        (!geometry.read_only, export::WRITE_ZEROES),
    ] {
        if on {
            flags |= flag;
        }
    }
    // At most a quarter of the buffers, so that several requests are in progress in any case.
    let quarter = (disk.buffer_len() / 4).min(LONGEST as usize) as u32;
    let limits = Limits {
        size: geometry.sectors * SECTOR_SIZE as u64,
        flags,
        unit: geometry.sector_size,
        longest: (quarter / geometry.sector_size * geometry.sector_size).max(geometry.sector_size),
    };
    Export {
        name: options.export.clone(),
        limits,
        preferred: limits.longest.min(geometry.physical_sector_size.max(4096)),
    }
}

fn bind(listen: &Listen) -> io::Result<(OwnedFd, Listen)> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listening at {listen}: {error}"));
    match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).map_err(named)?;
            let address = listener.local_addr().map_err(named)?;
            Ok((listener.into(), Listen::Tcp(address)))
        }
        Listen::Unix(path) => {
            let listener = UnixListener::bind(path).or_else(|error| {
                if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) {
                    std::fs::remove_file(path)?;
                    return UnixListener::bind(path);
                }
                Err(error)
            });
            Ok((listener.map_err(named)?.into(), listen.clone()))
        }
    }
}

/// Whether a socket was left behind by a server that is gone.
fn is_stale(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Hands clients out to the threads in turn.
fn accept(listener: &OwnedFd, stop: &OwnedFd, inboxes: &[Arc<Inbox>]) {
    for inbox in inboxes.iter().cycle() {
        let mut fds =
            [listener.as_fd(), stop.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        if let Err(error) = poll(&mut fds, None) {
            log::debug!("nbd: {error}");
            continue;
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                // Only TCP has it; a Unix socket never waits.
                let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
                inbox.put(socket);
            }
            Err(error) => {
                log::warn!("nbd: accepting a client: {error}");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}
