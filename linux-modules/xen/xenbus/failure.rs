// SPDX-License-Identifier: GPL-2.0

//! Why a device cannot go on.

use core::fmt;

use kernel::alloc::AllocError;
use kernel::prelude::*;
use ring_proto::xenbus::{self, KeyError, PeerError};

/// Why a device cannot go on: what every driver meets, and what only one of this type does.
pub enum Failure<T> {
    /// The kernel said so.
    Kernel(Error),
    /// A key of xenstore is not legal.
    Key(KeyError),
    /// The other end is in a state that it cannot have come to.
    Peer(PeerError),
    /// The driver knows.
    Own(T),
}

impl<T: fmt::Display> fmt::Display for Failure<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "error {}", error.to_errno()),
            Self::Key(error) => error.fmt(f),
            Self::Peer(error) => error.fmt(f),
            Self::Own(failure) => failure.fmt(f),
        }
    }
}

impl<T> From<Error> for Failure<T> {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl<T> From<AllocError> for Failure<T> {
    fn from(error: AllocError) -> Self {
        Self::Kernel(error.into())
    }
}

impl<T> From<KeyError> for Failure<T> {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl<T> From<PeerError> for Failure<T> {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl<T> From<xenbus::Error<Error>> for Failure<T> {
    fn from(error: xenbus::Error<Error>) -> Self {
        match error {
            xenbus::Error::Store(error) => Self::Kernel(error),
            xenbus::Error::Key(error) => Self::Key(error),
        }
    }
}
