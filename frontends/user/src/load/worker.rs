// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::report::Tally;
use super::{Direction, Job, Order, Progress, SECTOR, Sequence, Stamp, Target};

/// A block that is in flight; the bits below it count the writes that were acknowledged.
const BUSY: u32 = 1 << 31;

/// A block in flight.
#[derive(Clone, Copy)]
struct Flight {
    /// Number within this worker's blocks.
    block: usize,
    direction: Direction,
    since: Instant,
}

/// One thread's part of a job: its target and its share of the disk's blocks.
pub(super) struct Worker<'a, T> {
    job: &'a Job,
    target: &'a mut T,
    progress: &'a Progress,
    run: u64,
    /// First of its blocks on the disk, and how many there are.
    first: u64,
    blocks: usize,
    random: Sequence,
    /// The block after the last one taken in sequential order.
    next: usize,
    /// With verification, for each block how often it was written, and whether it is in flight.
    written: Vec<u32>,
    /// What is in each slot.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Filled by completions: slots to be looked at.
    done: Vec<usize>,
    data: Vec<u8>,
    tally: Tally,
}

impl<'a, T: Target> Worker<'a, T> {
    /// The worker `index` of `count`.
    pub fn new(
        job: &'a Job,
        target: &'a mut T,
        index: u64,
        count: u64,
        run: u64,
        progress: &'a Progress,
    ) -> io::Result<Self> {
        if job.block == 0 || !job.block.is_multiple_of(SECTOR) || job.depth == 0 {
            return Err(invalid(format!(
                "blocks of {} bytes, {} of them in flight: the size is no multiple of {SECTOR}, or there are none",
                job.block, job.depth
            )));
        }
        let span = job.span.map_or(target.capacity(), |span| span.min(target.capacity()));
        let total = span / job.block as u64;
        let (first, end) = (total * index / count, total * (index + 1) / count);
        let blocks = (end - first) as usize;
        if blocks < job.depth {
            return Err(invalid(format!(
                "{total} blocks of {} bytes are too few for {count} queues with {} blocks in flight each",
                job.block, job.depth
            )));
        }
        target.prepare(job.depth, job.block)?;
        let mut data = vec![0; job.block];
        Stamp { run, sector: 0, generation: 0 }.fill(&mut data);
        (0..job.depth).for_each(|slot| target.fill(slot, &data));
        Ok(Self {
            job,
            target,
            progress,
            run,
            first,
            blocks,
            random: Sequence(job.seed.wrapping_add(index)),
            next: 0,
            written: vec![0; if job.verify { blocks } else { 0 }],
            flights: vec![None; job.depth],
            free: (0..job.depth).rev().collect(),
            done: Vec::with_capacity(job.depth),
            data,
            tally: Tally::new(),
        })
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Reads and writes until the job's time, which began at `start`, or its count is over. What is in flight at once is
    /// done in any case: a thread that began late has something to show too.
    pub fn load(&mut self, start: Instant) -> io::Result<()> {
        let cpu = thread_time();
        let progress = self.progress;
        let stopped = || progress.stop.load(Relaxed);
        let mut left = if stopped() { 0 } else { self.job.count.unwrap_or(u64::MAX) };
        let mut now = Instant::now();
        loop {
            while left > 0 {
                let Some(slot) = self.free.pop() else { break };
                let (block, direction) = self.choose();
                self.submit(slot, block, direction, now)?;
                left -= 1;
            }
            if self.free.len() == self.job.depth {
                break;
            }
            self.complete()?;
            now = Instant::now();
            if now.duration_since(start) >= self.job.time || stopped() {
                left = 0;
            }
        }
        self.tally.cpu += thread_time().saturating_sub(cpu);
        Ok(())
    }

    /// Reads back all blocks that this job wrote.
    pub fn verify(&mut self) -> io::Result<()> {
        let count = (self.tally.reads, self.tally.writes);
        let latency = self.tally.latency.clone();
        let mut block = 0;
        loop {
            let now = Instant::now();
            while block < self.blocks {
                if self.written[block] > 0 {
                    let Some(slot) = self.free.pop() else { break };
                    self.submit(slot, block, Direction::Read, now)?;
                }
                block += 1;
            }
            if self.free.len() == self.job.depth {
                break;
            }
            self.complete()?;
        }
        (self.tally.reads, self.tally.writes) = count;
        self.tally.latency = latency;
        Ok(())
    }

    /// A block that is not in flight, and what to do with it.
    fn choose(&mut self) -> (usize, Direction) {
        let direction = match self.random.below(100) < u64::from(self.job.reads) {
            true => Direction::Read,
            false => Direction::Write,
        };
        let mut block = match self.job.order {
            Order::Random => self.random.below(self.blocks as u64) as usize,
            Order::Sequential => self.next,
        };
        // There are at least as many blocks as may be in flight, and one of those is not.
        while self.written.get(block).is_some_and(|written| written & BUSY != 0) {
            block = (block + 1) % self.blocks;
        }
        self.next = (block + 1) % self.blocks;
        (block, direction)
    }

    fn submit(
        &mut self,
        slot: usize,
        block: usize,
        direction: Direction,
        since: Instant,
    ) -> io::Result<()> {
        if let Some(written) = self.written.get_mut(block) {
            if direction == Direction::Write {
                *written += 1;
                let generation = *written;
                let stamp = self.stamp(block, generation);
                stamp.fill(&mut self.data);
                self.target.fill(slot, &self.data);
            }
            self.written[block] |= BUSY;
        }
        self.flights[slot] = Some(Flight { block, direction, since });
        self.target.submit(slot, direction, (self.first + block as u64) * self.job.block as u64)
    }

    /// Waits for blocks in flight and looks at those that are done.
    fn complete(&mut self) -> io::Result<()> {
        let (done, mut failure) = (&mut self.done, None);
        self.target.complete(&mut |slot, result| match result {
            Ok(()) => done.push(slot),
            Err(error) => failure = Some((slot, error)),
        })?;
        if let Some((slot, error)) = failure {
            return Err(self.describe(slot, &error));
        }
        let now = Instant::now();
        self.progress.done.fetch_add(self.done.len() as u64, Relaxed);
        while let Some(slot) = self.done.pop() {
            let Some(flight) = self.flights.get_mut(slot).and_then(Option::take) else {
                return Err(io::Error::other(format!("slot {slot} was completed twice")));
            };
            self.tally
                .latency
                .saturating_record(now.duration_since(flight.since).as_nanos() as u64);
            match flight.direction {
                Direction::Read => self.tally.reads += 1,
                Direction::Write => self.tally.writes += 1,
            }
            if let Some(written) = self.written.get_mut(flight.block) {
                *written &= !BUSY;
                let generation = *written;
                if flight.direction == Direction::Read && generation > 0 {
                    self.target.fetch(slot, &mut self.data);
                    self.tally.verified += 1;
                    let stamp = self.stamp(flight.block, generation);
                    if let Err(damage) = stamp.check(&self.data) {
                        self.tally.damage(damage);
                    }
                }
            }
            self.free.push(slot);
        }
        Ok(())
    }

    fn stamp(&self, block: usize, generation: u32) -> Stamp {
        let sectors = (self.job.block / SECTOR) as u64;
        Stamp { run: self.run, sector: (self.first + block as u64) * sectors, generation }
    }

    fn describe(&self, slot: usize, error: &io::Error) -> io::Error {
        let what = match self.flights.get(slot).copied().flatten() {
            Some(flight) => {
                let verb = if flight.direction == Direction::Read { "reading" } else { "writing" };
                let offset = (self.first + flight.block as u64) * self.job.block as u64;
                format!("{verb} {} bytes at {offset}: {error}", self.job.block)
            }
            None => format!("slot {slot}, not in flight: {error}"),
        };
        io::Error::new(error.kind(), what)
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
