// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of one request between the ring and the disk.
//!
//! ```text
//! taken ─▶ judged ─▶ (waits for limits, a barrier, memory) ─▶ stage ─▶ … ─▶ stage ─▶ answered
//! ```
//!
//! Most requests have one stage, the transfer. A barrier has three: what was written before it becomes durable, it is
//! written, and it becomes durable itself.

use ring_proto::blkif::{Operation, Request, RwOp, SECTOR_SIZE, Segment, Status, Tag};

use crate::journal::Entry;
use crate::pages::Place;

/// What a request does, as its queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write that nothing overtakes, durable before and after.
    WriteBarrier,
    /// A write after a flush.
    FlushWrite,
    Flush,
    /// A flush that nothing overtakes.
    FlushBarrier,
    Discard {
        secure: bool,
    },
}

/// One operation on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    SyncBefore,
    Transfer,
    SyncAfter,
    Discard,
}

impl Kind {
    /// What the frontend asks for.
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Rw(rw) => match rw.op {
                RwOp::Read => Self::Read,
                RwOp::Write => Self::Write,
                RwOp::WriteBarrier => Self::WriteBarrier,
                RwOp::FlushWrite => Self::FlushWrite,
            },
            Request::Flush { barrier: false, .. } => Self::Flush,
            Request::Flush { barrier: true, .. } => Self::FlushBarrier,
            Request::Discard(discard) => Self::Discard { secure: discard.secure },
        }
    }

    /// The first stage.
    pub(crate) fn first(self) -> Stage {
        match self {
            Self::Read | Self::Write => Stage::Transfer,
            Self::WriteBarrier | Self::FlushWrite | Self::Flush | Self::FlushBarrier => {
                Stage::SyncBefore
            }
            Self::Discard { .. } => Stage::Discard,
        }
    }

    /// The stage after one, if the request is not done.
    pub(crate) fn after(self, stage: Stage) -> Option<Stage> {
        match (self, stage) {
            (Self::WriteBarrier | Self::FlushWrite, Stage::SyncBefore) => Some(Stage::Transfer),
            (Self::WriteBarrier, Stage::Transfer) => Some(Stage::SyncAfter),
            _ => None,
        }
    }

    /// Whether no other request of the queue may be under way at the same time.
    pub(crate) fn exclusive(self) -> bool {
        matches!(self, Self::WriteBarrier | Self::FlushBarrier)
    }

    /// Whether data goes from memory to the disk.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WriteBarrier | Self::FlushWrite)
    }
}

/// A request that was judged and is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) tag: Tag,
    pub(crate) kind: Kind,
    /// First byte on the disk.
    pub(crate) offset: u64,
    /// Number of bytes, as summed up by the checks.
    pub(crate) len: u64,
    /// When it was taken from the ring, in nanoseconds of the queue's clock.
    pub(crate) taken_at: u64,
    /// Whether the disk's limits have its price already.
    pub(crate) paid: bool,
    /// Where the journal has it, if there is one.
    pub(crate) entry: Option<Entry>,
}

impl Job {
    /// Number of sectors of 512 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        self.len / SECTOR_SIZE as u64
    }
}

/// A segment of a request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) segment: Segment,
    pub(crate) place: Place,
}

/// A request under way. Slots are used again, and keep the room of `placed`.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) job: Job,
    pub(crate) stage: Stage,
    /// Bytes transferred so far.
    pub(crate) done: u64,
    /// What it will be answered with, as far as is known.
    pub(crate) status: Status,
    pub(crate) placed: Vec<Placed>,
}

impl Default for Slot {
    fn default() -> Self {
        let tag = Tag { id: 0, operation: Operation::Read as u8 };
        let job =
            Job { tag, kind: Kind::Read, offset: 0, len: 0, taken_at: 0, paid: false, entry: None };
        Self { job, stage: Stage::Transfer, done: 0, status: Status::Okay, placed: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(kind: Kind) -> Vec<Stage> {
        std::iter::successors(Some(kind.first()), |stage| kind.after(*stage)).collect()
    }

    #[test]
    fn each_kind_goes_through_its_stages() {
        use Stage::{SyncAfter, SyncBefore, Transfer};
        assert_eq!(stages(Kind::Read), [Transfer]);
        assert_eq!(stages(Kind::Write), [Transfer]);
        assert_eq!(stages(Kind::WriteBarrier), [SyncBefore, Transfer, SyncAfter]);
        assert_eq!(stages(Kind::FlushWrite), [SyncBefore, Transfer]);
        assert_eq!(stages(Kind::Flush), [SyncBefore]);
        assert_eq!(stages(Kind::FlushBarrier), [SyncBefore]);
        assert_eq!(stages(Kind::Discard { secure: false }), [Stage::Discard]);
    }
}
