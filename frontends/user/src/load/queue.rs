// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;

use super::{Direction, Target};
use crate::{Buffer, Operation, Queue, SECTOR_SIZE};

/// A disk's queue as the target of a job.
#[derive(Debug)]
pub struct QueueTarget<'a> {
    queue: &'a mut Queue,
    buffers: Vec<Buffer>,
}

impl<'a> QueueTarget<'a> {
    /// Jobs run over this queue, on which nothing else is outstanding.
    pub fn new(queue: &'a mut Queue) -> Self {
        Self { queue, buffers: Vec::new() }
    }

    fn release(&mut self) {
        self.buffers.drain(..).for_each(|buffer| self.queue.release(buffer));
    }
}

impl Drop for QueueTarget<'_> {
    fn drop(&mut self) {
        // After a job that failed, the backend may still write to its buffers: they stay taken.
        if self.queue.outstanding() == 0 {
            self.release();
        }
    }
}

impl Target for QueueTarget<'_> {
    fn capacity(&self) -> u64 {
        self.queue.sectors() * SECTOR_SIZE as u64
    }

    fn prepare(&mut self, depth: usize, block: usize) -> io::Result<()> {
        self.release();
        let sectors = (block / SECTOR_SIZE) as u32;
        for slot in 0..depth {
            let buffer = self.queue.buffer(sectors).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!(
                        "the buffers of the queue hold {slot} blocks of {block} bytes, not {depth}"
                    ),
                )
            })?;
            self.buffers.push(buffer);
        }
        Ok(())
    }

    fn fill(&mut self, slot: usize, data: &[u8]) {
        self.queue.copy_in(&self.buffers[slot], 0, data);
    }

    fn fetch(&mut self, slot: usize, data: &mut [u8]) {
        self.queue.copy_out(&self.buffers[slot], 0, data);
    }

    fn submit(&mut self, slot: usize, direction: Direction, offset: u64) -> io::Result<()> {
        let (sector, span) = (offset / SECTOR_SIZE as u64, self.buffers[slot].span());
        let operation = match direction {
            Direction::Read => Operation::Read { sector, into: span },
            Direction::Write => Operation::Write { sector, from: span },
        };
        Ok(self.queue.submit(operation, slot as u64)?)
    }

    fn complete(&mut self, done: &mut impl FnMut(usize, io::Result<()>)) -> io::Result<()> {
        let mut report = |completion: crate::Completion| {
            done(completion.tag as usize, completion.result.map_err(io::Error::from));
        };
        self.queue.kick();
        while self.queue.outstanding() > 0 && self.queue.complete(&mut report)? == 0 {
            self.queue.wait(None);
        }
        Ok(())
    }
}
