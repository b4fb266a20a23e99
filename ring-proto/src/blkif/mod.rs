// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The block protocol (`io/blkif.h`): what lies in the slots of a `vbd`'s rings, and what of it is legal.
//!
//! A frontend turns a [`Request`] into a slot, a backend turns a slot into a [`Request`] or a [`BadRequest`] that says
//! how to refuse it. A request that decoded is well-formed: its segments are within their pages and as many as were
//! agreed. Whether it fits the disk is [`Disk`]'s to say, in a second step, because an indirect request's segments lie
//! in pages of their own that have to be mapped first:
//!
//! ```text
//! slot ──BackRing::pop──▶ Request ──┬─ direct ────────────────────────────────▶ Disk::check_rw ──▶ do it
//!                                   └─ indirect: copy pages out, descriptors() ─▶
//! ```
//!
//! A frontend's words may be 32 or 64 bits wide ([`Abi`]); [`BackRing`] and [`FrontRing`] hide the difference.
//!
//! **Sectors on the wire are units of 512 bytes**, also for disks of larger logical sectors.
//!
//! ```
//! use ring_proto::blkif::{Disk, RawRequest, Request, Rw, RwOp, Segment, SegmentArray, Segments};
//! use ring_proto::xen::GrantRef;
//!
//! // A frontend reads a page.
//! let page = Segment::new(GrantRef(8), 0, 7).expect("eight sectors are a page");
//! let segments = Segments::Direct(SegmentArray::new(&[page]).expect("one is not too many"));
//! let request = Request::Rw(Rw { id: 1, op: RwOp::Read, handle: 0, sector: 16, segments });
//! let slot = RawRequest::from(&request);
//!
//! // A backend finds the slot in its ring, and that the disk has no such sectors.
//! let disk = Disk { capacity: 20, logical: 512, read_only: false, flush: true, barrier: false, discard: true };
//! let Ok(Request::Rw(rw)) = slot.check(0) else { panic!("a legal read") };
//! let Segments::Direct(segments) = rw.segments else { panic!("a direct one") };
//! let refused = disk.check_rw(rw.op, rw.sector, &segments).unwrap_err();
//! assert_eq!(refused.to_string(), "8 sectors from 16 reach beyond the disk's 20");
//! ```

mod disk;
pub mod grants;
pub mod limits;
mod problem;
mod request;
mod ring;
mod segment;
#[cfg(test)]
mod tests;
mod wire;

pub use disk::Disk;
pub use problem::{BadRequest, Problem};
pub use request::{Discard, Request, Rw, RwOp};
pub use ring::{BackRing, FrontRing};
pub use segment::{descriptors, Indirect, Segment, SegmentArray, Segments};
pub use wire::{
    BadResponse, RawDiscard, RawIndirect, RawRequest, RawRequest32, RawResponse, RawResponse32,
    RawSegment, Response,
};

use crate::shared::PAGE_SIZE;

/// Bytes of a sector on the wire, whatever the disk's own sectors are.
pub const SECTOR_SIZE: usize = 512;

/// Sectors in a page.
pub const SECTORS_PER_PAGE: u8 = 8;

/// Most segments in the slot itself (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const MAX_SEGMENTS: usize = 11;

/// Most pages of segments that an indirect request names (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const MAX_INDIRECT_PAGES: usize = 8;

/// Segments in one page of an indirect request.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = PAGE_SIZE / core::mem::size_of::<RawSegment>();

/// Most segments that an indirect request can have, whatever a backend offers.
pub const MAX_INDIRECT_SEGMENTS: u16 = (MAX_INDIRECT_PAGES * SEGMENTS_PER_INDIRECT_PAGE) as u16;

/// Bit of a discard's flags: nothing may be able to restore the data (`BLKIF_DISCARD_SECURE`).
pub const DISCARD_SECURE: u8 = 1;

/// Bits of a backend's key `info`.
pub mod info {
    /// A CD-ROM (`VDISK_CDROM`).
    pub const CDROM: u32 = 1;
    /// The medium can be taken out (`VDISK_REMOVABLE`).
    pub const REMOVABLE: u32 = 2;
    /// Writes are refused (`VDISK_READONLY`).
    pub const READONLY: u32 = 4;
}

/// What a request asks for (`BLKIF_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Read sectors (`BLKIF_OP_READ`).
    Read = 0,
    /// Write sectors (`BLKIF_OP_WRITE`).
    Write = 1,
    /// Write sectors after all writes before, and before all writes after (`BLKIF_OP_WRITE_BARRIER`).
    WriteBarrier = 2,
    /// Make all acknowledged writes durable (`BLKIF_OP_FLUSH_DISKCACHE`).
    FlushDiskcache = 3,
    /// The contents of sectors are needed no more (`BLKIF_OP_DISCARD`).
    Discard = 5,
    /// A read or write whose segments lie in pages of their own (`BLKIF_OP_INDIRECT`). Never in a response.
    Indirect = 6,
}

impl Operation {
    /// The operation with this number.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            2 => Some(Self::WriteBarrier),
            3 => Some(Self::FlushDiskcache),
            5 => Some(Self::Discard),
            6 => Some(Self::Indirect),
            _ => None,
        }
    }

    /// Its name in a log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteBarrier => "write barrier",
            Self::FlushDiskcache => "flush",
            Self::Discard => "discard",
            Self::Indirect => "indirect",
        }
    }
}

impl core::fmt::Display for Operation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a request (`BLKIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Status {
    /// Done (`BLKIF_RSP_OKAY`).
    Okay = 0,
    /// Failed or refused (`BLKIF_RSP_ERROR`).
    Error = -1,
    /// This backend does not have the operation (`BLKIF_RSP_EOPNOTSUPP`).
    NotSupported = -2,
}

impl Status {
    /// The status with this number.
    pub const fn from_raw(raw: i16) -> Option<Self> {
        match raw {
            0 => Some(Self::Okay),
            -1 => Some(Self::Error),
            -2 => Some(Self::NotSupported),
            _ => None,
        }
    }
}

/// What a response repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The frontend's own value; it means nothing to a backend.
    pub id: u64,
    /// The number of the operation, which for an indirect request is that of the read or write inside. A number that
    /// is no operation is repeated too.
    pub operation: u8,
}

/// How wide the words of a frontend are, and so how its slots are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// `x86_64-abi`: slots of 112 bytes. Also the layout of Arm.
    X86_64,
    /// `x86_32-abi`: slots of 108 bytes.
    X86_32,
}

impl Abi {
    /// That of the machine that this was built for.
    pub const NATIVE: Self = if cfg!(target_arch = "x86") { Self::X86_32 } else { Self::X86_64 };

    /// The layout that a frontend means by the value of its key `protocol` (`io/protocols.h`). A frontend that did not
    /// write the key means [`NATIVE`](Self::NATIVE).
    pub fn from_protocol(value: &str) -> Option<Self> {
        match value {
            "x86_64-abi" => Some(Self::X86_64),
            "x86_32-abi" => Some(Self::X86_32),
            "arm-abi" if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) => {
                Some(Self::X86_64)
            }
            _ => None,
        }
    }

    /// The value of the key `protocol` for a frontend of this layout.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::X86_64 if cfg!(any(target_arch = "arm", target_arch = "aarch64")) => "arm-abi",
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        }
    }
}
