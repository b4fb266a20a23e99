// SPDX-License-Identifier: GPL-2.0

//! One queue: one ring, one thread that takes requests from it.
//!
//! ```text
//! event ─▶ thread: take ─▶ judge ─▶ reach pages ─▶ map the rest of them ─▶ submit all under one plug
//! disk  ─▶ end of a bio: answer, in whatever context ─▶ finished ─▶ thread, when it looks next
//! ```
//!
//! A request costs one hand-off, from the event to the thread. Its end costs none: the answer goes into the ring where
//! the disk says that it is done, and the bio waits with its pages for the thread's next pass. Only when a page has to be
//! unmapped before the answer is the thread woken for it, and then does so for all that are there; and when a frontend is
//! to be told of the first of many answers, so that others can follow before it is.

mod job;
mod pages;
mod shared;
mod take;

pub(crate) use shared::Shared;

use core::sync::atomic::Ordering;

use block::bio::{Bio, BioBox};
use block::plug::plugged;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use ring_proto::blkif::{BadRequest, Request, Segment, Status, Tag, MAX_SEGMENTS};
use ring_proto::ring::RingError;
use xen::event::{EventChannel, Found};
use xen::thread::{now, yield_if_needed, Body, Parker};
use xen::DomId;

use self::job::{Job, Kind};
use self::pages::Pages;
use crate::allowance::Allowance;
use crate::disk::Disk;

/// Most segments of an indirect request.
pub(crate) const MAX_INDIRECT: u16 = 256;

/// Requests that are taken from the ring at once.
const BATCH: usize = 32;

/// Requests of more segments than a slot holds that may be under way at one time. Each takes 16 KiB.
const MOST_LARGE: usize = 64;

/// Answers that are written into the ring at once.
const ANSWERS: usize = 64;

/// How long a queue takes nothing after a request that is not legal, in nanoseconds.
const BACK_OFF: u64 = 1_000_000;

/// What a queue needs to run.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channel: EventChannel<Shared>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) peer: DomId,
    /// For the log: `vbd 5/51712 queue 0`.
    pub(crate) name: CString,
    /// Lines of the log about the frontend's faults.
    pub(crate) lines: Arc<Allowance>,
    /// Most grants that stay mapped, if the frontend reuses any.
    pub(crate) persistent: Option<usize>,
    /// To be called when the disk is found to have another size.
    pub(crate) resized: KBox<dyn Fn() + Send>,
    /// To be called when the queue has ended.
    pub(crate) ended: KBox<dyn Fn() + Send>,
}

/// What a queue's thread owns. Fields are dropped in order: the channel first, so that no event comes any more.
pub(crate) struct Queue {
    parts: Parts,
    pages: Pages,
    /// Requests taken from the ring and not begun, the next one last.
    backlog: KVec<core::result::Result<Request, BadRequest>>,
    /// The segments of the request that is being looked at.
    segments: KVec<Segment>,
    /// Bios that are free.
    small: KVec<BioBox<Job>>,
    large: KVec<BioBox<Job>>,
    /// How many bios there are of both kinds.
    made_small: usize,
    made_large: usize,
    most_small: usize,
    /// Requests that begin when their pages are mapped.
    staged: KVec<BioBox<Job>>,
    /// Discards whose next piece begins with them.
    again: KVec<BioBox<Job>>,
    answers: KVec<(Tag, Status)>,
    /// Requests that the disk has.
    in_flight: usize,
    /// A request is under way that has to be alone.
    exclusive: bool,
    /// The next request waits for this moment.
    until: Option<u64>,
    /// For how many bytes the next request has paid the disk's limits.
    paid: Option<u64>,
    /// The next request waits for the end of others.
    blocked: bool,
    /// A request was refused: slow down.
    refused: bool,
    /// There was something in the ring since the last EOI.
    found: Found,
    capacity: u64,
    broken: Option<RingError>,
}

impl Queue {
    /// A queue, not running yet.
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let size = parts.shared.ring.lock().as_ref().map_or(0, |ring| ring.size()) as usize;
        let most_small = size.max(1);
        let mut queue = Self {
            pages: Pages::new(parts.peer, parts.persistent)?,
            backlog: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            segments: KVec::with_capacity(usize::from(MAX_INDIRECT), GFP_KERNEL)?,
            small: KVec::with_capacity(most_small, GFP_KERNEL)?,
            large: KVec::with_capacity(MOST_LARGE, GFP_KERNEL)?,
            made_small: 0,
            made_large: 0,
            most_small,
            staged: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            again: KVec::with_capacity(most_small, GFP_KERNEL)?,
            answers: KVec::with_capacity(ANSWERS, GFP_KERNEL)?,
            in_flight: 0,
            exclusive: false,
            until: None,
            paid: None,
            blocked: false,
            refused: false,
            found: Found::Nothing,
            capacity: parts.disk.device.sectors(),
            broken: None,
            parts,
        };
        // The first of each, without which nothing could be done; others when they are needed.
        for large in [false, true] {
            let bio = queue.make(large, GFP_KERNEL)?;
            queue.put_back(bio);
        }
        Ok(queue)
    }

    /// Makes another bio.
    fn make(&mut self, large: bool, flags: Flags) -> Result<BioBox<Job>> {
        let pages = if large { usize::from(MAX_INDIRECT) } else { MAX_SEGMENTS };
        let job = Job::new(self.parts.shared.clone(), large);
        let bio = Bio::new(self.parts.disk.device.clone(), pages, job, flags)?;
        let made = if large { &mut self.made_large } else { &mut self.made_small };
        *made = made.wrapping_add(1);
        Ok(bio)
    }

    /// A bio that is free, with room for so many segments.
    fn free_bio(&mut self, segments: usize) -> Option<BioBox<Job>> {
        let large = segments > MAX_SEGMENTS;
        let (free, made, most) = if large {
            (&mut self.large, self.made_large, MOST_LARGE)
        } else {
            (&mut self.small, self.made_small, self.most_small)
        };
        if let Some(bio) = free.pop() {
            return Some(bio);
        }
        if made < most {
            return self.make(large, GFP_NOWAIT | __GFP_NOWARN).ok();
        }
        None
    }

    fn put_back(&mut self, bio: BioBox<Job>) {
        let free = if bio.data.large { &mut self.large } else { &mut self.small };
        // There is room for all that are made.
        let _ = free.push_within_capacity(bio);
    }

    /// Serves the ring until told to end, or until the frontend breaks it.
    fn serve(&mut self) {
        loop {
            self.parts.shared.parker.clear();
            // Looked at after that: what is owed later wakes the thread again.
            self.parts.shared.ring_owed();
            self.pages.look_at_clock();
            let stopping = self.parts.shared.stopping() || self.broken.is_some();
            self.collect();
            let full = self.take(stopping);
            self.begin();
            self.flush();
            if stopping && self.in_flight == 0 && self.backlog.is_empty() {
                return;
            }
            self.housekeeping();
            if !full && self.sleeps(stopping) {
                self.parts.shared.sleep(self.until);
            } else {
                yield_if_needed();
            }
            self.parts.shared.waits.store(false, Ordering::Relaxed);
        }
    }

    /// Whether there is nothing to do before somebody wakes the thread.
    fn sleeps(&mut self, stopping: bool) -> bool {
        let shared = &self.parts.shared;
        if !self.again.is_empty() {
            return false;
        }
        let idle = self.backlog.is_empty() && !self.exclusive && !stopping && self.until.is_none();
        if idle {
            let checked = match &mut *shared.ring.lock() {
                Some(ring) => ring.final_check(),
                None => Ok(false),
            };
            match checked {
                Ok(false) => {}
                Ok(true) => return false,
                Err(error) => {
                    self.broken = Some(error);
                    return false;
                }
            }
            if let Some(eoi) = shared.line.take_deferred() {
                eoi.give(core::mem::replace(&mut self.found, Found::Nothing));
            }
            return true;
        }
        // Events can wait: the ring was not emptied. Time, or the end of a bio, is what there is to wait for.
        if let Some(until) = self.until.filter(|_| !stopping) {
            return until > now();
        }
        if self.in_flight == 0 {
            // Nobody else would end this wait.
            self.blocked = false;
            return false;
        }
        shared.waits.store(true, Ordering::SeqCst);
        // Looked at after that: who finishes a bio now sees that this thread waits, or has put it where it is seen here.
        core::sync::atomic::fence(Ordering::SeqCst);
        shared.finished.is_empty()
    }

    /// Takes back what the disk has finished.
    fn collect(&mut self) {
        if self.parts.shared.finished.is_empty() {
            return;
        }
        for mut bio in self.parts.shared.finished.take() {
            self.in_flight = self.in_flight.wrapping_sub(1);
            let more = bio.data.rest > 0 && bio.data.status == Status::Okay;
            if more && self.parts.shared.left() {
                bio.as_mut().data_mut().status = Status::Error;
                self.retire(bio);
            } else if more {
                // There is room for all that are made.
                let _ = self.again.push_within_capacity(bio);
            } else {
                self.retire(bio);
            }
        }
    }

    /// Ends a request.
    fn retire(&mut self, mut bio: BioBox<Job>) {
        while let Some(page) = bio.as_mut().take_page() {
            self.pages.let_go(page);
        }
        let job = bio.as_mut().data_mut();
        if job.kind.exclusive() {
            self.exclusive = false;
        }
        let (tag, status, answered) = (job.tag, job.status, job.answered);
        self.put_back(bio);
        self.blocked = false;
        if !answered {
            self.answer(tag, status);
        }
    }

    /// Answers a request, together with others.
    fn answer(&mut self, tag: Tag, status: Status) {
        if self.answers.len() >= ANSWERS {
            self.flush();
        }
        // There is room.
        let _ = self.answers.push_within_capacity((tag, status));
    }

    /// Unmaps what is in use no more, then shows the frontend the answers, and rings if it asked for that.
    fn flush(&mut self) {
        if self.pages.owes_unmap() {
            // Which may take long.
            self.parts.shared.ring_owed();
            self.pages.unmap_now();
            self.parts.shared.statistics.mapped.set(self.pages.once() as u64);
        }
        let shared = &self.parts.shared;
        if !self.answers.is_empty() {
            shared.show(&mut self.answers);
        }
        shared.ring_owed();
    }

    /// Maps what has to be, and submits all requests of this pass.
    fn begin(&mut self) {
        if self.staged.is_empty() && self.again.is_empty() {
            return;
        }
        if self.pages.is_batched() {
            self.map();
            let statistics = &self.parts.shared.statistics;
            statistics.mapped.set(self.pages.once() as u64);
            statistics.persistent.set(self.pages.persistent() as u64);
        }
        let mut staged = core::mem::take(&mut self.staged);
        plugged(|| {
            for bio in staged.drain_all() {
                if bio.data.status == Status::Okay {
                    self.in_flight = self.in_flight.wrapping_add(1);
                    submit(bio, &self.parts.disk);
                } else {
                    self.retire(bio);
                }
            }
            for bio in self.again.drain_all() {
                self.in_flight = self.in_flight.wrapping_add(1);
                submit(bio, &self.parts.disk);
            }
        });
        self.staged = staged;
        // What has ended meanwhile does not wait for what comes next: unmapping, or memory for more requests, may take long.
        self.parts.shared.ring_owed();
    }

    /// Adds a request to those that begin at the end of this pass. The room for it was there when it was admitted.
    fn stage(&mut self, bio: BioBox<Job>) {
        let _ = self.staged.push_within_capacity(bio);
    }

    /// Maps the pages that staged requests miss.
    fn map(&mut self) {
        let Self { pages, staged, parts, refused, .. } = self;
        let mut failed = None;
        pages.map_batch(|batch| {
            for bio in staged.iter_mut() {
                let missing = bio.missing();
                if missing == 0 {
                    continue;
                }
                for _ in 0..missing {
                    match batch.next(true) {
                        Some(Ok(page)) => {
                            // Those without an entry are unmapped before the answer.
                            let once = page.1 == job::ONCE;
                            bio.as_mut().data_mut().by_thread |= once;
                            let _ = bio.as_mut().fill(page);
                        }
                        Some(Err(why)) => {
                            bio.as_mut().data_mut().status = Status::Error;
                            failed = Some(why);
                        }
                        None => bio.as_mut().data_mut().status = Status::Error,
                    }
                }
            }
        });
        if let Some(why) = failed {
            *refused = true;
            parts.shared.statistics.refused.add(1);
            if parts.lines.take() {
                let name = &*parts.name;
                pr_warn!("{name}: refused a request: a page of it: {}\n", format_args!("{why}"));
            }
        }
    }

    /// What is not for a request, when it was asked for.
    fn housekeeping(&mut self) {
        let shared = &self.parts.shared;
        if shared.tidy.load(Ordering::Relaxed) && shared.tidy.swap(false, Ordering::Relaxed) {
            self.pages.expire();
            shared.statistics.persistent.set(self.pages.persistent() as u64);
        }
        self.pages.shrink(shared.take_squeeze(self.pages.now()));
        shared.statistics.free.set(self.pages.free() as u64);
    }
}

/// Gives a request, or the next piece of a discard, to the disk.
fn submit(mut bio: BioBox<Job>, disk: &Disk) {
    let job = bio.as_mut().data_mut();
    let (operation, hints) = job.kind.operation();
    let sector = job.sector;
    let Kind::Discard { secure } = job.kind else {
        return Bio::submit(bio, operation, hints, sector);
    };
    let (unit, most) = if secure { disk.secure } else { disk.discard };
    // All pieces but the first begin at a multiple of the unit.
    let ahead = sector.checked_rem(unit.into()).unwrap_or(0);
    let piece = job.rest.min(u64::from(most).saturating_sub(ahead));
    job.sector = sector.wrapping_add(piece);
    job.rest = job.rest.wrapping_sub(piece);
    job.by_thread = job.rest > 0;
    Bio::submit_discard(bio, operation, sector, piece as u32);
}

impl Body for Queue {
    fn parker(&self) -> &Arc<Parker> {
        &self.parts.shared.parker
    }

    fn run(mut self) {
        self.serve();
        let shared = self.parts.shared.clone();
        if let Some(error) = self.broken {
            if self.parts.lines.take() {
                let name = &*self.parts.name;
                pr_warn!("{name}: the frontend broke the ring: {}\n", format_args!("{error}"));
            }
            // No event of this frontend is let in any more.
            if let Some(eoi) = shared.line.take_deferred() {
                eoi.withhold();
            }
            shared.broken.store(true, Ordering::Relaxed);
        }
        self.pages.release();
        let Parts { channel, ended, .. } = self.parts;
        drop(channel);
        // Here and not with the last reference, which may be one of an interrupt: unmapping sleeps.
        let ring = shared.ring.lock().take();
        drop(ring);
        shared.ended.store(true, Ordering::Release);
        ended();
    }
}
