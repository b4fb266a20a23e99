// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests on their way: how tasks are cut into them, and which response answers which.

use ring_proto::blkif::{
    Discard, Indirect, MAX_SEGMENTS, Operation, RawSegment, Request, Response, Rw, RwOp, Segment,
    SegmentArray, Segments,
};
use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xen::GrantRef;

use crate::Error;
use crate::error::Breach;
use crate::pool::{PAGE_SECTORS, Pool};
use crate::queue::Task;
use crate::shared::Link;
use crate::statistics::Counters;

/// Bits of an id that say which flight it is; those above count, so that no id occurs twice.
const INDEX_BITS: u32 = 16;

/// A request that was pushed.
#[derive(Clone, Copy, Debug)]
struct Flight {
    id: u64,
    /// Of which task.
    task: usize,
    operation: Operation,
    /// The page that its segments lie in.
    indirect: Option<usize>,
    aloft: bool,
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flights: Vec<Flight>,
    free: Vec<usize>,
    /// Pages for segments that are not in use.
    pages: Vec<usize>,
    count: u64,
}

impl Flights {
    pub fn new(link: &Link) -> Self {
        let slots = link.ring.size() as usize;
        let flight =
            Flight { id: 0, task: 0, operation: Operation::Read, indirect: None, aloft: false };
        let pages = link.indirect.as_ref().map_or(0, |grant| grant.refs().len());
        Self {
            flights: vec![flight; slots],
            free: (0..slots).rev().collect(),
            pages: (0..pages).rev().collect(),
            count: 0,
        }
    }

    /// Pushes one request for as much of the task as it can carry, and returns how many sectors that is. The ring has
    /// room.
    ///
    /// # Errors
    ///
    /// When the backend cannot do it; nothing was pushed.
    pub fn push(
        &mut self,
        link: &mut Link,
        pool: &Pool,
        index: usize,
        task: &Task,
        counters: &Counters,
    ) -> Result<u64, Error> {
        let slot = *self.free.last().ok_or(Error::Full)?;
        let id = (self.count << INDEX_BITS) | slot as u64;
        let mut indirect = None;
        let unsupported = Err(Error::Unsupported { operation: task.operation });
        let (request, sectors) = match task.operation {
            Operation::FlushDiskcache if link.flush => (Request::Flush { id, barrier: false }, 0),
            Operation::FlushDiskcache if link.barrier => (Request::Flush { id, barrier: true }, 0),
            Operation::FlushDiskcache | Operation::Indirect => return unsupported,
            // Xen's own backend takes one that it cannot do for one that need not be secure.
            Operation::Discard if task.secure && !link.secure_discard => return unsupported,
            Operation::Discard => {
                let Task { sector, count, secure, .. } = *task;
                (
                    Request::Discard(Discard { id, handle: link.handle, sector, count, secure }),
                    count,
                )
            }
            Operation::WriteBarrier if !link.barrier => return unsupported,
            Operation::Read | Operation::Write | Operation::WriteBarrier => {
                let (segments, sectors, page) = self.segments(link, pool, task)?;
                indirect = page;
                let op = match task.operation {
                    Operation::Read => RwOp::Read,
                    Operation::Write => RwOp::Write,
                    _ => RwOp::WriteBarrier,
                };
                let sector = task.sector + task.pushed;
                (Request::Rw(Rw { id, op, handle: link.handle, sector, segments }), sectors)
            }
        };
        link.ring.push(&request).map_err(|_| Error::Full)?;
        self.count += 1;
        self.free.pop();
        if indirect.is_some() {
            self.pages.pop();
            counters.indirect.add(1);
        }
        counters.requests.add(1);
        let operation = Operation::from_raw(request.tag().operation).unwrap_or(task.operation);
        self.flights[slot] = Flight { id, task: index, operation, indirect, aloft: true };
        Ok(sectors)
    }

    /// The segments of the next request of a read or write, the sectors in them, and the page that they were written
    /// to if they are too many for a slot.
    fn segments(
        &self,
        link: &Link,
        pool: &Pool,
        task: &Task,
    ) -> Result<(Segments, u64, Option<usize>), Error> {
        let first = task.start + task.pushed as u32;
        let left = (task.count - task.pushed) as u32;
        let page = self.pages.last().copied();
        let grant = link.indirect.as_ref().filter(|_| page.is_some());
        let pages_left = (first % PAGE_SECTORS + left).div_ceil(PAGE_SECTORS) as usize;
        let full = Error::LongBarrier { count: task.count };

        match (grant, page) {
            (Some(grant), Some(page))
                if pages_left > MAX_SEGMENTS && task.operation != Operation::WriteBarrier =>
            {
                let (mut count, mut sectors, mut at) = (0u16, 0, page * PAGE_SIZE);
                let cut = Cut { pool, first, left };
                for segment in cut.take(link.indirect_segments) {
                    grant.write(at, &RawSegment::from(segment));
                    at += size_of::<RawSegment>();
                    count += 1;
                    sectors += u64::from(segment.sectors());
                }
                let gref = grant.refs().get(page).copied().unwrap_or(GrantRef::INVALID);
                let indirect = Indirect::new(count, &[gref]).ok_or(full)?;
                Ok((Segments::Indirect(indirect), sectors, Some(page)))
            }
            _ => {
                let mut array = [Segment::UNUSED; MAX_SEGMENTS];
                let (mut count, mut sectors) = (0, 0);
                for (place, segment) in array.iter_mut().zip(Cut { pool, first, left }) {
                    *place = segment;
                    count += 1;
                    sectors += u64::from(segment.sectors());
                }
                if task.operation == Operation::WriteBarrier && sectors < task.count {
                    return Err(full);
                }
                let array = SegmentArray::new(&array[..count]).ok_or(full)?;
                Ok((Segments::Direct(array), sectors, None))
            }
        }
    }

    /// The task that a response belongs to.
    ///
    /// # Errors
    ///
    /// When the backend cannot mean it.
    pub fn land(&mut self, response: &Response) -> Result<usize, Breach> {
        let id = response.id;
        let slot = (id & ((1 << INDEX_BITS) - 1)) as usize;
        let Some(flight) =
            self.flights.get_mut(slot).filter(|flight| flight.aloft && flight.id == id)
        else {
            return Err(Breach::UnknownId { id });
        };
        if flight.operation != response.operation {
            let (asked, answered) = (flight.operation, response.operation);
            return Err(Breach::WrongOperation { id, asked, answered });
        }
        flight.aloft = false;
        self.free.push(slot);
        self.pages.extend(flight.indirect.take());
        Ok(flight.task)
    }
}

/// The segments of a stretch of the pool, page by page.
struct Cut<'a> {
    pool: &'a Pool,
    first: u32,
    left: u32,
}

impl Iterator for Cut<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        let within = self.first % PAGE_SECTORS;
        let sectors = self.left.min(PAGE_SECTORS - within);
        let last = (within + sectors).checked_sub(1).filter(|_| sectors > 0)?;
        let segment = Segment::new(self.pool.gref(self.first), within as u8, last as u8);
        self.first += sectors;
        self.left -= sectors;
        segment
    }
}
