// SPDX-License-Identifier: GPL-2.0

//! The queues of a device, as long as its frontend is connected.

use core::fmt;

use block::bdev::DeviceNumber;
use kernel::error::Error;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use ring_proto::blkif::BackRing;
use ring_proto::ring::RingError;
use ring_proto::xenbus::vbd::{self, Connection};
use ring_proto::xenbus::State;
use xen::event::{EventChannel, Line};
use xen::map::MappedRing;
use xen::thread::{Parker, Thread};
use xen::xenbus;

use crate::attributes::Counted;
use crate::params;
use crate::queue::{Parts, Queue, Shared, MAX_INDIRECT};
use crate::statistics::Statistics;
use crate::vbd::{Serving, Vbd};

/// Why a device cannot go on.
pub(crate) type Failure = xenbus::Failure<Fault>;

/// Why a disk's backend cannot.
pub(crate) enum Fault {
    /// The block device cannot be opened.
    Open(DeviceNumber, Error),
    /// A queue's ring is not one.
    Ring(usize, RingError),
    /// A queue was ended by what its frontend wrote.
    Broken(usize),
    /// What was tried for a queue, and what became of it.
    Queue(usize, &'static str, Error),
}

impl Fault {
    /// Its number.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Self::Open(_, error) | Self::Queue(_, _, error) => *error,
            Self::Ring(..) | Self::Broken(_) => EIO,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(number, error) => write!(
                f,
                "opening block device {:x}:{:x}: error {}",
                number.major(),
                number.minor(),
                error.to_errno()
            ),
            Self::Ring(queue, error) => write!(f, "queue {queue}: {error}"),
            Self::Broken(queue) => write!(f, "queue {queue}: the frontend broke the ring"),
            Self::Queue(queue, what, error) => {
                write!(f, "queue {queue}: {what}: error {}", error.to_errno())
            }
        }
    }
}

/// A queue that runs, or has ended and is not joined yet.
struct Running {
    /// Its thread's name.
    name: CString,
    shared: Arc<Shared>,
    /// Dropping it waits for its end.
    _thread: Thread,
}

impl Drop for Running {
    /// One that was not told to end before would be waited for without end.
    fn drop(&mut self) {
        self.shared.stop(false);
    }
}

/// The queues.
pub(crate) struct Connected {
    queues: KVec<Running>,
    /// What the frontend had published.
    published: Option<Connection>,
    /// They were told to end.
    ending: bool,
}

impl Connected {
    pub(crate) fn none() -> Self {
        Self { queues: KVec::new(), published: None, ending: false }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.queues.is_empty()
    }

    /// Reads what the frontend published, maps its rings, binds to its event channels, and starts the queues.
    pub(crate) fn start(&mut self, owner: &Arc<Vbd>, serving: &Serving) -> Result<(), Failure> {
        let connection = Connection::read(&mut owner.peer(), &serving.features)?;
        let settings = connection.settings();
        let persistent = settings.persistent && serving.features.persistent;
        for (number, queue) in connection.queues().iter().enumerate() {
            let running = self.queue(owner, serving, number, queue, &connection, persistent)?;
            owner.counters.add(running.shared.clone())?;
            self.queues.push(running, GFP_KERNEL)?;
        }
        self.published = Some(connection);
        Ok(())
    }

    /// Whether the frontend has published something else since.
    pub(crate) fn is_outdated(&self, owner: &Vbd, serving: &Serving) -> Result<bool, Failure> {
        let now = Connection::read(&mut owner.peer(), &serving.features)?;
        Ok(self.published != Some(now))
    }

    fn queue(
        &self,
        owner: &Arc<Vbd>,
        serving: &Serving,
        number: usize,
        queue: &vbd::Queue,
        connection: &Connection,
        persistent: bool,
    ) -> Result<Running, Failure> {
        let device = &owner.device;
        let failed = |what| move |error| Failure::Own(Fault::Queue(number, what, error));
        let pages = MappedRing::new(device, queue.refs()).map_err(failed("mapping the ring"))?;
        let ring = BackRing::attach(pages, connection.settings().abi, MAX_INDIRECT)
            .map_err(|error| Failure::Own(Fault::Ring(number, error)))?;
        let parker = Arc::new(Parker::new(), GFP_KERNEL)?;
        let line = Line::new()?;
        let shared = Shared::new(ring, line.clone(), parker)?;
        let channel =
            EventChannel::bind(device, queue.port, line, c"causeway-blkback", shared.clone())
                .map_err(failed("binding to the event channel"))?;
        let peer = device.otherend_id();
        let (handle, name) = (owner.handle(), owner.name()?);
        let (resized, ended) = (owner.clone(), owner.clone());
        let parts = Parts {
            shared: shared.clone(),
            channel,
            disk: serving.disk.clone(),
            peer,
            name: CString::try_from_fmt(fmt!("vbd {}/{handle} queue {number}", peer.0))?,
            persistent: persistent.then(params::max_persistent_grants),
            lines: owner.lines.clone(),
            resized: KBox::new(move || resized.resized(), GFP_KERNEL)?,
            ended: KBox::new(move || ended.changed(), GFP_KERNEL)?,
        };
        let name = CString::try_from_fmt(fmt!("{}.{}-{number}", peer.0, &*name))?;
        let thread = Queue::new(parts)
            .and_then(|queue| Thread::start(&name, queue))
            .map_err(failed("starting its thread"))?;
        Ok(Running { name, shared, _thread: thread })
    }

    /// Fails when a queue ended by itself.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.ending {
            return Ok(());
        }
        match self.queues.iter().position(|queue| queue.shared.is_broken()) {
            Some(number) => Err(Failure::Own(Fault::Broken(number))),
            None => Ok(()),
        }
    }

    /// Logs what each queue has counted.
    pub(crate) fn log(&self) {
        for queue in &self.queues {
            let Statistics { oo_req, rd_req, wr_req, f_req, ds_req, persistent, .. } =
                &queue.shared.statistics;
            pr_info!(
                "({}): oo {:3}  |  rd {:4}  |  wr {:4}  |  f {:4}  |  ds {:4} | pg: {:4}/{:4}\n",
                &*queue.name,
                oo_req.get(),
                rd_req.get(),
                wr_req.get(),
                f_req.get(),
                ds_req.get(),
                persistent.get(),
                params::max_persistent_grants()
            );
        }
    }

    /// Ends all queues, in which state the frontend may be. Returns whether any is still at what it took; it says when
    /// it is not.
    pub(crate) fn end(&mut self, frontend: State, counters: &Counted) -> bool {
        self.ending = true;
        let left = matches!(frontend, State::Unknown | State::Initialising | State::Closed);
        for queue in &self.queues {
            queue.shared.stop(left);
        }
        if self.queues.iter().all(|queue| queue.shared.has_ended()) {
            self.queues.clear();
            self.published = None;
            counters.clear();
            self.ending = false;
        }
        !self.queues.is_empty()
    }

    /// Lets go of queues that have ended as they were told.
    pub(crate) fn reap(&mut self, counters: &Counted) {
        if self.ending {
            self.end(State::Connected, counters);
        }
    }

    pub(crate) fn tidy(&self) {
        self.queues.iter().for_each(|queue| queue.shared.tidy());
    }

    pub(crate) fn squeeze(&self) {
        self.queues.iter().for_each(|queue| queue.shared.squeeze());
    }

    /// Has all queues look at the disk's limits.
    pub(crate) fn relook(&self) {
        self.queues.iter().for_each(|queue| queue.shared.relook());
    }
}
