// SPDX-License-Identifier: MIT OR Apache-2.0

//! A hypervisor as pure logic: domains, grant tables, event channels, hypercalls.
//!
//! [`Hypervisor`] is all that a hypervisor with the Xen ABI decides, and nothing of what it does to a machine. Whoever
//! embeds it brings a [`Machine`]: frames and their contents, and a way to interrupt a domain. Bare metal backs a frame
//! with physical memory; the hosted mode with a page of a memfd; a test with a vector.
//!
//! # Principles
//!
//! 1. **The Xen ABI is the contract.** An operation takes, returns and refuses what Xen does to a PVH guest, with the
//!    same error codes. Where this crate is stricter, the function's documentation says so.
//! 2. **Guests write at any moment.** A grant entry, an event word or an argument is read once, then judged. A grant is
//!    pinned by compare-and-exchange on the very word that was judged. What a guest wrote never leads to a panic.
//! 3. **A frame outlives its owner** for as long as somebody maps it, and is zeroed before it is used again.
//! 4. **One caller at a time.** Operations take `&mut self`; the embedder serialises them. What needs no hypercall (the
//!    rings, the grant entries, the doorbells of the hosted mode) needs no lock either.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | [`machine`] | what the embedder brings: [`Machine`], and the memory terms [`Gfn`] and [`Mfn`] |
//! | [`frame`] | every frame in use: owner, purpose, reference counts |
//! | [`domain`] | a domain, how it comes and goes, its guest-physical memory |
//! | [`grant`] | grant tables: map, unmap, copy, sizes, versions |
//! | [`hypercall`] | from a hypercall's registers and structures to the operations above |
//! | [`event`] | event channels: the ports, and the 2-level and FIFO ways to deliver |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod domain;
pub mod event;
pub mod frame;
pub mod grant;
pub mod hypercall;
pub mod machine;

pub use domain::{Departure, DomainConfig, DomainKind, Hypervisor};
pub use machine::{FrameUse, Gfn, Machine, Mfn, PAGE_SIZE};

#[cfg(test)]
mod model;
#[cfg(test)]
mod ram;
