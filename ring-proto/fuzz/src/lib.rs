// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! What a hostile peer may do to `ring-proto`, one function for each thing that a peer can write.
//!
//! Each function takes the fuzzer's bytes and plays both this side, by calling the crate in any order that its
//! documentation allows, and the peer, by writing anything anywhere in the shared pages between any two accesses
//! ([`memory::Hostile`]). It must not panic; what it hands out must be within what its types promise.

pub mod blkif;
pub mod memory;
pub mod netif;
pub mod ring;
pub mod stream;
pub mod vchan;
pub mod xenbus;
pub mod xenstore;
