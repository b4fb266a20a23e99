// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The bytes of a slot. All three forms of a request begin alike; which one it is, the operation says.

use super::{Operation, Status, Tag, MAX_INDIRECT_PAGES, MAX_SEGMENTS};
use core::mem::size_of;

use crate::shared::{bytes_of, bytes_of_mut, from_bytes, Wire};
use crate::wire;

wire! {
    /// Part of a page to transfer, as it was written (`struct blkif_request_segment`).
    pub struct RawSegment {
        /// Grant of the page.
        pub gref: u32,
        /// First sector in the page.
        pub first_sect: u8,
        /// Last sector in the page.
        pub last_sect: u8,
        /// Not used.
        pub pad: [u8; 2],
    }
}

wire! {
    /// A slot of the native and the 64-bit layout (`struct blkif_request`). Nothing in it has been checked.
    pub struct RawRequest {
        /// Number of the operation.
        pub operation: u8,
        /// Number of segments.
        pub nr_segments: u8,
        /// Number of the virtual device.
        pub handle: u16,
        /// Not used.
        pub pad: u32,
        /// The frontend's own value.
        pub id: u64,
        /// First sector on the disk.
        pub sector_number: u64,
        /// The segments.
        pub seg: [RawSegment; MAX_SEGMENTS],
    }
}

wire! {
    /// A slot that holds a discard (`struct blkif_request_discard`).
    pub struct RawDiscard {
        /// `BLKIF_OP_DISCARD`.
        pub operation: u8,
        /// [`DISCARD_SECURE`](super::DISCARD_SECURE) or zero.
        pub flag: u8,
        /// Number of the virtual device.
        pub handle: u16,
        /// Not used.
        pub pad: u32,
        /// The frontend's own value.
        pub id: u64,
        /// First sector on the disk.
        pub sector_number: u64,
        /// Number of sectors.
        pub nr_sectors: u64,
    }
}

wire! {
    /// A slot that holds an indirect request (`struct blkif_request_indirect`).
    pub struct RawIndirect {
        /// `BLKIF_OP_INDIRECT`.
        pub operation: u8,
        /// Number of the operation meant.
        pub indirect_op: u8,
        /// Number of segments.
        pub nr_segments: u16,
        /// Not used.
        pub pad0: u32,
        /// The frontend's own value.
        pub id: u64,
        /// First sector on the disk.
        pub sector_number: u64,
        /// Number of the virtual device.
        pub handle: u16,
        /// Not used.
        pub pad1: u16,
        /// Grants of the pages that hold the segments.
        pub indirect_grefs: [u32; MAX_INDIRECT_PAGES],
        /// Not used.
        pub pad2: u32,
    }
}

wire! {
    /// A slot of the 32-bit layout: the same without the word after `handle`, aligned to four bytes.
    pub struct RawRequest32 {
        /// Number of the operation.
        pub operation: u8,
        /// Number of segments.
        pub nr_segments: u8,
        /// Number of the virtual device.
        pub handle: u16,
        /// The frontend's own value, low word first.
        pub id: [u32; 2],
        /// First sector on the disk, low word first.
        pub sector_number: [u32; 2],
        /// The segments, or the rest of another form.
        pub seg: [RawSegment; MAX_SEGMENTS],
    }
}

wire! {
    /// A response of the native and the 64-bit layout (`struct blkif_response`).
    pub struct RawResponse {
        /// That of the request.
        pub id: u64,
        /// That of the request.
        pub operation: u8,
        /// Not used.
        pub pad0: u8,
        /// What became of it (an `int16_t` there).
        pub status: u16,
        /// Not used.
        pub pad1: u32,
    }
}

wire! {
    /// A response of the 32-bit layout.
    pub struct RawResponse32 {
        /// That of the request, low word first.
        pub id: [u32; 2],
        /// That of the request.
        pub operation: u8,
        /// Not used.
        pub pad: u8,
        /// What became of it (an `int16_t` there).
        pub status: u16,
    }
}

#[inline]
const fn split(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[inline]
const fn join([low, high]: [u32; 2]) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Sees the beginning of `from` as another form of the same slot.
#[inline]
fn view<From: Wire, To: Wire + Default>(from: &From) -> To {
    const { assert!(size_of::<To>() <= size_of::<From>()) };
    from_bytes(bytes_of(from)).unwrap_or_default()
}

impl RawRequest {
    /// The slot seen as a discard.
    #[inline]
    pub fn as_discard(&self) -> RawDiscard {
        view(self)
    }

    /// The slot seen as an indirect request.
    #[inline]
    pub fn as_indirect(&self) -> RawIndirect {
        view(self)
    }
}

impl From<RawRequest32> for RawRequest {
    /// Widens a slot of any form: all of them are equal but for the word after `handle`.
    #[inline]
    fn from(slot: RawRequest32) -> Self {
        Self {
            operation: slot.operation,
            nr_segments: slot.nr_segments,
            handle: slot.handle,
            pad: 0,
            id: join(slot.id),
            sector_number: join(slot.sector_number),
            seg: slot.seg,
        }
    }
}

impl From<RawRequest> for RawRequest32 {
    #[inline]
    fn from(slot: RawRequest) -> Self {
        Self {
            operation: slot.operation,
            nr_segments: slot.nr_segments,
            handle: slot.handle,
            id: split(slot.id),
            sector_number: split(slot.sector_number),
            seg: slot.seg,
        }
    }
}

impl From<RawDiscard> for RawRequest {
    fn from(form: RawDiscard) -> Self {
        widen(&form)
    }
}

impl From<RawIndirect> for RawRequest {
    fn from(form: RawIndirect) -> Self {
        widen(&form)
    }
}

/// A whole slot that begins with a shorter form.
fn widen<Form: Wire>(form: &Form) -> RawRequest {
    let mut slot = RawRequest::default();
    let slot_bytes = bytes_of_mut(&mut slot);
    for (into, from) in slot_bytes.iter_mut().zip(bytes_of(form)) {
        *into = *from;
    }
    slot
}

impl From<RawResponse32> for RawResponse {
    #[inline]
    fn from(slot: RawResponse32) -> Self {
        Self { id: join(slot.id), operation: slot.operation, pad0: 0, status: slot.status, pad1: 0 }
    }
}

impl From<RawResponse> for RawResponse32 {
    #[inline]
    fn from(slot: RawResponse) -> Self {
        Self { id: split(slot.id), operation: slot.operation, pad: 0, status: slot.status }
    }
}

impl RawResponse {
    /// The response to the request of this tag.
    #[inline]
    pub fn new(tag: Tag, status: Status) -> Self {
        Self {
            id: tag.id,
            operation: tag.operation,
            pad0: 0,
            status: status as i16 as u16,
            pad1: 0,
        }
    }

    /// Judges what a backend wrote. That the id belongs to a request, and one of this operation, only the frontend
    /// that keeps the requests can tell. A status that the header does not have is a failure like another.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] when there is no such operation.
    #[inline]
    pub fn check(&self) -> Result<Response, BadResponse> {
        match Operation::from_raw(self.operation) {
            Some(operation) if operation != Operation::Indirect => {
                let status = Status::from_raw(self.status as i16).unwrap_or(Status::Error);
                Ok(Response { id: self.id, operation, status })
            }
            _ => Err(BadResponse { id: self.id, operation: self.operation }),
        }
    }
}

/// A well-formed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// That of the request, if the backend is honest.
    pub id: u64,
    /// That of the request, if the backend is honest.
    pub operation: Operation,
    /// What became of it.
    pub status: Status,
}

/// A response that no backend may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse {
    /// The id in it.
    pub id: u64,
    /// The number of the operation in it.
    pub operation: u8,
}

impl core::fmt::Display for BadResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "response to id {:#x} with operation {}, which is none", self.id, self.operation)
    }
}

impl core::error::Error for BadResponse {}
