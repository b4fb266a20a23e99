// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Request/response rings (`io/ring.h`).
//!
//! One ring lies in 2^order shared pages: a header of 64 bytes, then as many slots as fit, rounded down to a power of
//! two. A slot holds a request until the backend writes a response into the same or another free slot: responses come
//! in any order, and the id in them says which request they answer. Indices run freely over 32 bits.
//!
//! ```text
//! offset   0         4          8         12         16       64
//!        | req_prod | req_event | rsp_prod | rsp_event | (pad) | slot 0 | slot 1 | …
//! ```
//!
//! The doorbell rings only when asked for: a consumer that is about to sleep writes into `*_event` the index whose
//! production it wants to hear of, and then looks once more; a producer publishes its index, and then looks whether it
//! passed `*_event`. A full barrier stands between the two steps on both sides, so one of them sees the other.

mod back;
mod front;
mod view;

pub use back::BackRing;
pub use front::FrontRing;
pub use view::View;

use core::mem::{align_of, size_of};

use crate::shared::{SharedMemory, Wire};

/// Offsets of the header's words.
pub mod header {
    /// Producer index of requests.
    pub const REQ_PROD: usize = 0;
    /// The backend wants the doorbell when `REQ_PROD` passes this.
    pub const REQ_EVENT: usize = 4;
    /// Producer index of responses.
    pub const RSP_PROD: usize = 8;
    /// The frontend wants the doorbell when `RSP_PROD` passes this.
    pub const RSP_EVENT: usize = 12;
    /// Length of the header; the first slot begins here.
    pub const LEN: usize = 64;
}

/// Largest `ring-page-order` that a Causeway ring uses: 16 pages.
pub const MAX_ORDER: u32 = 4;

/// Why a ring cannot go on. None of these is recoverable: the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The memory does not hold a header and one slot.
    TooSmall {
        /// Its length in bytes.
        len: usize,
    },
    /// The peer's producer index is ahead of what the ring can hold, or went backwards.
    Overflow {
        /// What the peer wrote.
        producer: u32,
        /// This side's consumer index.
        consumer: u32,
        /// How far the producer may be ahead of the consumer at this moment.
        limit: u32,
    },
    /// This side pushed more than the ring has room for (a mistake of the caller, not of the peer).
    Full,
}

impl core::fmt::Display for RingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooSmall { len } => write!(f, "{len} bytes hold no ring"),
            Self::Overflow { producer, consumer, limit } => write!(
                f,
                "the peer's producer index {producer} is not within {limit} of consumer index {consumer}"
            ),
            Self::Full => f.write_str("the ring is full"),
        }
    }
}

impl core::error::Error for RingError {}

/// Bytes of one slot: the union of a request and a response, as C lays it out.
pub const fn slot_len<Req: Wire, Rsp: Wire>() -> usize {
    let len = if size_of::<Req>() > size_of::<Rsp>() { size_of::<Req>() } else { size_of::<Rsp>() };
    let align =
        if align_of::<Req>() > align_of::<Rsp>() { align_of::<Req>() } else { align_of::<Rsp>() };
    len.div_ceil(align) * align
}

/// How many slots `len` bytes of ring hold (`__RING_SIZE`): a power of two, or `None` when not even one fits.
pub const fn slots<Req: Wire, Rsp: Wire>(len: usize) -> Option<u32> {
    let Some(room) = len.checked_sub(header::LEN) else { return None };
    let fit = room / slot_len::<Req, Rsp>();
    if fit == 0 || fit > 1 << 31 {
        return None;
    }
    Some(1 << fit.ilog2())
}

/// Where the slot of a free-running index begins.
#[inline]
fn slot_offset<Req: Wire, Rsp: Wire>(index: u32, mask: u32) -> usize {
    header::LEN + (index & mask) as usize * slot_len::<Req, Rsp>()
}

/// Publishes `new` after `old` at `producer` and says whether the peer asked (at `event`) for the doorbell.
#[inline]
fn publish<M: SharedMemory>(memory: &M, producer: usize, event: usize, old: u32, new: u32) -> bool {
    memory.publish(producer, new);
    new.wrapping_sub(memory.load(event)) < new.wrapping_sub(old)
}

/// How many slots ahead of the one in hand the cache lines are asked for. Of the largest slots these are eight lines,
/// and a core keeps about ten on their way.
const AHEAD: u32 = 4;

#[cfg(test)]
mod tests;
