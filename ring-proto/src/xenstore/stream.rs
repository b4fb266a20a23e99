// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The two ends of a domain's page of the store. Whoever moved an index rings the doorbell.

use super::interface::{REQ, REQ_CONS, REQ_PROD, RING_LEN, RSP, RSP_CONS, RSP_PROD};
use crate::shared::SharedMemory;
use crate::stream::{Duplex, Layout, StreamError};

/// Requests, from the domain to the store.
pub const REQUESTS: Layout =
    Layout { prod: REQ_PROD, cons: REQ_CONS, data: REQ, size: RING_LEN as u32 };

/// Replies and watch events, from the store to the domain.
pub const REPLIES: Layout =
    Layout { prod: RSP_PROD, cons: RSP_CONS, data: RSP, size: RING_LEN as u32 };

/// The domain's end of the page.
///
/// # Errors
///
/// [`StreamError`], when the memory is too short or the indices in it contradict each other.
pub fn domain<M: SharedMemory + Clone>(page: M) -> Result<Duplex<M, M>, StreamError> {
    Duplex::attach(page, REPLIES, REQUESTS)
}

/// The store's end of the page.
///
/// # Errors
///
/// As [`domain`].
pub fn server<M: SharedMemory + Clone>(page: M) -> Result<Duplex<M, M>, StreamError> {
    Duplex::attach(page, REQUESTS, REPLIES)
}
