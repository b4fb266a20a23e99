// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The page that a domain shares with the store (`struct xenstore_domain_interface`): one byte stream each way.
//!
//! All are offsets in bytes from the start of the page. The indices run freely over 32 bits.

/// Bytes of each ring (`XENSTORE_RING_SIZE`).
pub const RING_LEN: usize = 1024;
/// Requests, written by the domain.
pub const REQ: usize = 0;
/// Replies and watch events, written by the store.
pub const RSP: usize = RING_LEN;
/// Consumer index of requests, the store's.
pub const REQ_CONS: usize = 2048;
/// Producer index of requests, the domain's.
pub const REQ_PROD: usize = 2052;
/// Consumer index of replies, the domain's.
pub const RSP_CONS: usize = 2056;
/// Producer index of replies, the store's.
pub const RSP_PROD: usize = 2060;
/// What the store can do, a set of `SERVER_FEATURE_*`.
pub const SERVER_FEATURES: usize = 2064;
/// [`CONNECTED`] or [`RECONNECT`].
pub const CONNECTION: usize = 2068;
/// Why the store gave up on the connection, one of `ERROR_*`.
pub const ERROR: usize = 2072;
/// Bytes of the structure.
pub const LEN: usize = 2076;

/// The domain may ask for a new connection (`XENSTORE_SERVER_FEATURE_RECONNECTION`).
pub const SERVER_FEATURE_RECONNECTION: u32 = 1;
/// The page has [`ERROR`] (`XENSTORE_SERVER_FEATURE_ERROR`).
pub const SERVER_FEATURE_ERROR: u32 = 2;

/// The steady state of [`CONNECTION`] (`XENSTORE_CONNECTED`).
pub const CONNECTED: u32 = 0;
/// The domain asked for a new connection, or the store is about to make one (`XENSTORE_RECONNECT`).
pub const RECONNECT: u32 = 1;

/// No error (`XENSTORE_ERROR_NONE`).
pub const ERROR_NONE: u32 = 0;
/// The ring does not work (`XENSTORE_ERROR_COMM`).
pub const ERROR_COMM: u32 = 1;
/// An index is not legal (`XENSTORE_ERROR_RINGIDX`).
pub const ERROR_RINGIDX: u32 = 2;
/// A message is not legal (`XENSTORE_ERROR_PROTO`).
pub const ERROR_PROTO: u32 = 3;
