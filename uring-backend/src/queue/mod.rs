// SPDX-License-Identifier: MIT OR Apache-2.0

//! The event loop of one queue: one thread, one ring, one io_uring.
//!
//! Each pass of the loop takes what is there, from the io_uring and from the ring, and queues what follows of it: disk
//! operations, and the doorbell for the answers. All of it goes to the kernel in one call, which also brings the next
//! completions. Between two passes the queue looks for more work for a while, then sleeps in that same call.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hypervisor_client::{Client, EventChannel, Mapping};
use ring_proto::blkif::limits::Limits;
use ring_proto::blkif::{Abi, BackRing, Disk as DiskRules, Segment};
use ring_proto::ring::RingError;
use ring_proto::xen::DomId;
use rustix::event::{EventfdFlags, eventfd};

use crate::allowance::Lines;
use crate::helper::Helper;
use crate::image::Image;
use crate::io::{Completion, Descriptors, Engine, Source, Token};
use crate::journal::{Identity, Journal, UnderWay};
use crate::pages::PeerPages;
use crate::poll::{Polling, nanos};
use crate::request::{Job, Slot};
use crate::stats::QueueStats;

mod stage;
mod take;

/// How long a queue has to be idle before it gives memory back.
const IDLE: Duration = Duration::from_secs(5);

/// What all queues of a disk share.
#[derive(Debug)]
pub(crate) struct Disk {
    /// For logs: `vbd 5/51712`.
    pub(crate) name: String,
    pub(crate) image: Arc<Image>,
    /// What was offered to the frontend. Its capacity is not used.
    pub(crate) rules: DiskRules,
    /// Size in sectors of 512 bytes at this moment.
    pub(crate) capacity: AtomicU64,
    pub(crate) limits: Arc<Limits>,
    pub(crate) lines: Arc<Lines>,
    /// Where its queues count time from: their limits are of one clock.
    pub(crate) clock: Instant,
}

/// How the control thread reaches a queue.
#[derive(Debug)]
pub(crate) struct QueueControl {
    drain: AtomicBool,
    wake: OwnedFd,
}

impl QueueControl {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { drain: AtomicBool::new(false), wake: eventfd(0, EventfdFlags::CLOEXEC)? })
    }

    /// Makes the queue finish what it took, answer it, and end.
    pub(crate) fn drain(&self) {
        self.drain.store(true, Ordering::Release);
        self.wake();
    }

    /// Makes the queue look at the disk's limits again.
    pub(crate) fn wake(&self) {
        // An eventfd takes a one unless nobody read it 2^64 times.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Why a queue ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    /// The frontend broke the ring.
    #[error("the frontend broke the ring: {0}")]
    Ring(#[from] RingError),
    /// What an earlier backend noted is of another ring.
    #[error("the journal is of another connection")]
    Journal,
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor_client::Error),
    /// The system failed.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Names what was tried.
fn system(operation: &'static str) -> impl FnOnce(std::io::Error) -> QueueError {
    move |source| QueueError::System { operation, source }
}

/// All that a queue needs to run.
pub(crate) struct QueueParts {
    pub(crate) disk: Arc<Disk>,
    /// Its number.
    pub(crate) number: usize,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) peer: DomId,
    pub(crate) channel: EventChannel,
    pub(crate) abi: Abi,
    /// Most segments of an indirect request.
    pub(crate) max_indirect: u16,
    /// Most grants mapped for good, if the frontend reuses any.
    pub(crate) persistent: Option<usize>,
    /// Longest time to look for work before sleeping.
    pub(crate) poll: Duration,
    pub(crate) control: Arc<QueueControl>,
    pub(crate) stats: Arc<QueueStats>,
    /// Where what is under way is noted, if anywhere.
    pub(crate) journal: Option<JournalPart>,
}

/// The journal of a queue that is about to start.
#[derive(Debug)]
pub(crate) struct JournalPart {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    /// Whether to go on with what is in it.
    pub(crate) resume: bool,
}

/// A request that was taken and cannot begin yet. Its segments are those in [`Queue::segments`].
struct Parked {
    job: Job,
    /// When to look again, if time is what it waits for.
    until: Option<u64>,
}

/// Fields are dropped in order: the engine first, which waits for the kernel to let go of all memory.
pub(crate) struct Queue {
    engine: Engine,
    ring: BackRing<Mapping>,
    journal: Option<Journal>,
    /// What an earlier backend took and did not answer.
    again: UnderWay,
    pages: PeerPages,
    slots: Vec<Slot>,
    /// Slots that are free. The one freed last is used first.
    free: Vec<u32>,
    /// The segments of the request that is being looked at.
    segments: Vec<Segment>,
    parked: Option<Parked>,
    /// Answers that the frontend was not shown yet.
    unpublished: u32,
    /// A request is under way that has to be alone.
    exclusive: bool,
    /// Requests whose data has to be copied before they can begin, and after they ended.
    starting: Vec<u32>,
    finishing: Vec<u32>,
    /// Whether the engine was told what memory the frontend's pages lie in.
    memory_known: bool,
    /// A request ended since the last look at the ring: what is parked may have its turn now.
    freed: bool,
    helper: Option<Helper>,
    helper_wake: Arc<OwnedFd>,
    polling: Polling,
    clock: Instant,
    /// The time of this pass.
    now: u64,
    draining: bool,
    parts: QueueParts,
}

impl Queue {
    /// A queue for the ring in `pages`. To be made on the thread that runs it.
    pub(crate) fn new(pages: Mapping, parts: QueueParts) -> Result<Self, QueueError> {
        let mut ring = BackRing::attach(pages, parts.abi, parts.max_indirect)?;
        let slots = ring.size();
        let (mut journal, mut again) = (None, Vec::new());
        match &parts.journal {
            Some(JournalPart { path, identity, resume: true }) => {
                let found = match Journal::reopen(path, *identity, slots, ring.next_response()) {
                    // It was struck before there was one, and has taken nothing.
                    Err(error)
                        if error.kind() == std::io::ErrorKind::NotFound
                            && ring.next_response() == 0 =>
                    {
                        Journal::create(path, *identity, slots)
                            .map(|created| Some((created, Vec::new())))
                    }
                    found => found,
                };
                let found = found.map_err(system("opening the journal"))?;
                let (reopened, under_way) = found.ok_or(QueueError::Journal)?;
                let memory = ring.into_memory();
                let count = under_way.len() as u32;
                ring = BackRing::resume(memory, parts.abi, parts.max_indirect, count)?;
                (journal, again) = (Some(reopened), under_way);
            }
            Some(JournalPart { path, identity, resume: false }) => {
                match Journal::create(path, *identity, slots) {
                    Ok(created) => journal = Some(created),
                    // The disk is served all the same.
                    Err(error) => log::error!("{}: {error}", path.display()),
                }
            }
            None => {}
        }
        let helper_wake = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| system("eventfd")(error.into()))?,
        );
        let image = &parts.disk.image;
        let descriptors = Descriptors {
            direct: image.direct().unwrap_or(image.buffered()).as_raw_fd(),
            buffered: image.buffered().as_raw_fd(),
            event: parts.channel.as_fd().as_raw_fd(),
            event_len: parts.channel.read_len(),
            rearm: parts.channel.rearm(),
            doorbell: parts.channel.doorbell_fd(),
            control: parts.control.wake.as_raw_fd(),
            helper: helper_wake.as_raw_fd(),
        };
        let polling = Polling::new(parts.poll);
        let engine = Engine::new(slots, descriptors).map_err(system("io_uring_setup"))?;
        let pages =
            PeerPages::new(parts.client.clone(), parts.peer, parts.persistent, parts.stats.clone())
                .map_err(system("mmap"))?;
        Ok(Self {
            engine,
            ring,
            journal,
            again,
            pages,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            free: (0..slots).rev().collect(),
            segments: Vec::new(),
            parked: None,
            unpublished: 0,
            exclusive: false,
            starting: Vec::new(),
            finishing: Vec::new(),
            memory_known: false,
            freed: false,
            helper: None,
            helper_wake,
            polling,
            clock: parts.disk.clock,
            now: 0,
            draining: false,
            parts,
        })
    }

    /// Serves the ring until told to drain, or until the frontend breaks it.
    pub(crate) fn run(&mut self) -> Result<(), QueueError> {
        self.engine.read(Source::Event);
        self.engine.read(Source::Control);
        if self.parts.journal.as_ref().is_some_and(|journal| journal.resume) {
            let (disk, queue) = (&self.parts.disk.name, self.parts.number);
            log::info!("{disk} queue {queue}: goes on, with {} requests", self.again.len());
            // The last answers may have been published, and the doorbell not rung.
            self.parts.channel.notify()?;
        }
        loop {
            self.now = nanos(self.clock.elapsed());
            let completed = self.complete()?;
            if !self.pages.copies_queued() {
                self.publish()?;
            }
            let taken = self.take()?;
            if self.pages.copies_queued() {
                self.copy()?;
            }
            self.publish()?;
            if completed || taken {
                self.parts.stats.batches.add(1);
                self.parts.stats.in_flight.set(self.in_flight() as u64);
            } else {
                self.parts.stats.empty_passes.add(1);
            }
            if self.draining
                && self.in_flight() == 0
                && self.parked.is_none()
                && self.again.is_empty()
            {
                self.enter(false, None)?;
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes all completions. Returns whether there was one of a request.
    fn complete(&mut self) -> Result<bool, QueueError> {
        let mut moved = false;
        while let Some(Completion { token, result }) = self.engine.next() {
            match token {
                Token::Slot(slot) => {
                    moved = true;
                    self.stage_done(slot, result)?;
                }
                Token::Source(Source::Event) => {
                    if result < 0 {
                        let error = std::io::Error::from_raw_os_error(-result);
                        return Err(system("reading the event channel")(error));
                    }
                    self.engine.rearm();
                    self.engine.read(Source::Event);
                }
                Token::Source(Source::Control) => {
                    self.draining |= self.parts.control.drain.load(Ordering::Acquire);
                    if let Some(parked) = &mut self.parked {
                        parked.until = None;
                    }
                    self.engine.read(Source::Control);
                }
                Token::Source(Source::Helper) => {
                    moved = true;
                    let finished = self.helper.as_ref().map(Helper::finished).unwrap_or_default();
                    self.engine.read(Source::Helper);
                    for (slot, result) in finished {
                        self.stage_done(slot, result)?;
                    }
                }
                Token::Doorbell if result == -libc::EAGAIN => {}
                Token::Doorbell => {
                    let error = std::io::Error::from_raw_os_error(result.saturating_abs());
                    return Err(system("ringing the doorbell")(error));
                }
                Token::Rearm => {
                    let error = std::io::Error::from_raw_os_error(result.saturating_abs());
                    return Err(system("rearming the event channel")(error));
                }
                Token::Nothing => {}
            }
        }
        Ok(moved)
    }

    /// Shows the frontend the answers of this pass, and queues the doorbell if it asked for it.
    fn publish(&mut self) -> Result<(), QueueError> {
        if self.unpublished == 0 {
            return Ok(());
        }
        self.unpublished = 0;
        let stats = &self.parts.stats;
        let doorbell = self.ring.publish();
        if let Some(journal) = &mut self.journal {
            journal.published();
        }
        if !doorbell {
            stats.doorbells_saved.add(1);
            return Ok(());
        }
        stats.doorbells.add(1);
        if !self.engine.ring_doorbell() {
            stats.other_syscalls.add(1);
            self.parts.channel.notify()?;
        }
        Ok(())
    }

    /// Submits, and waits until there is something to do.
    fn wait(&mut self) -> Result<(), QueueError> {
        let window = self.polling.window();
        if self.freed && self.parked.as_ref().is_some_and(|parked| parked.until.is_none()) {
            return self.enter(false, None);
        }
        if self.may_take() && self.ring.available()? > 0 {
            // Submits what there is; more is there to take.
            return self.enter(false, None);
        }
        let began = nanos(self.clock.elapsed());
        let idle = self.in_flight() == 0;
        if idle && window > 0 {
            self.enter(false, None)?;
            if self.look(window)? {
                return self.enter(false, None);
            }
        } else if self.engine.ready() {
            return self.enter(false, None);
        }
        if self.may_take() && self.ring.final_check()? {
            return self.enter(false, None);
        }
        let until = self.parked.as_ref().and_then(|parked| parked.until);
        let timeout = match until {
            Some(until) => {
                Some(Duration::from_nanos(until.saturating_sub(nanos(self.clock.elapsed()))))
            }
            None => self.pages.releasable().then_some(IDLE),
        };
        self.enter(true, timeout)?;
        if idle && until.is_none() {
            let waited = nanos(self.clock.elapsed()) - began;
            self.polling.waited(waited);
            if waited >= nanos(IDLE) && self.pages.releasable() {
                self.engine.forget_memory().map_err(system("giving memory back"))?;
                self.pages.release();
            }
        }
        Ok(())
    }

    /// Looks for work for so many nanoseconds, without a system call. Returns whether there is some.
    fn look(&mut self, window: u64) -> Result<bool, QueueError> {
        /// Looks between two looks at the clock, which cost more.
        const LOOKS: u32 = 32;
        let end = nanos(self.clock.elapsed()) + window;
        loop {
            for _ in 0..LOOKS {
                if self.engine.ready() || self.may_take() && self.ring.available()? > 0 {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            if nanos(self.clock.elapsed()) >= end {
                return Ok(false);
            }
            // What this queue waits for may need the CPU: a frontend, or a kernel thread that serves the disk.
            std::thread::yield_now();
        }
    }

    /// Whether a request on the ring could be taken now.
    fn may_take(&self) -> bool {
        !self.draining && !self.exclusive && self.parked.is_none()
    }

    /// The one call of a pass.
    fn enter(&mut self, wait: bool, timeout: Option<Duration>) -> Result<(), QueueError> {
        if self.engine.enter(wait, timeout).map_err(system("io_uring_enter"))? {
            self.parts.stats.submissions.add(1);
            self.parts.stats.sleeps.add(wait.into());
        }
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.parts.stats.in_flight.set(0);
        self.parts.stats.mapped_grants.set(0);
    }
}
