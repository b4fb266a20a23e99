// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;

/// Which way a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// What a [`Job`](super::Job) runs over: one thread's way to a disk, with a number of blocks in flight.
///
/// Each block in flight has a slot, numbered from 0, with memory of its own. None of the calls after
/// [`prepare`](Self::prepare) allocates.
pub trait Target {
    /// Bytes on the disk.
    fn capacity(&self) -> u64;

    /// Gets ready for blocks of `block` bytes in slots `0..depth`.
    ///
    /// # Errors
    ///
    /// When there is not as much memory, or the disk does not take such blocks.
    fn prepare(&mut self, depth: usize, block: usize) -> io::Result<()>;

    /// Puts `data`, of a block's length, into a slot.
    fn fill(&mut self, slot: usize, data: &[u8]);

    /// Gets what is in a slot, of a block's length.
    fn fetch(&mut self, slot: usize, data: &mut [u8]);

    /// Asks for the block of a slot to go to, or come from, byte `offset` of the disk.
    ///
    /// # Errors
    ///
    /// When the disk takes nothing any more.
    fn submit(&mut self, slot: usize, direction: Direction, offset: u64) -> io::Result<()>;

    /// Sets all that was submitted going, and waits until at least one block in flight is done, if there is one.
    /// Tells `done` the slot of each, and what became of it.
    ///
    /// # Errors
    ///
    /// When the disk takes nothing any more.
    fn complete(&mut self, done: &mut impl FnMut(usize, io::Result<()>)) -> io::Result<()>;
}
