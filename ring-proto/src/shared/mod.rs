// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Memory that a peer may read and write at any moment.
//!
//! The rules, stated once:
//!
//! * A value is read **once**, into private memory, and judged there. Nothing is read twice in the hope that it stayed.
//! * No reference into shared memory exists, ever: it is reached through [`SharedMemory`], by offset.
//! * Each access is one that the compiler can neither split, repeat nor drop.
//! * An offset outside the memory reads as zero and writes nothing. The engines never use one (a debug build says so),
//!   and a release build must not fault because of a mistake here.
//!
//! All `unsafe` of the crate is in this module.
#![allow(unsafe_code)]

mod copy;
mod pages;
mod region;
mod wire;

pub use pages::Pages;
pub use region::{AsRegion, Region};
pub use wire::{bytes_of, bytes_of_mut, from_bytes, zeroed, Wire};

/// Size of a page of the ring protocols in bytes, on every architecture (`XEN_PAGE_SIZE`).
pub const PAGE_SIZE: usize = 4096;

/// Memory shared with a peer.
///
/// Implemented by [`Region`], [`Pages`] and owners ([`AsRegion`]) of real memory, and by models of it in tests. Offsets are in bytes; those
/// of the `u32` operations are multiples of four.
pub trait SharedMemory {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether it has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a word, with no order towards other accesses.
    fn load(&self, offset: usize) -> u32;

    /// Reads a word; what the peer wrote before it released that value is visible afterwards.
    fn load_acquire(&self, offset: usize) -> u32;

    /// Writes a word, with no order towards other accesses.
    fn store(&self, offset: usize, value: u32);

    /// Writes a word; a peer that acquires it sees all that was written before.
    fn store_release(&self, offset: usize, value: u32);

    /// [`store_release`](Self::store_release), then a full barrier: no later access is done before the peer can see
    /// the word. This is one half of the bargain "I publish, then look whether you sleep; you say that you sleep, then
    /// look whether I published".
    fn publish(&self, offset: usize, value: u32);

    /// Replaces a word if it is `old`, as one step and a full barrier. Returns what was there: `Ok` if replaced.
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32>;

    /// Copies from shared memory, without order.
    fn copy_out(&self, offset: usize, into: &mut [u8]);

    /// Copies to shared memory, without order.
    fn copy_in(&self, offset: usize, from: &[u8]);

    /// Copies a structure out, without order.
    #[inline]
    fn read<T: Wire>(&self, offset: usize) -> T
    where
        Self: Sized,
    {
        let mut value = zeroed::<T>();
        self.copy_out(offset, bytes_of_mut(&mut value));
        value
    }

    /// Copies a structure in, without order.
    #[inline]
    fn write<T: Wire>(&self, offset: usize, value: &T)
    where
        Self: Sized,
    {
        self.copy_in(offset, bytes_of(value));
    }

    /// Says that `len` bytes will be written soon, so that they may be fetched ahead. A hint that changes nothing.
    #[inline]
    fn will_write(&self, _offset: usize, _len: usize) {}
}

#[cfg(test)]
mod tests;
