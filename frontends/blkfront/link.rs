// SPDX-License-Identifier: GPL-2.0

//! One queue's part of one connection: the ring, and the requests in it.

use block::mq::{Request, Status};
use kernel::prelude::*;
use kernel::sync::Arc;
use ring_proto::blkif::{
    self, Discard, FrontRing, Indirect, Operation, RawSegment, Response, Rw, RwOp, Segment,
    SegmentArray, Segments, MAX_SEGMENTS, SECTOR_SIZE, SEGMENTS_PER_INDIRECT_PAGE,
};
use ring_proto::ring::{RingError, View};
use ring_proto::shared::{AsRegion, SharedMemory, PAGE_SIZE};
use xen::event::Line;
use xen::grant::{Access, GrantedPage, GrantedRing, Lent, Terms};
use xen::{DomId, GrantRef, Port};

use crate::breach::Breach;
use crate::disk::Queues;
use crate::pages::Pages;
use crate::statistics::Statistics;
use crate::task::{Ask, Task};

/// Bits of an id that say which slot it is; those above count, so that no id occurs twice.
const INDEX_BITS: u32 = 16;

/// How completed writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// By a flush (`feature-flush-cache`).
    Cache,
    /// By a barrier (`feature-barrier`).
    Barrier,
}

/// What was agreed with the backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    /// The backend's domain.
    pub(crate) peer: DomId,
    /// Number of the device in requests.
    pub(crate) handle: u16,
    /// Segments that a request can have.
    pub(crate) segments: u16,
    /// Data goes through pages of the driver's own.
    pub(crate) copy: bool,
    /// What a page holds beside the data of a write is zeroed.
    pub(crate) wipe: bool,
    pub(crate) flush: Option<Flush>,
    pub(crate) discard: bool,
    pub(crate) secure_discard: bool,
}

/// Whose pages the backend sees.
enum Held {
    Nothing,
    /// The driver's.
    Own(Request<Queues>),
    /// The request's, as long as it is here.
    Lent(Lent<Request<Queues>>),
}

/// A place for a request to the backend.
pub(crate) struct Slot {
    index: u16,
    id: u64,
    asked: Operation,
    held: Held,
    task: Option<Task>,
    /// What became of it, once it was answered.
    status: blkif::Status,
    /// Pages that its data is copied through.
    pages: KVec<GrantedPage>,
    /// Pages that its segments lie in.
    indirect: KVec<GrantedPage>,
    /// Room for the grants of the request's own pages.
    refs: KVec<GrantRef>,
}

impl Slot {
    fn new(index: u16, agreement: &Agreement) -> Result<KBox<Self>> {
        let segments = usize::from(agreement.segments);
        let (pages, refs) = if agreement.copy { (segments, 0) } else { (0, segments) };
        let indirect = if segments > MAX_SEGMENTS { indirect_pages(segments) } else { 0 };
        let slot = Self {
            index,
            id: 0,
            asked: Operation::Read,
            held: Held::Nothing,
            task: None,
            status: blkif::Status::Error,
            pages: KVec::with_capacity(pages, GFP_KERNEL)?,
            indirect: KVec::with_capacity(indirect, GFP_KERNEL)?,
            refs: KVec::with_capacity(refs, GFP_KERNEL)?,
        };
        Ok(KBox::new(slot, GFP_KERNEL)?)
    }

    /// Brings what was read to where it is wanted, and takes note of the answer. Returns the request when it is done.
    /// Without any lock: nobody else has the slot.
    pub(crate) fn finish(&mut self) -> Option<(Request<Queues>, Status)> {
        let task = self.task.as_mut()?;
        if let (Held::Own(request), Ask::Read, blkif::Status::Okay) =
            (&self.held, task.ask, self.status)
        {
            let mut cursor = request.cursor();
            cursor.skip(task.done as usize);
            let mut left = task.part as usize;
            for page in &self.pages {
                let Some(part) = page.as_region().part(0, left.min(PAGE_SIZE)) else { break };
                left = left.saturating_sub(cursor.copy_from(part));
            }
        }
        let status = task.answered(self.asked, self.status)?;
        self.task = None;
        match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Own(request) => Some((request, status)),
            // Never here: what was lent is taken back when the answer comes.
            held => {
                self.held = held;
                None
            }
        }
    }

    /// Whether the backend said that it has not what it offered.
    pub(crate) fn revoked(&self) -> Option<Operation> {
        (self.status == blkif::Status::NotSupported).then_some(self.asked)
    }

    /// The request, if the backend has let go of it.
    fn release(mut self: KBox<Self>) -> Result<Option<(Request<Queues>, Task)>, KBox<Self>> {
        let request = match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => return Ok(None),
            Held::Own(request) => request,
            Held::Lent(lent) => match lent.reclaim() {
                Ok(request) => request,
                Err(lent) => {
                    self.held = Held::Lent(lent);
                    return Err(self);
                }
            },
        };
        Ok(self.task.take().map(|task| (request, task)))
    }
}

/// Pages that so many segments lie in.
fn indirect_pages(segments: usize) -> usize {
    segments.div_ceil(SEGMENTS_PER_INDIRECT_PAGE)
}

/// What became of an attempt to ask the backend.
pub(crate) enum Pushed {
    /// It is in the ring.
    Asked,
    /// There is nothing to ask for.
    Done(Request<Queues>, Status),
    /// Not now: slots, pages or grants are short.
    Busy(Request<Queues>, Task),
}

/// See the module.
pub(crate) struct Link {
    ring: FrontRing<GrantedRing>,
    line: Arc<Line>,
    pub(crate) agreement: Agreement,
    pub(crate) pages: Pages,
    /// Slots that are free, and those that the backend was asked with, by their index.
    free: KVec<KBox<Slot>>,
    aloft: KVec<Option<KBox<Slot>>>,
    /// Requests pushed, and of those, shown to the backend.
    count: u64,
    published: u64,
    pub(crate) statistics: Statistics,
}

impl Link {
    /// How far its ring is, and the port of its event channel.
    pub(crate) fn view(&self) -> (View, Option<Port>) {
        (self.ring.view(), self.line.port())
    }

    /// Everything that the data path needs is allocated here.
    ///
    /// # Errors
    ///
    /// When memory or grants are short.
    pub(crate) fn new(
        ring: FrontRing<GrantedRing>,
        line: Arc<Line>,
        agreement: Agreement,
    ) -> Result<Self> {
        let slots = ring.size() as usize;
        let segments = usize::from(agreement.segments);
        let lists = if segments > MAX_SEGMENTS { indirect_pages(segments) } else { 0 };
        let data = if agreement.copy { segments } else { 0 };
        let refs = if agreement.copy { 0 } else { segments as u32 };
        let pages = Pages::new(agreement.peer, data + lists, slots * (data + lists), refs)?;
        let mut free = KVec::with_capacity(slots, GFP_KERNEL)?;
        let mut aloft = KVec::with_capacity(slots, GFP_KERNEL)?;
        for index in (0..slots).rev() {
            free.push(Slot::new(index as u16, &agreement)?, GFP_KERNEL)?;
            aloft.push(None, GFP_KERNEL)?;
        }
        let statistics = Statistics::default();
        Ok(Self { ring, line, agreement, pages, free, aloft, count: 0, published: 0, statistics })
    }

    /// Number of slots.
    pub(crate) fn size(&self) -> usize {
        self.aloft.len()
    }

    /// Whether it has no request.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.aloft.len()
    }

    /// Asks the backend for the next part of a task. The backend sees it after [`publish`](Self::publish).
    #[inline]
    pub(crate) fn push(&mut self, request: Request<Queues>, task: Task) -> Pushed {
        let Agreement { flush, discard, secure_discard, .. } = self.agreement;
        match task.ask {
            Ask::Flush if flush.is_none() => return Pushed::Done(request, Status::OK),
            Ask::Discard { secure } if !discard || (secure && !secure_discard) => {
                return Pushed::Done(request, Status::NOT_SUPPORTED)
            }
            _ => {}
        }
        if self.ring.free() == 0 {
            return Pushed::Busy(request, task);
        }
        let Some(mut slot) = self.free.pop() else { return Pushed::Busy(request, task) };
        slot.id = ((self.count + 1) << INDEX_BITS) | u64::from(slot.index);
        match task.ask {
            Ask::Read | Ask::Write { .. } if self.agreement.copy => {
                self.push_copied(slot, request, task)
            }
            Ask::Read | Ask::Write { .. } => self.push_lent(slot, request, task),
            Ask::Flush => {
                let barrier = flush == Some(Flush::Barrier);
                let message = blkif::Request::Flush { id: slot.id, barrier };
                self.send(slot, Held::Own(request), task, &message)
            }
            Ask::Discard { secure } => {
                let message = blkif::Request::Discard(Discard {
                    id: slot.id,
                    handle: self.agreement.handle,
                    sector: task.at(),
                    count: u64::from(task.left()) / SECTOR_SIZE as u64,
                    secure,
                });
                self.send(slot, Held::Own(request), task, &message)
            }
        }
    }

    /// How a read or write is asked for, and how many segments it can have then.
    fn manner(&self, task: &Task, segments: usize) -> (RwOp, usize) {
        let limit = usize::from(self.agreement.segments);
        match task.ask {
            Ask::Write { durable: true }
                if self.agreement.flush == Some(Flush::Barrier)
                    && task.done == 0
                    && segments <= MAX_SEGMENTS =>
            {
                (RwOp::WriteBarrier, MAX_SEGMENTS)
            }
            Ask::Write { .. } => (RwOp::Write, limit),
            _ => (RwOp::Read, limit),
        }
    }

    /// A read or write through the driver's own pages, which are filled from their beginning whatever the request's
    /// memory looks like.
    fn push_copied(
        &mut self,
        mut slot: KBox<Slot>,
        request: Request<Queues>,
        mut task: Task,
    ) -> Pushed {
        let (op, limit) = self.manner(&task, task.pages_left());
        let count = task.pages_left().min(limit);
        let mut place = Place::new(count);
        if !self.take_pages(&mut slot, count, place.lists(count)) {
            self.give_back(slot);
            return Pushed::Busy(request, task);
        }
        let write = op != RwOp::Read;
        let mut cursor = request.cursor();
        if write {
            cursor.skip(task.done as usize);
        }
        task.part = 0;
        for (index, page) in slot.pages.iter().enumerate() {
            let bytes = (task.left().saturating_sub(task.part) as usize).min(PAGE_SIZE);
            if write {
                let page = page.as_region();
                if let Some(part) = page.part(0, bytes) {
                    cursor.copy_to(part);
                }
                if self.agreement.wipe {
                    for rest in (bytes..PAGE_SIZE).step_by(SECTOR_SIZE) {
                        page.copy_in(rest, &[0; SECTOR_SIZE]);
                    }
                }
            }
            place.put(&slot.indirect, index, page.gref(), 0, bytes as u32);
            task.part += bytes as u32;
        }
        self.send_rw(slot, Held::Own(request), task, op, place, count)
    }

    /// A read or write right in the request's memory.
    fn push_lent(
        &mut self,
        mut slot: KBox<Slot>,
        request: Request<Queues>,
        mut task: Task,
    ) -> Pushed {
        let segments = usize::from(request.segments()).max(1);
        let (op, limit) = self.manner(&task, segments);
        let most = segments.min(limit);
        let mut place = Place::new(most);
        if !self.take_pages(&mut slot, 0, place.lists(most))
            || self.pages.reserve(most as u32).is_err()
        {
            self.give_back(slot);
            return Pushed::Busy(request, task);
        }
        let terms = Terms {
            to: self.agreement.peer,
            access: if op == RwOp::Read { Access::ReadWrite } else { Access::ReadOnly },
            skip: task.done,
            pages: most,
        };
        let refs = core::mem::take(&mut slot.refs);
        let (mut index, mut part, mut whole) = (0, 0, true);
        let lent = self.pages.grants.lend(&terms, request, refs, |gref, offset, len| {
            whole &= (offset | len) % SECTOR_SIZE as u32 == 0;
            place.put(&slot.indirect, index, gref, offset, len);
            index += 1;
            part += len;
        });
        match lent {
            Ok(lent) if whole && index > 0 => {
                task.part = part;
                self.send_rw(slot, Held::Lent(lent), task, op, place, index)
            }
            // The block layer was told that sectors are not cut, so this does not happen.
            Ok(lent) => match self.pages.grants.take_back(lent) {
                Ok((request, refs)) => {
                    slot.refs = refs;
                    self.give_back(slot);
                    Pushed::Done(request, Status::IO_ERROR)
                }
                Err(lent) => self.send_rw(slot, Held::Lent(lent), task, op, place, index),
            },
            Err((request, refs)) => {
                slot.refs = refs;
                self.give_back(slot);
                Pushed::Busy(request, task)
            }
        }
    }

    /// Takes pages for data and for segments. What was taken stays with the slot also when it was not enough.
    fn take_pages(&mut self, slot: &mut Slot, data: usize, lists: usize) -> bool {
        for (pages, count) in [(&mut slot.pages, data), (&mut slot.indirect, lists)] {
            while pages.len() < count {
                let Some(page) = self.pages.take() else { return false };
                if let Err(error) = pages.push_within_capacity(page) {
                    self.pages.put(error.0);
                    return false;
                }
            }
        }
        true
    }

    fn send_rw(
        &mut self,
        slot: KBox<Slot>,
        held: Held,
        task: Task,
        op: RwOp,
        place: Place,
        count: usize,
    ) -> Pushed {
        let Some(segments) = place.segments(&slot.indirect, count) else {
            return self.undo(slot, held, task);
        };
        let message = blkif::Request::Rw(Rw {
            id: slot.id,
            op,
            handle: self.agreement.handle,
            sector: task.at(),
            segments,
        });
        self.send(slot, held, task, &message)
    }

    fn send(
        &mut self,
        mut slot: KBox<Slot>,
        held: Held,
        task: Task,
        message: &blkif::Request,
    ) -> Pushed {
        let asked = Operation::from_raw(message.tag().operation);
        let index = usize::from(slot.index);
        let (Some(asked), Some(place)) = (asked, self.aloft.get_mut(index)) else {
            return self.undo(slot, held, task);
        };
        if self.ring.push(message).is_err() {
            return self.undo(slot, held, task);
        }
        self.count += 1;
        self.statistics.requests += 1;
        self.statistics.indirect += u64::from(!slot.indirect.is_empty());
        slot.asked = asked;
        slot.held = held;
        slot.task = Some(task);
        *place = Some(slot);
        Pushed::Asked
    }

    /// What was prepared is not sent after all.
    #[cold]
    fn undo(&mut self, mut slot: KBox<Slot>, held: Held, task: Task) -> Pushed {
        let request = match held {
            Held::Own(request) => request,
            Held::Lent(lent) => match self.pages.grants.take_back(lent) {
                Ok((request, refs)) => {
                    slot.refs = refs;
                    request
                }
                // It waits where the end of the connection looks for it.
                Err(lent) => {
                    slot.held = Held::Lent(lent);
                    slot.task = Some(task);
                    if let Some(place) = self.aloft.get_mut(usize::from(slot.index)) {
                        *place = Some(slot);
                    }
                    return Pushed::Asked;
                }
            },
            Held::Nothing => return Pushed::Asked,
        };
        self.give_back(slot);
        Pushed::Busy(request, task)
    }

    /// Shows the backend what was pushed, and rings if it asked for that.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.published != self.count {
            self.published = self.count;
            self.statistics.publications += 1;
            if self.ring.publish() {
                self.statistics.doorbells += 1;
                self.line.notify();
            }
        }
    }

    /// Takes the next answer. `None` when there is none, and the backend will ring for the next one.
    #[inline]
    pub(crate) fn answer(&mut self) -> Result<Option<KBox<Slot>>, Breach> {
        loop {
            match self.ring.pop().map_err(Breach::Ring)? {
                Some(Ok(response)) => return self.land(&response).map(Some),
                Some(Err(bad)) => return Err(Breach::Response(bad)),
                None if self.final_check().map_err(Breach::Ring)? => {}
                None => return Ok(None),
            }
        }
    }

    fn final_check(&mut self) -> Result<bool, RingError> {
        self.ring.final_check()
    }

    fn land(&mut self, response: &Response) -> Result<KBox<Slot>, Breach> {
        let id = response.id;
        let unknown = Breach::UnknownId { id };
        if id >> INDEX_BITS > self.published {
            return Err(unknown);
        }
        let index = (id & ((1 << INDEX_BITS) - 1)) as usize;
        let place = self.aloft.get_mut(index).ok_or(unknown)?;
        match place {
            Some(slot) if slot.id == id && slot.asked == response.operation => {}
            Some(slot) if slot.id == id => {
                let (asked, answered) = (slot.asked, response.operation);
                return Err(Breach::WrongOperation { id, asked, answered });
            }
            _ => return Err(unknown),
        }
        let Some(mut slot) = place.take() else { return Err(unknown) };
        slot.status = response.status;
        if let Held::Lent(_) = slot.held {
            let Held::Lent(lent) = core::mem::replace(&mut slot.held, Held::Nothing) else {
                return Err(unknown);
            };
            match self.pages.grants.take_back(lent) {
                Ok((request, refs)) => {
                    slot.held = Held::Own(request);
                    slot.refs = refs;
                    self.pages.share();
                }
                Err(lent) => {
                    // The backend could still change the memory, so the request does not end.
                    slot.held = Held::Lent(lent);
                    *place = Some(slot);
                    return Err(Breach::StillMapped { id });
                }
            }
        }
        Ok(slot)
    }

    /// Takes a slot back that was finished with. Returns its request when there is more to ask for.
    #[inline]
    pub(crate) fn give_back(&mut self, mut slot: KBox<Slot>) -> Option<(Request<Queues>, Task)> {
        while let Some(page) = slot.pages.pop() {
            self.pages.put(page);
        }
        while let Some(page) = slot.indirect.pop() {
            self.pages.put(page);
        }
        let rest = match (core::mem::replace(&mut slot.held, Held::Nothing), slot.task.take()) {
            (Held::Own(request), Some(task)) => Some((request, task)),
            _ => None,
        };
        let _ = self.free.push_within_capacity(slot);
        rest
    }

    /// Ends the connection. Each request that was not answered goes to `unanswered`; those whose pages the backend has
    /// not let go of are returned, and the memory that was the driver's own. May sleep; the channel is unbound before.
    pub(crate) fn dissolve(
        mut self,
        mut unanswered: impl FnMut(Request<Queues>, Task),
    ) -> (KVec<KBox<Slot>>, Remains) {
        // It has room for all slots, and allocates nothing.
        let mut stuck = core::mem::take(&mut self.free);
        stuck.clear();
        for place in self.aloft.iter_mut() {
            let Some(mut slot) = place.take() else { continue };
            while let Some(page) = slot.pages.pop().or_else(|| slot.indirect.pop()) {
                self.pages.put(page);
            }
            match slot.release() {
                Ok(Some((request, task))) => unanswered(request, task),
                Ok(None) => {}
                Err(slot) => {
                    let _ = stuck.push_within_capacity(slot);
                }
            }
        }
        (stuck, Remains { ring: Some(self.ring.into_memory()), pages: self.pages.into_free() })
    }
}

/// The driver's own memory of a connection that has ended. The backend may have it mapped.
pub(crate) struct Remains {
    ring: Option<GrantedRing>,
    pages: KVVec<GrantedPage>,
}

impl Remains {
    /// Of a connection that did not come.
    pub(crate) fn of_ring(ring: FrontRing<GrantedRing>) -> Self {
        Self { ring: Some(ring.into_memory()), pages: KVVec::new() }
    }

    /// Frees what the backend has let go of, and returns whether that is all.
    pub(crate) fn free(&mut self) -> bool {
        if let Some(ring) = self.ring.take() {
            self.ring = ring.try_free().err();
        }
        let mut left = self.pages.len();
        while left > 0 {
            left -= 1;
            // Behind it are those that were looked at; one of them takes its place.
            let Some(last) = self.pages.pop() else { break };
            let page = match self.pages.get_mut(left) {
                Some(place) => core::mem::replace(place, last),
                None => last,
            };
            if let Err(page) = page.try_free() {
                let _ = self.pages.push_within_capacity(page);
            }
        }
        self.ring.is_none() && self.pages.is_empty()
    }
}

/// Looks once more whether the backend has let go of these, and returns whether any is left.
pub(crate) fn retry(
    stuck: &mut KVec<KBox<Slot>>,
    mut free: impl FnMut(Request<Queues>, Task),
) -> bool {
    let mut left = stuck.len();
    while left > 0 {
        left -= 1;
        let Ok(slot) = stuck.remove(left) else { break };
        match slot.release() {
            Ok(Some((request, task))) => free(request, task),
            Ok(None) => {}
            Err(slot) => {
                // It goes to where those are that were looked at.
                let _ = stuck.push_within_capacity(slot);
            }
        }
    }
    !stuck.is_empty()
}

/// Where the segments of a request are put.
enum Place {
    Direct([Segment; MAX_SEGMENTS]),
    Indirect,
}

impl Place {
    /// For up to so many segments.
    #[inline]
    fn new(count: usize) -> Self {
        if count <= MAX_SEGMENTS {
            Self::Direct([Segment::UNUSED; MAX_SEGMENTS])
        } else {
            Self::Indirect
        }
    }

    /// Pages that it needs for so many segments.
    #[inline]
    fn lists(&self, count: usize) -> usize {
        match self {
            Self::Direct(_) => 0,
            Self::Indirect => indirect_pages(count),
        }
    }

    /// Puts down a segment. It is whole sectors of one page.
    #[inline]
    fn put(&mut self, lists: &[GrantedPage], index: usize, gref: GrantRef, offset: u32, len: u32) {
        let sector = SECTOR_SIZE as u32;
        let last = (offset + len).wrapping_sub(1) / sector;
        let Some(segment) = Segment::new(gref, (offset / sector) as u8, last as u8) else { return };
        match self {
            Self::Direct(array) => {
                if let Some(place) = array.get_mut(index) {
                    *place = segment;
                }
            }
            Self::Indirect => {
                let at = index % SEGMENTS_PER_INDIRECT_PAGE * core::mem::size_of::<RawSegment>();
                if let Some(page) = lists.get(index / SEGMENTS_PER_INDIRECT_PAGE) {
                    page.as_region().write(at, &RawSegment::from(segment));
                }
            }
        }
    }

    /// The first `count` of them, as a request names them.
    #[inline]
    fn segments(&self, lists: &[GrantedPage], count: usize) -> Option<Segments> {
        match self {
            Self::Direct(array) => SegmentArray::new(array.get(..count)?).map(Segments::Direct),
            Self::Indirect => {
                let mut grefs = [GrantRef::INVALID; ring_proto::blkif::MAX_INDIRECT_PAGES];
                let used = indirect_pages(count);
                for (gref, page) in grefs.iter_mut().zip(lists) {
                    *gref = page.gref();
                }
                Indirect::new(u16::try_from(count).ok()?, grefs.get(..used)?)
                    .map(Segments::Indirect)
            }
        }
    }
}
