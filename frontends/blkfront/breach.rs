// SPDX-License-Identifier: GPL-2.0

//! How a backend breaks the protocol.

use core::fmt;

use ring_proto::blkif::{BadResponse, Operation};
use ring_proto::ring::RingError;

/// Something that no backend may do. The disk takes no more requests then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Breach {
    /// It answered what was not asked, or answered twice.
    UnknownId { id: u64 },
    /// It answered with another operation than was asked.
    WrongOperation { id: u64, asked: Operation, answered: Operation },
    /// It answered with what is no response at all.
    Response(BadResponse),
    /// Its index is not possible.
    Ring(RingError),
    /// It answered, and still has the memory mapped.
    StillMapped { id: u64 },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownId { id } => write!(f, "it answered id {id:#x}, which is not outstanding"),
            Self::WrongOperation { id, asked, answered } => {
                write!(f, "it answered id {id:#x} as a {answered}, which was a {asked}")
            }
            Self::Response(bad) => bad.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::StillMapped { id } => {
                write!(f, "it answered id {id:#x} before it let go of the memory")
            }
        }
    }
}
