// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Requests that were checked, and how slots become them and they become slots.

use super::wire::{RawDiscard, RawIndirect, RawRequest};
use super::{
    BadRequest, Indirect, Operation, Problem, SegmentArray, Segments, Tag, DISCARD_SECURE,
};
/// How data moves between disk and segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RwOp {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
    /// To the disk, durably: after all earlier writes became durable, and before any later one is done.
    WriteBarrier,
    /// To the disk, after all acknowledged writes became durable: a flush that carries data.
    FlushWrite,
}

impl RwOp {
    /// What the request and its response call it.
    pub const fn operation(self) -> Operation {
        match self {
            Self::Read => Operation::Read,
            Self::Write => Operation::Write,
            Self::WriteBarrier => Operation::WriteBarrier,
            Self::FlushWrite => Operation::FlushDiskcache,
        }
    }

    /// Whether it changes the disk.
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// A read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rw {
    /// The frontend's own value.
    pub id: u64,
    /// Which way, and in which order towards others.
    pub op: RwOp,
    /// Number of the virtual device. A backend that serves one disk a ring has no use for it.
    pub handle: u16,
    /// First sector on the disk.
    pub sector: u64,
    /// Where the data lies or goes.
    pub segments: Segments,
}

/// A discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// The frontend's own value.
    pub id: u64,
    /// Number of the virtual device.
    pub handle: u16,
    /// First sector on the disk.
    pub sector: u64,
    /// Number of sectors, not bounded by anything before [`Disk::check_discard`](super::Disk::check_discard).
    pub count: u64,
    /// Whether nothing may be able to restore the data. Without meaning unless the backend offered it.
    pub secure: bool,
}

/// A request whose form is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a request is built in place, without allocation")]
pub enum Request {
    /// Move data.
    Rw(Rw),
    /// Make acknowledged writes durable. A barrier without data is one too.
    Flush {
        /// The frontend's own value.
        id: u64,
        /// Whether later requests have to wait for it (`WRITE_BARRIER`).
        barrier: bool,
    },
    /// Forget data.
    Discard(Discard),
}

impl Request {
    /// What the response has to repeat.
    #[inline]
    pub fn tag(&self) -> Tag {
        let (id, operation) = match self {
            Self::Rw(rw) => (rw.id, rw.op.operation()),
            Self::Flush { id, barrier: false } => (*id, Operation::FlushDiskcache),
            Self::Flush { id, barrier: true } => (*id, Operation::WriteBarrier),
            Self::Discard(discard) => (discard.id, Operation::Discard),
        };
        Tag { id, operation: operation as u8 }
    }
}

impl RawRequest {
    /// Judges what a frontend wrote. `max_indirect` is the number of segments that the backend offered for an
    /// indirect request, 0 when it offered none.
    ///
    /// # Errors
    ///
    /// [`BadRequest`] when the form of the request is not legal.
    #[inline]
    pub fn check(&self, max_indirect: u16) -> Result<Request, BadRequest> {
        let refuse = |problem| {
            Err(BadRequest { tag: Tag { id: self.id, operation: self.operation }, problem })
        };
        let op = match Operation::from_raw(self.operation) {
            Some(Operation::Read) => RwOp::Read,
            Some(Operation::Write) => RwOp::Write,
            Some(Operation::WriteBarrier) if self.nr_segments > 0 => RwOp::WriteBarrier,
            Some(Operation::FlushDiskcache) if self.nr_segments > 0 => RwOp::FlushWrite,
            Some(Operation::WriteBarrier) => {
                return Ok(Request::Flush { id: self.id, barrier: true })
            }
            Some(Operation::FlushDiskcache) => {
                return Ok(Request::Flush { id: self.id, barrier: false })
            }
            Some(Operation::Discard) => {
                let raw = self.as_discard();
                return Ok(Request::Discard(Discard {
                    id: raw.id,
                    handle: raw.handle,
                    sector: raw.sector_number,
                    count: raw.nr_sectors,
                    secure: raw.flag & DISCARD_SECURE != 0,
                }));
            }
            Some(Operation::Indirect) => return self.as_indirect().check(max_indirect),
            None => return refuse(Problem::UnknownOperation(self.operation)),
        };
        let segments = match SegmentArray::check(&self.seg, self.nr_segments) {
            Ok(array) => Segments::Direct(array),
            Err(problem) => return refuse(problem),
        };
        Ok(Request::Rw(Rw {
            id: self.id,
            op,
            handle: self.handle,
            sector: self.sector_number,
            segments,
        }))
    }
}

impl RawIndirect {
    fn check(&self, max_indirect: u16) -> Result<Request, BadRequest> {
        let refuse = |problem| {
            Err(BadRequest { tag: Tag { id: self.id, operation: self.indirect_op }, problem })
        };
        if max_indirect == 0 {
            return refuse(Problem::NotOffered(Operation::Indirect));
        }
        let op = match Operation::from_raw(self.indirect_op) {
            Some(Operation::Read) => RwOp::Read,
            Some(Operation::Write) => RwOp::Write,
            _ => return refuse(Problem::IndirectOperation(self.indirect_op)),
        };
        let segments = match Indirect::check(self.nr_segments, max_indirect, self.indirect_grefs) {
            Ok(indirect) => Segments::Indirect(indirect),
            Err(problem) => return refuse(problem),
        };
        Ok(Request::Rw(Rw {
            id: self.id,
            op,
            handle: self.handle,
            sector: self.sector_number,
            segments,
        }))
    }
}

impl From<&Request> for RawRequest {
    /// The slot for a request. The segments of an indirect one go into their pages separately, each a
    /// [`RawSegment`](super::RawSegment).
    #[inline]
    fn from(request: &Request) -> Self {
        match request {
            Request::Rw(rw) => rw.into(),
            Request::Flush { id, .. } => {
                Self { operation: request.tag().operation, id: *id, ..Self::default() }
            }
            Request::Discard(discard) => RawDiscard {
                operation: Operation::Discard as u8,
                flag: if discard.secure { DISCARD_SECURE } else { 0 },
                handle: discard.handle,
                pad: 0,
                id: discard.id,
                sector_number: discard.sector,
                nr_sectors: discard.count,
            }
            .into(),
        }
    }
}

impl From<&Rw> for RawRequest {
    #[inline]
    fn from(rw: &Rw) -> Self {
        let operation = rw.op.operation() as u8;
        match &rw.segments {
            Segments::Direct(array) => Self {
                operation,
                nr_segments: array.len() as u8,
                handle: rw.handle,
                pad: 0,
                id: rw.id,
                sector_number: rw.sector,
                seg: array.to_raw(),
            },
            Segments::Indirect(indirect) => {
                let mut slot = RawIndirect {
                    operation: Operation::Indirect as u8,
                    indirect_op: operation,
                    nr_segments: indirect.count(),
                    id: rw.id,
                    sector_number: rw.sector,
                    handle: rw.handle,
                    ..RawIndirect::default()
                };
                for (into, gref) in slot.indirect_grefs.iter_mut().zip(indirect.pages()) {
                    *into = gref.0;
                }
                slot.into()
            }
        }
    }
}
