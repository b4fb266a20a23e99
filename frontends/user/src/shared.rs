// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the control thread and the queues of a disk share: nothing of it is touched on the data path but one counter,
//! which is read at every call and changes only with the connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hypervisor_client::{EventChannel, Grant};
use ring_proto::blkif::FrontRing;
use ring_proto::xenbus::vbd::Geometry;
use rustix::event::{EventfdFlags, eventfd};

use crate::Error;
use crate::disk::Settings;
use crate::statistics::Counters;

/// A queue's part of one connection. Dropping it closes the channel and ends the grants.
#[derive(Debug)]
pub(crate) struct Link {
    pub ring: FrontRing<Grant>,
    pub channel: EventChannel,
    /// Pages for the segments of indirect requests; none when the backend takes no such requests.
    pub indirect: Option<Grant>,
    /// Segments that one indirect request can have.
    pub indirect_segments: usize,
    /// The pool of buffers anew, when the backend is in another domain than before.
    pub pool: Option<Grant>,
    /// Number of the device in requests.
    pub handle: u16,
    pub flush: bool,
    /// A discard may be secure.
    pub secure_discard: bool,
    pub barrier: bool,
}

/// How the disk is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Each queue finds its link, unless it took it already.
    Connected(Vec<Option<Link>>),
    /// The backend went, and may come back.
    Lost,
    /// For ever.
    Failed(Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counts the changes of `phase`.
    generation: AtomicU32,
    phase: Mutex<Phase>,
    /// What the backend says about itself and the disk.
    facts: Mutex<(Settings, Geometry)>,
    sectors: AtomicU64,
    resizes: AtomicU64,
    reconnects: AtomicU64,
    /// Wakes the control thread.
    control: OwnedFd,
    /// Wakes each queue.
    queues: Vec<OwnedFd>,
    pub counters: Vec<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(queues: usize, settings: Settings, geometry: Geometry) -> rustix::io::Result<Self> {
        let wake = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            generation: AtomicU32::new(0),
            phase: Mutex::new(Phase::Lost),
            sectors: AtomicU64::new(geometry.sectors),
            facts: Mutex::new((settings, geometry)),
            resizes: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            control: wake()?,
            queues: (0..queues).map(|_| wake()).collect::<Result<_, _>>()?,
            counters: (0..queues).map(|_| Counters::default()).collect(),
        })
    }

    /// Goes to another phase and tells everybody. Nothing leads out of a failure.
    pub fn change(&self, phase: Phase) {
        {
            let mut current = lock(&self.phase);
            if matches!(*current, Phase::Failed(_)) {
                return;
            }
            *current = phase;
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.queues.iter().chain([&self.control]).for_each(wake);
    }

    /// Whether a queue has not taken the pool that this connection has for it.
    pub fn has_pool_left(&self) -> bool {
        match &*lock(&self.phase) {
            Phase::Connected(links) => links.iter().flatten().any(|link| link.pool.is_some()),
            Phase::Lost | Phase::Failed(_) => false,
        }
    }

    /// Which change was the last one.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Looks at the phase, with its generation.
    pub fn with_phase<R>(&self, look: impl FnOnce(&mut Phase, u32) -> R) -> R {
        let mut phase = lock(&self.phase);
        let generation = self.generation();
        look(&mut phase, generation)
    }

    /// Why the disk failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        match &*lock(&self.phase) {
            Phase::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    #[inline]
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Relaxed)
    }

    pub fn resizes(&self) -> u64 {
        self.resizes.load(Ordering::Relaxed)
    }

    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub fn count_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub fn settings(&self) -> Settings {
        lock(&self.facts).0
    }

    pub fn geometry(&self) -> Geometry {
        lock(&self.facts).1
    }

    /// Takes note of a new connection.
    pub fn describe(&self, settings: Settings, geometry: Geometry) {
        lock(&self.facts).0 = settings;
        self.resize(geometry);
    }

    /// Takes note of what the disk is now. Returns whether its size is another.
    pub fn resize(&self, geometry: Geometry) -> bool {
        lock(&self.facts).1 = geometry;
        let resized = self.sectors.swap(geometry.sectors, Ordering::Relaxed) != geometry.sectors;
        if resized {
            self.resizes.fetch_add(1, Ordering::Relaxed);
        }
        resized
    }

    pub fn control_wake(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Readable when the phase changed.
    pub fn queue_wake(&self, queue: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(queue).map(AsFd::as_fd)
    }
}

/// Makes an eventfd readable. It cannot fail but by being readable as often as it counts.
fn wake(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Makes an eventfd unreadable again.
pub(crate) fn consume(event: BorrowedFd<'_>) {
    let _ = rustix::io::read(event, &mut [0; 8]);
}
