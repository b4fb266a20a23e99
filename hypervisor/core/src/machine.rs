// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the embedder brings: frames, their contents, and a way to interrupt a domain.

use core::fmt;

pub use ring_proto::shared::PAGE_SIZE;
use ring_proto::xen::{DomId, Port};

/// Number of a guest-physical frame of one domain. From a guest it is an allegation, until looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

/// Number of a frame of the machine. The embedder hands them out ([`Machine::allocate`]); no two frames in use share
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mfn(pub u64);

impl Mfn {
    /// The frame's address (`mfn_to_maddr`), as a grant mapping's `dev_bus_addr` tells it.
    pub const fn address(self) -> u64 {
        self.0.wrapping_mul(PAGE_SIZE as u64)
    }
}

impl fmt::Display for Gfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gfn {:#x}", self.0)
    }
}

impl fmt::Display for Mfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mfn {:#x}", self.0)
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameUse {
    /// Memory of the domain at this place. Only such a frame can be granted.
    Memory(Gfn),
    /// This page of the domain's grant table.
    GrantTable(u32),
    /// This page of the status words of the domain's grant table (version 2).
    GrantStatus(u32),
    /// The domain's shared information page.
    SharedInfo,
}

/// The machine below the hypervisor.
///
/// Frames passed in came from [`allocate`](Self::allocate) and were not yet freed. Offsets are in bytes and inside the
/// frame; those of words are multiples of four. Guests may write all frames at any moment, so an implementation
/// reaches them through `ring_proto::shared` or atomics. Words are little-endian, as on every machine that this
/// project runs on.
pub trait Machine {
    /// A zeroed frame for this domain and purpose, or `None` when there is none left.
    fn allocate(&mut self, owner: DomId, usage: FrameUse) -> Option<Mfn>;

    /// Takes back a frame. Nobody maps it any more; its contents were zeroed.
    fn free(&mut self, mfn: Mfn);

    /// Reads a word, and acquires what was written before it.
    fn load(&self, mfn: Mfn, offset: usize) -> u32;

    /// Writes a word, and releases what was written before it.
    fn store(&self, mfn: Mfn, offset: usize, value: u32);

    /// Replaces a word if it is `old`, as one step and a full barrier. Returns what was there: `Ok` if replaced.
    ///
    /// # Errors
    ///
    /// What is there, when it is not `old`.
    fn compare_exchange(&self, mfn: Mfn, offset: usize, old: u32, new: u32) -> Result<u32, u32>;

    /// Sets bits of a word, as one step and a full barrier. Returns what was there.
    fn fetch_or(&self, mfn: Mfn, offset: usize, bits: u32) -> u32;

    /// Keeps only `bits` of a word, as one step and a full barrier. Returns what was there.
    fn fetch_and(&self, mfn: Mfn, offset: usize, bits: u32) -> u32;

    /// Copies `len` bytes from one frame to another (or within one, then the ranges may overlap).
    fn copy(&self, source: (Mfn, usize), dest: (Mfn, usize), len: usize);

    /// Fills a frame with zeroes.
    fn zero(&self, mfn: Mfn);

    /// Rings the doorbell of a port of a domain whose events the embedder delivers ([`DomainKind::Process`]).
    ///
    /// [`DomainKind::Process`]: crate::DomainKind::Process
    fn ring(&mut self, domain: DomId, port: Port);

    /// Interrupts a virtual CPU: events are pending in its shared pages.
    fn upcall(&mut self, domain: DomId, vcpu: u32);

    /// Puts a frame into a domain's guest-physical memory, or takes away what was there (`None`); then nothing reaches
    /// that frame by way of this place any more once the call returns. Not told are the frames of memory that a domain
    /// is created with, and what a process maps.
    fn remap(&mut self, domain: DomId, gfn: Gfn, frame: Option<(Mfn, Writable)>) {
        let _ = (domain, gfn, frame);
    }
}

/// Whether a guest may write a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// It may.
    Yes,
    /// It may only read.
    No,
}
