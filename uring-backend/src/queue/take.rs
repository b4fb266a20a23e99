// SPDX-License-Identifier: MIT OR Apache-2.0

//! From the ring to the first stage: requests are taken, judged, and admitted as soon as they may begin.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypervisor_client::CopyDirection;
use ring_proto::blkif::{
    Operation, Problem, RawRequest, Request, SECTOR_SIZE, Segments, Status, Tag,
};
use ring_proto::xen::{Errno, GrantRef};

use super::{Parked, Queue, QueueError};
use crate::image::DiscardBy;
use crate::journal::Entry;
use crate::pages::{BadIndirect, Place};
use crate::request::{Job, Kind, Placed};

/// Why a request is answered with an error.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not legal, or does not fit the disk.
    Problem(Problem),
    /// A page that it names is not granted.
    NotGranted(GrantRef, Errno),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => problem.fmt(f),
            Self::NotGranted(gref, errno) => {
                write!(f, "grant {gref}: {errno} ({})", errno.name())
            }
        }
    }
}

impl Queue {
    /// Takes requests as long as there are any and they can begin. Returns whether there was one.
    pub(super) fn take(&mut self) -> Result<bool, QueueError> {
        self.freed = false;
        let mut moved = false;
        while !self.exclusive {
            let job = match self.parked.take() {
                Some(Parked { job, until: Some(until) }) if until > self.now && !self.draining => {
                    self.parked = Some(Parked { job, until: Some(until) });
                    break;
                }
                Some(parked) => parked.job,
                None if self.draining && self.again.is_empty() => break,
                None => {
                    let Some((entry, request)) = self.next_request()? else { break };
                    moved = true;
                    let judged = match self.ring.check(&request) {
                        Ok(request) => {
                            self.judge(&request).map_err(|refusal| (request.tag(), refusal))
                        }
                        Err(bad) => Err((bad.tag, Refusal::Problem(bad.problem))),
                    };
                    match judged {
                        Ok(job) => Job { entry, ..job },
                        Err((tag, refusal)) => {
                            self.refuse(tag, entry, &refusal)?;
                            continue;
                        }
                    }
                }
            };
            self.admit(job)?;
            if self.parked.is_some() {
                break;
            }
        }
        Ok(moved)
    }

    /// The next request: first what an earlier backend took and did not answer, then what is on the ring.
    #[inline]
    fn next_request(&mut self) -> Result<Option<(Option<Entry>, RawRequest)>, QueueError> {
        if let Some((entry, request)) = self.again.pop() {
            return Ok(Some((Some(entry), request)));
        }
        let Some(request) = self.ring.pop_raw()? else { return Ok(None) };
        // An entry for each slot: there is one.
        let entry = self.journal.as_mut().and_then(|journal| journal.taken(&request));
        Ok(Some((entry, request)))
    }

    /// Checks a request against the disk. The segments of a read or write are in `self.segments` afterwards.
    fn judge(&mut self, request: &Request) -> Result<Job, Refusal> {
        let mut rules = self.parts.disk.rules;
        rules.capacity = self.parts.disk.capacity.load(Ordering::Relaxed);
        self.segments.clear();
        let (sector, sectors) = match request {
            Request::Rw(rw) => {
                match &rw.segments {
                    Segments::Direct(segments) => self.segments.extend_from_slice(segments),
                    Segments::Indirect(indirect) => {
                        self.pages.read_indirect(indirect, &mut self.segments).map_err(|bad| {
                            match bad {
                                BadIndirect::Illegal(problem) => Refusal::Problem(problem),
                                BadIndirect::NotGranted(gref, errno) => {
                                    Refusal::NotGranted(gref, errno)
                                }
                            }
                        })?;
                    }
                }
                let sectors = rules.check_rw(rw.op, rw.sector, &self.segments);
                (rw.sector, u64::from(sectors.map_err(Refusal::Problem)?))
            }
            Request::Flush { barrier, .. } => {
                rules.check_flush(*barrier).map_err(Refusal::Problem)?;
                (0, 0)
            }
            Request::Discard(discard) => {
                rules.check_discard(discard).map_err(Refusal::Problem)?;
                // One that leaves the data somewhere is worse than none.
                let by = self.parts.disk.image.discard().map(|discard| discard.by);
                if discard.secure && by != Some(DiscardBy::Ioctl { secure: true }) {
                    return Err(Refusal::Problem(Problem::NotOffered(Operation::Discard)));
                }
                (discard.sector, discard.count)
            }
        };
        Ok(Job {
            tag: request.tag(),
            kind: Kind::of(request),
            offset: sector * SECTOR_SIZE as u64,
            len: sectors * SECTOR_SIZE as u64,
            taken_at: self.now,
            paid: false,
            entry: None,
        })
    }

    /// Begins a request, or parks it if it cannot begin yet.
    fn admit(&mut self, mut job: Job) -> Result<(), QueueError> {
        let moves_data = !matches!(job.kind, Kind::Discard { .. });
        if !job.paid && !self.draining {
            let bytes = if moves_data { job.len } else { 0 };
            let taken = self.parts.disk.limits.take(self.now, bytes);
            job.paid = true;
            if let Err(until) = taken {
                self.parts.stats.throttled.add(1);
                self.parked = Some(Parked { job, until: Some(until) });
                return Ok(());
            }
        }
        let busy = self.in_flight() > 0;
        if busy && (job.kind.exclusive() || !self.pages.has_room(self.segments.len())) {
            self.parked = Some(Parked { job, until: None });
            return Ok(());
        }
        let Some(slot) = self.free.pop() else {
            // Not reached: there is a slot for each entry of the ring.
            self.parked = Some(Parked { job, until: None });
            return Ok(());
        };
        self.exclusive = job.kind.exclusive();
        self.place(slot, job);
        if job.kind.writes() && self.queue_copies(slot, CopyDirection::FromPeer) {
            self.starting.push(slot);
            return Ok(());
        }
        self.begin(slot)
    }

    /// Fills a slot with a request, and gathers its memory.
    fn place(&mut self, slot: u32, job: Job) {
        self.engine.clear(slot);
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        state.job = job;
        state.stage = job.kind.first();
        state.done = 0;
        state.status = Status::Okay;
        state.placed.clear();
        for &segment in &self.segments {
            let Some(place) = self.pages.reach(segment.gref()) else {
                // Not reached: there was room for all segments.
                state.status = Status::Error;
                break;
            };
            if !self.memory_known
                && let Some(backing) = self.pages.backing(place)
            {
                self.memory_known = true;
                if let Err(error) = self.engine.use_memory(Arc::clone(backing)) {
                    let (disk, queue) = (&self.parts.disk.name, self.parts.number);
                    log::warn!("{disk} queue {queue}: no fixed buffers: {error}");
                }
            }
            state.placed.push(Placed { segment, place });
            let page = self.pages.memory(place);
            if let Some(memory) =
                page.and_then(|page| page.part(segment.offset(), segment.byte_len()))
            {
                #[allow(unsafe_code)]
                // SAFETY: what is in `placed` is in use, and so mapped, until the request is answered; by then all
                // operations of the slot are done, and `clear` is called before the next one. The queue drops its engine
                // before its pages.
                unsafe {
                    self.engine.add(slot, memory);
                }
            }
        }
        self.segments.clear();
    }

    /// Queues the copies of a slot's private pages. Returns whether there are any.
    pub(super) fn queue_copies(&mut self, slot: u32, direction: CopyDirection) -> bool {
        let Some(state) = self.slots.get(slot as usize) else { return false };
        let mut queued = false;
        for Placed { segment, place } in &state.placed {
            if let Place::Private(page) = place {
                self.pages.queue_copy(slot, *segment, *page, direction);
                queued = true;
            }
        }
        queued
    }

    /// Does the copies of this pass, then what waited for them.
    pub(super) fn copy(&mut self) -> Result<(), QueueError> {
        let slots = &mut self.slots;
        let (disk, queue, refused) =
            (&self.parts.disk, self.parts.number, &self.parts.stats.refused);
        self.pages.copy(|owner, gref, errno| {
            if let Some(state) = slots.get_mut(owner as usize)
                && state.status == Status::Okay
            {
                state.status = Status::Error;
                refused.add(1);
                if disk.lines.frontend.take() {
                    let disk = &disk.name;
                    log::warn!("{disk} queue {queue}: refused a request: grant {gref}: {errno}");
                }
            }
        });
        while let Some(slot) = self.finishing.pop() {
            self.answer(slot)?;
        }
        while let Some(slot) = self.starting.pop() {
            self.begin(slot)?;
        }
        Ok(())
    }

    /// Answers a request that was not legal.
    fn refuse(
        &mut self,
        tag: Tag,
        entry: Option<Entry>,
        refusal: &Refusal,
    ) -> Result<(), QueueError> {
        let status = match refusal {
            Refusal::Problem(problem) => problem.status(),
            Refusal::NotGranted(..) => Status::Error,
        };
        let (disk, queue) = (&self.parts.disk, self.parts.number);
        self.parts.stats.refused.add(1);
        if disk.lines.frontend.take() {
            let disk = &disk.name;
            log::warn!("{disk} queue {queue}: refused request {:#x}: {refusal}", tag.id);
        }
        self.push(tag, entry, status)
    }
}
