// SPDX-License-Identifier: GPL-2.0

//! A request of the block layer, and how far it is.

use block::mq::{self, Request, Status};
use ring_proto::blkif::{self, SECTOR_SIZE};
use ring_proto::shared::PAGE_SIZE;

use crate::disk::Queues;

/// What is still to be asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Read the rest.
    Read,
    /// Write the rest, and flush then if it has to be durable.
    Write { durable: bool },
    /// Flush.
    Flush,
    /// Discard.
    Discard { secure: bool },
}

/// A request that was taken from the block layer. Usually one request to the backend answers it; what is more than one
/// can carry is asked for part by part.
pub(crate) struct Task {
    /// It is asked for in this order, also when it is sent anew.
    pub(crate) order: u64,
    pub(crate) ask: Ask,
    /// Bytes that are done.
    pub(crate) done: u32,
    /// Bytes of the part that the backend was asked for.
    pub(crate) part: u32,
    /// First sector, and length in bytes.
    pub(crate) sector: u64,
    pub(crate) len: u32,
}

impl Task {
    /// `None` when the backend has nothing like it.
    pub(crate) fn of(request: &Request<Queues>, order: u64) -> Option<Self> {
        let ask = match request.operation() {
            mq::Operation::Read => Ask::Read,
            mq::Operation::Write => Ask::Write { durable: request.is_fua() },
            mq::Operation::Flush => Ask::Flush,
            mq::Operation::Discard => Ask::Discard { secure: false },
            mq::Operation::SecureErase => Ask::Discard { secure: true },
            mq::Operation::Other(_) => return None,
        };
        Some(Self { order, ask, done: 0, part: 0, sector: request.sector(), len: request.len() })
    }

    /// Bytes that are not done.
    pub(crate) fn left(&self) -> u32 {
        self.len.saturating_sub(self.done)
    }

    /// Where on the disk the next part begins.
    pub(crate) fn at(&self) -> u64 {
        self.sector.wrapping_add(u64::from(self.done) / SECTOR_SIZE as u64)
    }

    /// How many pages the rest takes when it is packed.
    pub(crate) fn pages_left(&self) -> usize {
        (self.left() as usize).div_ceil(PAGE_SIZE)
    }

    /// Takes note of the backend's answer. `None` when there is more to ask for.
    pub(crate) fn answered(
        &mut self,
        asked: blkif::Operation,
        status: blkif::Status,
    ) -> Option<Status> {
        use blkif::Operation as Asked;
        match (status, self.ask) {
            (blkif::Status::Okay, Ask::Read) => {
                self.done = self.done.saturating_add(self.part);
                (self.left() == 0).then_some(Status::OK)
            }
            (blkif::Status::Okay, Ask::Write { durable }) => {
                self.done = self.done.saturating_add(self.part);
                match self.left() {
                    0 if durable && asked != Asked::WriteBarrier => {
                        self.ask = Ask::Flush;
                        None
                    }
                    0 => Some(Status::OK),
                    _ => None,
                }
            }
            (blkif::Status::Okay, _) => Some(Status::OK),
            (blkif::Status::NotSupported, Ask::Discard { .. }) => Some(Status::NOT_SUPPORTED),
            // The backend takes back what it offered. Nothing of the data was written: it goes once more, without.
            (blkif::Status::NotSupported, Ask::Write { .. }) if asked == Asked::WriteBarrier => {
                None
            }
            // There is no cache to be flushed, then.
            (blkif::Status::NotSupported, Ask::Flush) => Some(Status::OK),
            _ => Some(Status::IO_ERROR),
        }
    }
}
