// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! libxenvchan's channel between two domains (`io/libxenvchan.h`).
//!
//! The server shares one page of control, and, unless both buffers fit in that page, the pages of the buffers. The
//! page says how large they are and lists their grants, `left` (client to server) first:
//!
//! ```text
//! offset   0        8         16            20          22            24       1024 (order 10)  2048 (order 11)
//!        | left   | right   | orders      | live      | notify      | grants … | small buffer … | large buffer … |
//!        | con,pro| con,pro | left, right | cli, srv  | cli, srv    |
//! ```
//!
//! The doorbell rings only when asked for: an end that finds too little data (or room) sets a bit in the other's
//! `notify`, and then looks once more; an end that moved an index clears the bit, and rings if it was set.

mod end;
mod orders;
#[cfg(test)]
mod tests;

pub use end::{Live, Role, Transfer, Vchan};
pub use orders::Orders;

use crate::stream::StreamError;

/// Offset of `left`: the consumer's index, then the producer's.
pub const LEFT: usize = 0;
/// Offset of `right`.
pub const RIGHT: usize = 8;
/// Offset of `left_order`, two bytes.
pub const LEFT_ORDER: usize = 16;
/// Offset of `right_order`, two bytes.
pub const RIGHT_ORDER: usize = 18;
/// Offset of `cli_live`, one byte.
pub const CLI_LIVE: usize = 20;
/// Offset of `srv_live`, one byte.
pub const SRV_LIVE: usize = 21;
/// Offset of `cli_notify`, one byte: what the client shall tell the server of.
pub const CLI_NOTIFY: usize = 22;
/// Offset of `srv_notify`, one byte: what the server shall tell the client of.
pub const SRV_NOTIFY: usize = 23;
/// Offset of the grants, four bytes each.
pub const GRANTS: usize = 24;

/// Key below the channel's path in xenstore, written by the server: grant of the control page.
pub const KEY_RING_REF: &str = "ring-ref";
/// Key below the channel's path in xenstore, written by the server: its unbound port.
pub const KEY_EVENT_CHANNEL: &str = "event-channel";

/// Bit of `notify`: ring when data was written (`VCHAN_NOTIFY_WRITE`).
pub const NOTIFY_WRITE: u8 = 1;
/// Bit of `notify`: ring when data was read (`VCHAN_NOTIFY_READ`).
pub const NOTIFY_READ: u8 = 2;

/// Order of the buffer at offset 1024 of the control page.
pub const SMALL_ORDER: u16 = 10;
/// Order of the buffer at offset 2048 of the control page.
pub const LARGE_ORDER: u16 = 11;
/// Order from which on a buffer has pages of its own.
pub const PAGE_ORDER: u16 = 12;
/// Largest order that libxenvchan accepts: 256 pages.
pub const MAX_ORDER: u16 = 20;

/// Why a channel cannot be set up or go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VchanError {
    /// No such pair of buffers is possible.
    Orders {
        /// Order of the buffer from client to server.
        left: u16,
        /// Order of the buffer from server to client.
        right: u16,
    },
    /// The server listed another number of pages than its buffers have (a mistake of the caller).
    Grants {
        /// How many.
        given: usize,
        /// How many there have to be.
        wanted: usize,
    },
    /// An index is wrong.
    Stream(StreamError),
    /// The peer writes the notification bits without pause.
    Notify,
}

impl core::fmt::Display for VchanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Orders { left, right } => {
                write!(f, "orders {left} (left) and {right} (right) are no channel")
            }
            Self::Grants { given, wanted } => {
                write!(f, "{given} grants for buffers of {wanted} pages")
            }
            Self::Stream(error) => error.fmt(f),
            Self::Notify => f.write_str("the peer writes the notification bits without pause"),
        }
    }
}

impl core::error::Error for VchanError {}

impl From<StreamError> for VchanError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}
