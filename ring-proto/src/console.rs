// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! A domain's console (`io/console.h`): one page, in which the console daemon is the backend.
//!
//! Whoever moved an index rings the doorbell.

use crate::shared::SharedMemory;
use crate::stream::{Duplex, Layout, StreamError};

/// Input, to the domain.
pub const IN: Layout = Layout { prod: 3076, cons: 3072, data: 0, size: 1024 };

/// Output, from the domain.
pub const OUT: Layout = Layout { prod: 3084, cons: 3080, data: 1024, size: 2048 };

/// Bytes of `struct xencons_interface`.
pub const LEN: usize = 3088;

/// The domain's side: it reads the input and writes the output.
///
/// # Errors
///
/// [`StreamError`], when the memory is shorter than [`LEN`] or the indices in it contradict each other.
pub fn frontend<M: SharedMemory + Clone>(page: M) -> Result<Duplex<M, M>, StreamError> {
    Duplex::attach(page, IN, OUT)
}

/// The daemon's side: it reads the output and writes the input.
///
/// # Errors
///
/// As [`frontend`].
pub fn backend<M: SharedMemory + Clone>(page: M) -> Result<Duplex<M, M>, StreamError> {
    Duplex::attach(page, OUT, IN)
}
