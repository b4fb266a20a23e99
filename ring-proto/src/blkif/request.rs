// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Requests that were checked, and how slots become them and they become slots.

use core::ops::Deref;

use super::wire::{RawDiscard, RawIndirect, RawRequest, RawSegment};
use super::{
    Operation, Status, Tag, DISCARD_SECURE, MAX_INDIRECT_PAGES, MAX_SEGMENTS, SECTORS_PER_PAGE,
    SECTOR_SIZE, SEGMENTS_PER_INDIRECT_PAGE,
};
use crate::shared::{from_bytes, zeroed};
use crate::xen::GrantRef;

/// Part of a page to transfer: at least one sector, none outside the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    gref: GrantRef,
    first: u8,
    last: u8,
}

impl Segment {
    /// Sectors `first` to `last`, both included, of the page granted as `gref`; `None` unless
    /// `first <= last <= 7`.
    #[inline]
    pub const fn new(gref: GrantRef, first: u8, last: u8) -> Option<Self> {
        if first <= last && last < SECTORS_PER_PAGE {
            Some(Self { gref, first, last })
        } else {
            None
        }
    }

    /// The page. Whether the frontend really granted it shows when it is mapped.
    #[inline]
    pub const fn gref(&self) -> GrantRef {
        self.gref
    }

    /// First sector in the page, 0 to 7.
    #[inline]
    pub const fn first(&self) -> u8 {
        self.first
    }

    /// Last sector in the page, from `first` to 7.
    #[inline]
    pub const fn last(&self) -> u8 {
        self.last
    }

    /// Number of sectors, 1 to 8.
    #[inline]
    pub const fn sectors(&self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// Where in the page it begins, in bytes.
    #[inline]
    pub const fn offset(&self) -> usize {
        self.first as usize * SECTOR_SIZE
    }

    /// Its length in bytes.
    #[inline]
    pub const fn byte_len(&self) -> usize {
        self.sectors() as usize * SECTOR_SIZE
    }

    #[inline]
    fn check(raw: &RawSegment, index: u16) -> Result<Self, Problem> {
        Self::new(GrantRef(raw.gref), raw.first_sect, raw.last_sect).ok_or(Problem::SegmentRange {
            index,
            first: raw.first_sect,
            last: raw.last_sect,
        })
    }
}

impl From<Segment> for RawSegment {
    #[inline]
    fn from(segment: Segment) -> Self {
        Self {
            gref: segment.gref.0,
            first_sect: segment.first,
            last_sect: segment.last,
            pad: [0; 2],
        }
    }
}

/// Up to [`MAX_SEGMENTS`] segments, in place.
#[derive(Clone, Copy, Debug)]
pub struct SegmentArray {
    count: u8,
    segments: [Segment; MAX_SEGMENTS],
}

impl SegmentArray {
    /// These segments, or `None` when they are too many for a slot.
    #[inline]
    pub fn new(segments: &[Segment]) -> Option<Self> {
        let mut array = Self::EMPTY;
        array.segments.get_mut(..segments.len())?.copy_from_slice(segments);
        array.count = segments.len() as u8;
        Some(array)
    }

    const EMPTY: Self = Self {
        count: 0,
        segments: [Segment { gref: GrantRef(0), first: 0, last: 0 }; MAX_SEGMENTS],
    };
}

impl Deref for SegmentArray {
    type Target = [Segment];

    #[inline]
    fn deref(&self) -> &[Segment] {
        self.segments.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

impl PartialEq for SegmentArray {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SegmentArray {}

/// Segments that lie in pages of their own, which the frontend granted.
#[derive(Clone, Copy, Debug)]
pub struct Indirect {
    count: u16,
    grefs: [GrantRef; MAX_INDIRECT_PAGES],
}

impl Indirect {
    /// `count` segments in the pages granted as `pages`; `None` when there are no segments, or not just as many pages
    /// as they take.
    pub fn new(count: u16, pages: &[GrantRef]) -> Option<Self> {
        let mut grefs = [GrantRef(0); MAX_INDIRECT_PAGES];
        grefs.get_mut(..pages.len())?.copy_from_slice(pages);
        let right =
            count > 0 && pages.len() == usize::from(count).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        right.then_some(Self { count, grefs })
    }

    /// Number of segments, at least one and at most the limit that the request was checked against.
    #[inline]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// The pages to map, 1 to 8.
    #[inline]
    pub fn pages(&self) -> &[GrantRef] {
        let pages = usize::from(self.count).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        self.grefs.get(..pages).unwrap_or(&[])
    }

    /// How many segments lie in the page of this number. Each takes 8 bytes from the page's beginning.
    #[inline]
    pub fn in_page(&self, page: usize) -> usize {
        usize::from(self.count)
            .saturating_sub(page.saturating_mul(SEGMENTS_PER_INDIRECT_PAGE))
            .min(SEGMENTS_PER_INDIRECT_PAGE)
    }
}

impl PartialEq for Indirect {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.pages() == other.pages()
    }
}

impl Eq for Indirect {}

/// Reads the segments in a page of an indirect request. `bytes` is a private copy of as many segments as
/// [`Indirect::in_page`] says, eight bytes each; a rest of fewer bytes is left out.
///
/// # Errors
///
/// An item is [`Problem::SegmentRange`], with the index in this page, when the segment is not within its page.
pub fn descriptors(bytes: &[u8]) -> impl Iterator<Item = Result<Segment, Problem>> + '_ {
    bytes.chunks_exact(core::mem::size_of::<RawSegment>()).enumerate().map(|(index, bytes)| {
        let raw = from_bytes(bytes).unwrap_or_else(zeroed::<RawSegment>);
        Segment::check(&raw, index as u16)
    })
}

/// The segments of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a request is built in place, without allocation")]
pub enum Segments {
    /// In the slot: 1 to 11 of them.
    Direct(SegmentArray),
    /// In pages that the frontend granted.
    Indirect(Indirect),
}

impl Segments {
    /// Number of segments, at least one.
    #[inline]
    pub fn count(&self) -> u16 {
        match self {
            Self::Direct(array) => u16::from(array.count),
            Self::Indirect(indirect) => indirect.count,
        }
    }
}

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

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no operation of this number.
    UnknownOperation(u8),
    /// The backend did not offer this operation.
    NotOffered(Operation),
    /// An indirect request can only read or write, not do the operation of this number.
    IndirectOperation(u8),
    /// Too few or too many segments.
    SegmentCount {
        /// How many.
        count: u16,
        /// The most allowed.
        limit: u16,
    },
    /// A segment that is not within its page.
    SegmentRange {
        /// Which segment of the slot or of its indirect page.
        index: u16,
        /// Its first sector.
        first: u8,
        /// Its last sector.
        last: u8,
    },
    /// It would change a disk that is read-only.
    ReadOnly(Operation),
    /// It reaches beyond the last sector of the disk.
    BeyondEnd {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Sectors of the disk.
        capacity: u64,
    },
    /// The first sector or the number of sectors is not a multiple of the disk's logical sector.
    Unaligned {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Bytes of a logical sector.
        logical: u32,
    },
    /// A segment begins or ends within one of the disk's logical sectors.
    UnalignedSegment {
        /// Its first sector.
        first: u8,
        /// Its last sector.
        last: u8,
        /// Bytes of a logical sector.
        logical: u32,
    },
}

impl Problem {
    /// The status to answer with.
    pub const fn status(&self) -> Status {
        match self {
            Self::UnknownOperation(_) | Self::NotOffered(_) => Status::NotSupported,
            _ => Status::Error,
        }
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownOperation(raw) => write!(f, "there is no operation {raw}"),
            Self::NotOffered(operation) => write!(f, "operation {operation} was not offered"),
            Self::IndirectOperation(raw) => write!(f, "operation {raw} cannot be indirect"),
            Self::SegmentCount { count, limit } => {
                write!(f, "{count} segments are not between 1 and {limit}")
            }
            Self::SegmentRange { index, first, last } => {
                write!(f, "segment {index} from sector {first} to {last} is not within its page")
            }
            Self::ReadOnly(operation) => write!(f, "{operation} to a read-only disk"),
            Self::BeyondEnd { sector, count, capacity } => {
                write!(f, "{count} sectors from {sector} reach beyond the disk's {capacity}")
            }
            Self::Unaligned { sector, count, logical } => {
                write!(f, "{count} sectors from {sector} are not whole sectors of {logical} bytes")
            }
            Self::UnalignedSegment { first, last, logical } => {
                write!(f, "a segment from sector {first} to {last} is not whole sectors of {logical} bytes")
            }
        }
    }
}

impl core::error::Error for Problem {}

/// A request to be refused, with all that the refusal needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    /// What the response repeats.
    pub tag: Tag,
    /// Why.
    pub problem: Problem,
}

impl BadRequest {
    /// The status to answer with.
    pub const fn status(&self) -> Status {
        self.problem.status()
    }
}

impl core::fmt::Display for BadRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "request {:#x} refused: {}", self.tag.id, self.problem)
    }
}

impl core::error::Error for BadRequest {}

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
        if self.nr_segments == 0 || usize::from(self.nr_segments) > MAX_SEGMENTS {
            let (count, limit) = (u16::from(self.nr_segments), MAX_SEGMENTS as u16);
            return refuse(Problem::SegmentCount { count, limit });
        }
        let mut array = SegmentArray { count: self.nr_segments, ..SegmentArray::EMPTY };
        let used = self.seg.iter().take(usize::from(self.nr_segments));
        for (index, (into, raw)) in array.segments.iter_mut().zip(used).enumerate() {
            match Segment::check(raw, index as u16) {
                Ok(segment) => *into = segment,
                Err(problem) => return refuse(problem),
            }
        }
        Ok(Request::Rw(Rw {
            id: self.id,
            op,
            handle: self.handle,
            sector: self.sector_number,
            segments: Segments::Direct(array),
        }))
    }
}

impl RawIndirect {
    fn check(&self, max_indirect: u16) -> Result<Request, BadRequest> {
        let refuse = |problem| {
            Err(BadRequest { tag: Tag { id: self.id, operation: self.indirect_op }, problem })
        };
        let limit = max_indirect.min(super::MAX_INDIRECT_SEGMENTS);
        if limit == 0 {
            return refuse(Problem::NotOffered(Operation::Indirect));
        }
        let op = match Operation::from_raw(self.indirect_op) {
            Some(Operation::Read) => RwOp::Read,
            Some(Operation::Write) => RwOp::Write,
            _ => return refuse(Problem::IndirectOperation(self.indirect_op)),
        };
        if self.nr_segments == 0 || self.nr_segments > limit {
            return refuse(Problem::SegmentCount { count: self.nr_segments, limit });
        }
        let indirect =
            Indirect { count: self.nr_segments, grefs: self.indirect_grefs.map(GrantRef) };
        Ok(Request::Rw(Rw {
            id: self.id,
            op,
            handle: self.handle,
            sector: self.sector_number,
            segments: Segments::Indirect(indirect),
        }))
    }
}

impl From<&Request> for RawRequest {
    /// The slot for a request. The segments of an indirect one go into their pages separately, as [`RawSegment`]s.
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
            Segments::Direct(array) => {
                let mut slot = Self {
                    operation,
                    nr_segments: array.count,
                    handle: rw.handle,
                    pad: 0,
                    id: rw.id,
                    sector_number: rw.sector,
                    seg: zeroed(),
                };
                for (into, segment) in slot.seg.iter_mut().zip(array.iter()) {
                    *into = (*segment).into();
                }
                slot
            }
            Segments::Indirect(indirect) => {
                let mut slot = RawIndirect {
                    operation: Operation::Indirect as u8,
                    indirect_op: operation,
                    nr_segments: indirect.count,
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
