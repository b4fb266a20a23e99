// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use ring_proto::blkif::{BadResponse, Operation};
use ring_proto::ring::RingError;
use ring_proto::xenbus;

/// Why a disk, or one operation on it, failed. Cheap to copy: every operation outstanding gets the disk's reason.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The hypervisor or xenstore refused, or is gone.
    #[error("{what}: {reason}")]
    Host {
        /// What was tried.
        what: Arc<str>,
        /// Why it failed.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What stands in xenstore is not legal.
    #[error("{directory}: {error}")]
    Key {
        /// The directory of the device.
        directory: Arc<str>,
        /// The key and what is wrong with it.
        error: Arc<xenbus::KeyError>,
    },
    /// No backend connected in time.
    #[error("no backend for {directory} within {:.1} s (it is {state})", waited.as_secs_f64())]
    NoBackend {
        /// The backend's directory.
        directory: Arc<str>,
        /// Its state at the end.
        state: xenbus::State,
        /// How long was waited.
        waited: Duration,
    },
    /// The backend came back with less than the disk's owner uses already.
    #[error("the backend came back with {offered} queues, and {used} are in use")]
    FewerQueues {
        /// What it offers now.
        offered: u32,
        /// What the disk was connected with.
        used: u32,
    },
    /// The toolstack took the disk away.
    #[error("the disk was removed")]
    Removed,
    /// The disk was closed by its owner.
    #[error("the disk is closed")]
    Closed,
    /// The backend broke the protocol. The disk takes no more operations.
    #[error("queue {queue}: the backend cannot be trusted: {breach}")]
    Breach {
        /// Which queue.
        queue: usize,
        /// What it did.
        breach: Breach,
    },
    /// The backend could not do the operation.
    #[error("{operation} failed at the backend")]
    Io {
        /// The operation.
        operation: Operation,
    },
    /// The backend does not have the operation.
    #[error("the backend has no {operation}")]
    Unsupported {
        /// The operation.
        operation: Operation,
    },
    /// The operation reaches beyond the disk's end, perhaps because the disk shrank.
    #[error("{count} sectors from {sector} reach beyond the disk's {capacity}")]
    BeyondEnd {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Sectors of the disk.
        capacity: u64,
    },
    /// The operation is not made of whole logical sectors, or has none.
    #[error("{count} sectors from {sector} are not whole sectors of {logical} bytes")]
    Unaligned {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Bytes of a logical sector.
        logical: u32,
    },
    /// A barrier has to fit one request.
    #[error("a barrier of {count} sectors does not fit one request")]
    LongBarrier {
        /// Number of sectors.
        count: u64,
    },
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// As many operations as a queue holds are outstanding, or its buffers are used up: complete some first.
    #[error("the queue has no room for more")]
    Full,
}

/// How a backend broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// It answered what was not asked, or answered twice.
    #[error("it answered id {id:#x}, which is not outstanding")]
    UnknownId {
        /// The id in its response.
        id: u64,
    },
    /// It answered with another operation than was asked.
    #[error("it answered id {id:#x} as a {answered}, which was a {asked}")]
    WrongOperation {
        /// The id in its response.
        id: u64,
        /// What was asked.
        asked: Operation,
        /// What it answered.
        answered: Operation,
    },
    /// It answered with what is no response at all.
    #[error("{0}")]
    Response(BadResponse),
    /// Its index is not possible.
    #[error("{0}")]
    Ring(RingError),
}

impl Error {
    /// A failure of the hypervisor or of xenstore.
    pub(crate) fn host(
        what: impl Into<Arc<str>>,
        reason: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Host { what: what.into(), reason: Arc::new(reason) }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::ReadOnly => ErrorKind::ReadOnlyFilesystem,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::BeyondEnd { .. } | Error::Unaligned { .. } | Error::LongBarrier { .. } => {
                ErrorKind::InvalidInput
            }
            Error::NoBackend { .. } => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
