// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Xen's ring protocols, written once for every driver and daemon of Causeway.
//!
//! Two domains that trust each other in nothing share some pages and a doorbell. This crate is all they have to agree
//! on: how the pages are laid out, when an index may move, when the doorbell must ring, what a legal request is, and
//! how both sides find each other in xenstore. It performs no I/O, allocates nothing and never panics on what a peer
//! wrote.
//!
//! # Principles
//!
//! 1. **Every peer is hostile.** Shared memory is read once, copied out, then checked. A checked value has another
//!    type than the raw one.
//! 2. **Private indices stay private.** What this side has produced and consumed is never read back from a shared page.
//! 3. **`unsafe` is fenced.** It stands in [`shared`] and nowhere else.
//! 4. **The Xen ABI is the contract.** Names, values and offsets are those of `xen/include/public`.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | [`shared`] | access to memory that a peer may write at any time |
//! | [`ring`] | request/response rings, front and back end |
//! | [`blkif`] | block requests and responses, and which are legal |
//! | [`netif`] | network packets as chains of slots, and the control ring |
//! | [`stream`] | byte streams through shared memory, the flexible ring among them |
//! | [`console`] | the page of a domain's console |
//! | [`vchan`] | libxenvchan's channel between two domains |
//! | [`xen`] | domain ids, grant references, ports, error numbers, the structures of grants and event channels |
//! | [`xenstore`] | the store's messages, paths and permissions |
//! | [`xenbus`] | the handshake: states, the keys of `vbd` and `vif`, and what both ends make of them |
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod blkif;
pub mod console;
pub mod netif;
pub mod ring;
pub mod shared;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod vchan;
pub mod xen;
pub mod xenbus;
pub mod xenstore;
