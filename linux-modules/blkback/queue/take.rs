// SPDX-License-Identifier: GPL-2.0

//! From the ring to the disk's door: requests are taken, judged, and staged as soon as they may begin.

use core::fmt;

use block::bio::BioBox;
use kernel::prelude::*;
use ring_proto::blkif::{
    BadRequest, Disk as Rules, Operation, Problem, Request, Rw, Segment, Segments, Status, Tag,
    SECTOR_SIZE,
};
use ring_proto::xen::grant_table::GrantError;
use ring_proto::xen::GrantRef;
use xen::event::Found;
use xen::thread::now;

use super::job::{Job, Kind};
use super::pages::{Reach, Unreachable};
use super::{Queue, BACK_OFF, BATCH};
use crate::disk::whole_blocks;

/// Why a request is answered with an error.
enum Refusal {
    Problem(Problem),
    NotGranted(GrantRef, GrantError),
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => problem.fmt(f),
            Self::NotGranted(gref, why) => write!(f, "grant {gref}: {why}"),
            Self::NoMemory => f.write_str("no memory for its pages"),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Unreachable> for Refusal {
    fn from(why: Unreachable) -> Self {
        match why {
            Unreachable::NotGranted(gref, why) => Self::NotGranted(gref, why),
            Unreachable::Illegal(problem) => Self::Problem(problem),
            Unreachable::NoMemory => Self::NoMemory,
        }
    }
}

/// What becomes of a request that was looked at.
enum Verdict {
    /// It is staged, or answered.
    Taken,
    /// It has to wait.
    Waits,
    Refused(Refusal),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request that was judged.
struct Judged {
    kind: Kind,
    sector: u64,
    sectors: u64,
}

impl Queue {
    /// Takes requests and stages those that can begin. Returns whether there may be more than it took.
    pub(super) fn take(&mut self, stopping: bool) -> bool {
        if self.parts.shared.take_relook() {
            // What was paid was the price of before.
            self.until = None;
            self.paid = None;
        }
        if let Some(until) = self.until {
            if until > now() && !stopping {
                return false;
            }
            self.until = None;
        }
        if self.exclusive || self.blocked {
            return false;
        }
        let mut full = false;
        if self.backlog.is_empty() {
            if stopping {
                return false;
            }
            full = self.refill();
        }
        while let Some(next) = self.backlog.pop() {
            let verdict = match &next {
                _ if self.exclusive => Verdict::Waits,
                Ok(request) => self.admit(request, stopping).unwrap_or_else(Verdict::from),
                Err(bad) => Verdict::Refused(bad.problem.into()),
            };
            match verdict {
                Verdict::Taken => self.paid = None,
                Verdict::Waits => {
                    // It was there before.
                    let _ = self.backlog.push_within_capacity(next);
                    return false;
                }
                Verdict::Refused(refusal) => {
                    self.paid = None;
                    let tag = match &next {
                        Ok(request) => request.tag(),
                        Err(BadRequest { tag, .. }) => *tag,
                    };
                    self.refuse(tag, &refusal);
                }
            }
        }
        if core::mem::take(&mut self.refused) && !stopping {
            // What is not legal costs whoever sends it more than who reads it.
            self.until = Some(now().saturating_add(BACK_OFF));
        }
        full
    }

    /// Takes a batch of requests off the ring. Returns whether there may be more.
    fn refill(&mut self) -> bool {
        let shared = &self.parts.shared;
        {
            let mut ring = shared.ring.lock();
            let Some(ring) = &mut *ring else { return false };
            while self.backlog.len() < BATCH {
                match ring.pop() {
                    Ok(Some(request)) => {
                        // There is room.
                        let _ = self.backlog.push_within_capacity(request);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.broken = Some(error);
                        break;
                    }
                }
            }
        }
        if self.backlog.is_empty() {
            return false;
        }
        self.found = Found::Work;
        let full = self.backlog.len() == BATCH;
        self.backlog.reverse();
        let capacity = self.parts.disk.device.sectors();
        if capacity != self.capacity {
            self.capacity = capacity;
            (self.parts.resized)();
        }
        full
    }

    /// What requests are judged by at this moment.
    fn rules(&self) -> Rules {
        let rules = self.parts.disk.rules;
        Rules { capacity: whole_blocks(self.capacity, rules.logical), ..rules }
    }

    /// Stages a request, if it is legal and may begin.
    fn admit(
        &mut self,
        request: &Request,
        stopping: bool,
    ) -> core::result::Result<Verdict, Refusal> {
        let judged = match request {
            Request::Rw(rw) => match &rw.segments {
                Segments::Direct(segments) => {
                    return self.admit_rw(request, rw, segments, stopping);
                }
                Segments::Indirect(indirect) => {
                    let mut segments = core::mem::take(&mut self.segments);
                    segments.clear();
                    let read = self.pages.read_indirect(indirect, &mut segments);
                    let verdict = read
                        .map_err(Refusal::from)
                        .and_then(|()| self.admit_rw(request, rw, &segments, stopping));
                    self.segments = segments;
                    return verdict;
                }
            },
            Request::Flush { barrier, .. } => {
                self.rules().check_flush(*barrier)?;
                Judged { kind: Kind::of(request), sector: 0, sectors: 0 }
            }
            Request::Discard(discard) => {
                self.rules().check_discard(discard)?;
                // One that leaves the data somewhere is worse than none.
                if discard.secure && !self.parts.disk.has_secure {
                    return Err(Problem::NotOffered(Operation::Discard).into());
                }
                let kind = Kind::of(request);
                Judged { kind, sector: discard.sector, sectors: discard.count }
            }
        };
        let Some(mut bio) = self.room(&judged, 0, stopping)? else { return Ok(Verdict::Waits) };
        let statistics = &self.parts.shared.statistics;
        let discards = matches!(judged.kind, Kind::Discard { .. });
        if discards { &statistics.ds_req } else { &statistics.f_req }.add(1);
        let job = bio.as_mut().data_mut();
        job.begin(request.tag(), judged.kind, judged.sector);
        job.rest = if discards { judged.sectors } else { 0 };
        if discards && judged.sectors == 0 {
            // The block layer does not take a discard of nothing.
            self.retire(bio);
        } else {
            self.exclusive = judged.kind.exclusive();
            self.stage(bio);
        }
        Ok(Verdict::Taken)
    }

    /// The same of a read or write of these segments.
    fn admit_rw(
        &mut self,
        request: &Request,
        rw: &Rw,
        segments: &[Segment],
        stopping: bool,
    ) -> core::result::Result<Verdict, Refusal> {
        let sectors = self.rules().check_rw(rw.op, rw.sector, segments)?;
        let judged = Judged { kind: Kind::of(request), sector: rw.sector, sectors: sectors.into() };
        let Some(mut bio) = self.room(&judged, segments.len(), stopping)? else {
            return Ok(Verdict::Waits);
        };
        bio.as_mut().data_mut().begin(request.tag(), judged.kind, judged.sector);
        if let Err(why) = self.add_pages(&mut bio, segments, judged.kind == Kind::Read) {
            // Those in the batch have their turn with the others, and are given back then.
            bio.as_mut().data_mut().status = Status::Error;
            self.stage(bio);
            self.note_refusal(request.tag(), &why.into());
            return Ok(Verdict::Taken);
        }
        let statistics = &self.parts.shared.statistics;
        let (requests, sectors) = match judged.kind {
            Kind::Read => (&statistics.rd_req, &statistics.rd_sect),
            Kind::Write => (&statistics.wr_req, &statistics.wr_sect),
            _ => (&statistics.f_req, &statistics.wr_sect),
        };
        requests.add(1);
        sectors.add(judged.sectors);
        self.exclusive = judged.kind.exclusive();
        self.stage(bio);
        Ok(Verdict::Taken)
    }

    /// A bio for a request, if nothing is in its way.
    fn room(
        &mut self,
        judged: &Judged,
        segments: usize,
        stopping: bool,
    ) -> core::result::Result<Option<BioBox<Job>>, Refusal> {
        let limits = &self.parts.disk.limits;
        if limits.any() {
            let moves = !matches!(judged.kind, Kind::Discard { .. });
            let bytes = if moves { judged.sectors.saturating_mul(SECTOR_SIZE as u64) } else { 0 };
            // Its segments may have grown while it waited: those of an indirect request are read again.
            if self.paid.is_none_or(|paid| paid < bytes) {
                let paid = self.paid.replace(bytes).unwrap_or(0);
                let taken = limits.take(now(), bytes.saturating_sub(paid));
                // Who leaves does not wait, but pays: its next connection has the debt.
                if let (Err(until), false) = (taken, stopping) {
                    self.parts.shared.statistics.throttled.add(1);
                    self.until = Some(until);
                    return Ok(None);
                }
            }
        }
        if self.staged.len() >= BATCH || !self.pages.batch_has_room(segments) {
            self.begin();
        }
        let busy = self.in_flight > 0 || !self.staged.is_empty() || !self.again.is_empty();
        let may_begin = self.pages.may_use(segments) && !(busy && judged.kind.exclusive());
        if busy && !may_begin {
            self.blocked = true;
            return Ok(None);
        }
        match self.free_bio(segments) {
            Some(bio) => Ok(Some(bio)),
            None if busy => {
                self.parts.shared.statistics.oo_req.add(1);
                self.blocked = true;
                Ok(None)
            }
            None => Err(Refusal::NoMemory),
        }
    }

    /// Adds the pages of a request to its bio, as far as they are mapped, and the others to the batch.
    fn add_pages(
        &mut self,
        bio: &mut BioBox<Job>,
        segments: &[Segment],
        writable: bool,
    ) -> core::result::Result<(), Unreachable> {
        let mut left = segments.len();
        for segment in segments {
            let (gref, more) = (segment.gref(), left);
            left = left.wrapping_sub(1);
            // A page may have been used by a request that has its answer, but is not collected yet.
            let or_wait = !self.parts.shared.finished.is_empty();
            let mut reach = self.pages.reach(gref, writable, more, or_wait)?;
            if matches!(reach, Reach::InUse) {
                self.collect();
                reach = self.pages.reach(gref, writable, more, false)?;
            }
            let page = match reach {
                Reach::Mapped(page, number) => Some((page, number)),
                Reach::Batched | Reach::InUse => None,
            };
            if let Err(page) = bio.as_mut().add(page, segment.offset(), segment.byte_len()) {
                // Not reached: there was room, and segments lie within their pages.
                if let Some(page) = page {
                    self.pages.let_go(page);
                }
                return Err(Unreachable::NoMemory);
            }
        }
        Ok(())
    }

    /// Answers a request that was not legal.
    fn refuse(&mut self, tag: Tag, refusal: &Refusal) {
        let status = match refusal {
            Refusal::Problem(problem) => problem.status(),
            Refusal::NotGranted(..) | Refusal::NoMemory => Status::Error,
        };
        self.note_refusal(tag, refusal);
        self.answer(tag, status);
    }

    /// Counts and logs a refusal, but not each.
    fn note_refusal(&mut self, tag: Tag, refusal: &Refusal) {
        self.refused = true;
        self.parts.shared.statistics.refused.add(1);
        if self.parts.lines.take() {
            let name = &*self.parts.name;
            pr_warn!("{name}: refused request {:#x}: {}\n", tag.id, format_args!("{refusal}"));
        }
    }
}
