// SPDX-License-Identifier: GPL-2.0

//! A request under way, and its end.

use core::sync::atomic::Ordering;

use block::bio::{self, BioBox, Owner};
use kernel::sync::Arc;
use ring_proto::blkif::{Request, RwOp, Status, Tag};
use xen::map::MappedPage;

use super::Shared;

/// What a request does, as its queue sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// A write that nothing overtakes, after a flush, and durable itself.
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

impl Kind {
    /// What the frontend asks for.
    pub(super) fn of(request: &Request) -> Self {
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

    /// Whether no other request of the queue may be under way at the same time.
    pub(super) fn exclusive(self) -> bool {
        matches!(self, Self::WriteBarrier | Self::FlushBarrier)
    }

    /// What the block layer is asked for.
    pub(super) fn operation(self) -> (bio::Operation, bio::Hints) {
        match self {
            Self::Read => (bio::Operation::Read, 0),
            Self::Write => (bio::Operation::Write, bio::SYNC | bio::IDLE),
            Self::WriteBarrier => (bio::Operation::Write, bio::SYNC | bio::PREFLUSH | bio::FUA),
            Self::FlushWrite => (bio::Operation::Write, bio::SYNC | bio::PREFLUSH),
            Self::Flush | Self::FlushBarrier => (bio::Operation::Write, bio::SYNC | bio::PREFLUSH),
            Self::Discard { secure: false } => (bio::Operation::Discard, 0),
            Self::Discard { secure: true } => (bio::Operation::SecureErase, 0),
        }
    }
}

/// Of a page that a grant table has no entry of: it is mapped for one request.
pub(super) const ONCE: u32 = u32::MAX;

/// What a queue keeps with a bio.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) tag: Tag,
    pub(super) kind: Kind,
    /// First sector of what is under way.
    pub(super) sector: u64,
    /// Sectors of a discard that are not under way yet.
    pub(super) rest: u64,
    /// What it will be answered with, as far as is known.
    pub(super) status: Status,
    /// Only the queue's thread can end it: pages have to be unmapped before the answer, or there is more to do.
    pub(super) by_thread: bool,
    /// The frontend has its answer.
    pub(super) answered: bool,
    /// It has room for the segments of an indirect request.
    pub(super) large: bool,
}

impl Job {
    /// A job without a request.
    pub(super) fn new(shared: Arc<Shared>, large: bool) -> Self {
        Self {
            shared,
            tag: Tag { id: 0, operation: 0 },
            kind: Kind::Read,
            sector: 0,
            rest: 0,
            status: Status::Okay,
            by_thread: false,
            answered: false,
            large,
        }
    }

    /// Takes a request up.
    pub(super) fn begin(&mut self, tag: Tag, kind: Kind, sector: u64) {
        self.tag = tag;
        self.kind = kind;
        self.sector = sector;
        self.rest = 0;
        self.status = Status::Okay;
        self.by_thread = false;
        self.answered = false;
    }
}

impl Owner for Job {
    /// A page, and its entry in the table of grants that stay mapped, or [`ONCE`].
    type Page = (MappedPage, u32);

    /// In whatever context the disk is done: the answer is given here if it can be, without waking anyone.
    fn completed(mut bio: BioBox<Self>) {
        let result = bio.status();
        let job = bio.as_mut().data_mut();
        let shared = job.shared.clone();
        if !result.is_ok() {
            job.status =
                if result.is_not_supported() { Status::NotSupported } else { Status::Error };
        }
        let by_thread = job.by_thread;
        if !by_thread {
            job.answered = true;
            shared.answer(job.tag, job.status, job.large);
        }
        let first = shared.finished.push(bio);
        if by_thread || first && shared.waits.load(Ordering::SeqCst) {
            shared.parker.wake();
        }
    }
}
