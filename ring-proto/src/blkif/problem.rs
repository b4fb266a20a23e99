// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Why a request is refused, and with what answer.

use super::{Operation, Status, Tag};

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
