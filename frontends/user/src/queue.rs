// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor_client::Grant;
use ring_proto::blkif::{self, Status};
use ring_proto::shared::SharedMemory;
use ring_proto::xenbus::vbd::Geometry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Breach;
use crate::flight::Flights;
use crate::pool::{Buffer, Pool, Span};
use crate::shared::{Link, Phase, Shared, consume};
use crate::statistics::Counters;
use crate::{Error, SECTOR_SIZE};

/// Operations that a queue holds: as many as the largest ring has slots.
const OPERATIONS: usize = 512;

/// What to do with the disk. Sectors are units of 512 bytes, and operations whole logical sectors of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read from this sector on.
    Read {
        /// First sector on the disk.
        sector: u64,
        /// Where to.
        into: Span,
    },
    /// Write from this sector on.
    Write {
        /// First sector on the disk.
        sector: u64,
        /// Where from.
        from: Span,
    },
    /// Write durably, after all writes before and before all writes after. Has to fit one request.
    Barrier {
        /// First sector on the disk.
        sector: u64,
        /// Where from.
        from: Span,
    },
    /// Make all completed writes durable.
    Flush,
    /// Forget sectors: they may read as anything.
    Discard {
        /// First sector on the disk.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Nothing may be able to restore them.
        secure: bool,
    },
}

/// An operation that is done.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The value that it was submitted with.
    pub tag: u64,
    /// What became of it.
    pub result: Result<(), Error>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none in this place.
    Free,
    /// It has requests to push, or unanswered.
    Going,
    /// It waits to be reported.
    Finished,
}

/// An operation, which is one or several requests.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    state: State,
    tag: u64,
    /// Counts the operations of the queue: the order in which they are sent anew.
    order: u64,
    pub operation: blkif::Operation,
    pub sector: u64,
    pub count: u64,
    /// First sector of its data in the pool.
    pub start: u32,
    pub secure: bool,
    /// Sectors for which requests were pushed.
    pub pushed: u64,
    /// Requests unanswered.
    unanswered: u32,
    error: Option<Error>,
}

impl Task {
    const FREE: Self = Self {
        state: State::Free,
        tag: 0,
        order: 0,
        operation: blkif::Operation::Read,
        sector: 0,
        count: 0,
        start: 0,
        secure: false,
        pushed: 0,
        unanswered: 0,
        error: None,
    };
}

/// One hardware queue of a disk, owned by one thread.
///
/// ```text
/// submit … submit → kick → … → complete, or wait → complete
/// ```
///
/// None of these allocates, locks, or calls the hypervisor, apart from ringing the doorbell when the backend asked for
/// it and sleeping in [`wait`](Self::wait). While the backend is away, operations are kept; they are sent, in their
/// order, when it is back.
#[derive(Debug)]
pub struct Queue {
    index: usize,
    shared: Arc<Shared>,
    /// The phase of the disk that this queue knows.
    generation: u32,
    link: Option<Link>,
    failure: Option<Error>,
    geometry: Geometry,
    pool: Pool,
    tasks: Vec<Task>,
    free: Vec<usize>,
    /// Tasks with requests to push, in order.
    waiting: VecDeque<usize>,
    /// Tasks that ended without a response, to be reported.
    finished: VecDeque<usize>,
    flights: Flights,
    orders: u64,
    /// Requests were pushed that the backend was not shown.
    unpublished: bool,
    longest_poll: Duration,
    /// How long it looks for answers before it sleeps; grows when answers come soon after, shrinks when not.
    poll: Duration,
}

impl Queue {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        pool: Grant,
        longest_poll: Duration,
    ) -> Self {
        let alone =
            std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
        let mut queue = Self {
            index,
            generation: shared.generation().wrapping_sub(1),
            geometry: shared.geometry(),
            shared,
            link: None,
            failure: None,
            pool: Pool::new(pool),
            tasks: vec![Task::FREE; OPERATIONS],
            free: (0..OPERATIONS).rev().collect(),
            waiting: VecDeque::with_capacity(OPERATIONS),
            finished: VecDeque::with_capacity(OPERATIONS),
            flights: Flights::default(),
            orders: 0,
            unpublished: false,
            longest_poll: if alone { Duration::ZERO } else { longest_poll },
            poll: Duration::ZERO,
        };
        queue.sync();
        queue
    }

    /// Number of the queue.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sectors of the disk at this moment.
    pub fn sectors(&self) -> u64 {
        self.shared.sectors()
    }

    /// How many more operations can be submitted now.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// How many operations are not reported yet.
    pub fn outstanding(&self) -> usize {
        OPERATIONS - self.free.len()
    }

    /// Takes memory for this many sectors, which is adjacent and begins at a page.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when so much is not free.
    pub fn buffer(&mut self, sectors: u32) -> Result<Buffer, Error> {
        self.pool.take(sectors).ok_or(Error::Full)
    }

    /// Gives memory back. No operation on it may be outstanding: its data would go to or come from whatever the memory
    /// is used for next.
    pub fn release(&mut self, buffer: Buffer) {
        self.pool.give_back(&buffer);
    }

    /// Copies `data` to byte `offset` of a buffer. What lies beyond its end is left out.
    pub fn copy_in(&mut self, buffer: &Buffer, offset: usize, data: &[u8]) {
        if let Some(memory) = self.pool.memory(buffer) {
            let len = data.len().min(memory.len().saturating_sub(offset));
            memory.copy_in(offset, &data[..len]);
        }
    }

    /// Copies from byte `offset` of a buffer. What lies beyond its end reads as zero.
    pub fn copy_out(&self, buffer: &Buffer, offset: usize, data: &mut [u8]) {
        let Some(memory) = self.pool.memory(buffer) else { return data.fill(0) };
        let len = data.len().min(memory.len().saturating_sub(offset));
        let (inside, outside) = data.split_at_mut(len);
        memory.copy_out(offset, inside);
        outside.fill(0);
    }

    /// Takes an operation, which [`complete`](Self::complete) will report once with this `tag`. The backend sees it
    /// after [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// When the disk failed, the operation does not fit the disk, or with [`Error::Full`] when too many are
    /// outstanding. It is not reported then.
    pub fn submit(&mut self, operation: Operation, tag: u64) -> Result<(), Error> {
        self.sync();
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let task = match operation {
            Operation::Read { sector, into } => Task::moving(blkif::Operation::Read, sector, into),
            Operation::Write { sector, from } => {
                Task::moving(blkif::Operation::Write, sector, from)
            }
            Operation::Barrier { sector, from } => {
                Task::moving(blkif::Operation::WriteBarrier, sector, from)
            }
            Operation::Flush => Task { operation: blkif::Operation::FlushDiskcache, ..Task::FREE },
            Operation::Discard { sector, count, secure } => {
                Task { operation: blkif::Operation::Discard, sector, count, secure, ..Task::FREE }
            }
        };
        self.check(&task)?;
        let index = self.free.pop().ok_or(Error::Full)?;
        self.orders += 1;
        self.tasks[index] = Task { state: State::Going, tag, order: self.orders, ..task };
        self.counters().operations.add(1);
        self.waiting.push_back(index);
        self.push();
        Ok(())
    }

    /// Shows the backend all requests pushed, and rings its doorbell if it asked.
    pub fn kick(&mut self) {
        self.sync();
        self.push();
        self.publish();
    }

    /// Reports the operations that are done, each once, without waiting. Returns how many.
    ///
    /// # Errors
    ///
    /// When the disk failed and there is nothing (more) to report.
    pub fn complete(&mut self, done: &mut impl FnMut(Completion)) -> Result<usize, Error> {
        self.sync();
        let mut count = self.answers(done);
        while let Some(index) = self.finished.pop_front() {
            self.report(index, done);
            count += 1;
        }
        if !self.waiting.is_empty() {
            self.push();
            self.publish();
        }
        match &self.failure {
            Some(error) if count == 0 => Err(error.clone()),
            _ => Ok(count),
        }
    }

    /// Waits until there is something to [`complete`](Self::complete), or the time is over: looks for answers for a
    /// while, then sleeps.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.wait_or(None, timeout);
    }

    /// As [`wait`](Self::wait), but returns also when `other` is readable, and sleeps at once: looking for answers would
    /// make `other` wait. May return early for no reason.
    pub fn wait_or(&mut self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) {
        self.kick();
        let begin = Instant::now();
        if self.is_ready() || timeout == Some(Duration::ZERO) {
            return;
        }
        if other.is_none() && self.answered_within(begin, timeout) {
            return self.counters().polls.add(1);
        }
        // The last look: from here on the backend rings.
        match self.link.as_mut().map(|link| link.ring.final_check()) {
            Some(Ok(false)) | None => {}
            Some(Ok(true)) => return,
            Some(Err(error)) => return self.breach(Breach::Ring(error)),
        }
        self.counters().sleeps.add(1);
        let expecting = self.is_expecting();
        self.sleep(other, timeout);
        if expecting {
            self.adapt(begin.elapsed());
        }
    }

    /// Whether an answer may come.
    fn is_expecting(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.ring.outstanding() > 0)
    }

    /// Whether [`complete`](Self::complete) has something to say.
    fn is_ready(&mut self) -> bool {
        if !self.finished.is_empty() || self.failure.is_some() {
            return true;
        }
        match self.link.as_mut().map(|link| link.ring.available()) {
            Some(Ok(count)) => count > 0,
            Some(Err(error)) => {
                self.breach(Breach::Ring(error));
                true
            }
            None => false,
        }
    }

    /// Looks for answers as long as it is worth it.
    fn answered_within(&mut self, begin: Instant, timeout: Option<Duration>) -> bool {
        let end = timeout.map_or(self.poll, |timeout| timeout.min(self.poll));
        if end.is_zero() || !self.is_expecting() {
            return false;
        }
        while begin.elapsed() < end {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
            if self.is_ready() || self.shared.generation() != self.generation {
                return true;
            }
            // The backend may need the CPU to answer.
            std::thread::yield_now();
        }
        false
    }

    /// Sleeps until the backend rings, the connection changes, or `other` is readable.
    fn sleep(&mut self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) {
        let Some(wake) = self.shared.queue_wake(self.index) else { return };
        let channel = self.link.as_ref().map_or(wake, |link| link.channel.as_fd());
        let mut fds = [wake, channel, other.unwrap_or(wake)]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let [woken, rang, _] = fds.map(|fd| !fd.revents().is_empty());
        if woken {
            consume(wake);
        }
        if let Some(link) = self.link.as_ref().filter(|_| rang) {
            // An event that cannot be read is the connection's end, which the control thread hears of.
            if let Err(error) = link.channel.wait(Some(Duration::ZERO)) {
                log::warn!("queue {}: {error}", self.index);
            }
        }
    }

    /// Learns from a sleep: one that was short would rather have been spent looking.
    fn adapt(&mut self, slept: Duration) {
        let step = Duration::from_micros(5);
        self.poll = match slept < self.longest_poll {
            true => (self.poll * 2).max(step).min(self.longest_poll),
            false if self.poll <= step => Duration::ZERO,
            false => self.poll / 2,
        };
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }

    /// Whether the disk can take it.
    fn check(&self, task: &Task) -> Result<(), Error> {
        let &Task { operation, sector, count, .. } = task;
        if operation == blkif::Operation::FlushDiskcache {
            return Ok(());
        }
        if self.geometry.read_only && operation != blkif::Operation::Read {
            return Err(Error::ReadOnly);
        }
        let logical = self.geometry.sector_size;
        let unit = u64::from(logical) / SECTOR_SIZE as u64;
        if count == 0 || (sector | count | u64::from(task.start)) & unit.saturating_sub(1) != 0 {
            return Err(Error::Unaligned { sector, count, logical });
        }
        self.check_end(sector, count)
    }

    fn check_end(&self, sector: u64, count: u64) -> Result<(), Error> {
        let capacity = self.shared.sectors();
        match sector.checked_add(count).is_some_and(|end| end <= capacity) {
            true => Ok(()),
            false => Err(Error::BeyondEnd { sector, count, capacity }),
        }
    }

    /// Pushes requests of waiting tasks as long as there is room.
    fn push(&mut self) {
        let Some(link) = &mut self.link else { return };
        let counters = &self.shared.counters[self.index];
        while let Some(&index) = self.waiting.front() {
            let task = &mut self.tasks[index];
            if link.ring.free() == 0 {
                return;
            }
            match self.flights.push(link, &self.pool, index, task, counters) {
                Ok(sectors) => {
                    task.pushed += sectors;
                    task.unanswered += 1;
                    self.unpublished = true;
                }
                Err(error) => {
                    // Only a task of one request can be refused here, so nothing of it is on its way.
                    task.error = Some(error);
                    task.state = State::Finished;
                    task.pushed = task.count;
                    self.finished.push_back(index);
                }
            }
            if task.pushed >= task.count {
                self.waiting.pop_front();
            }
        }
    }

    fn publish(&mut self) {
        let Some(link) = &mut self.link else { return };
        if !std::mem::take(&mut self.unpublished) {
            return;
        }
        let counters = &self.shared.counters[self.index];
        counters.batches.add(1);
        if link.ring.publish() {
            counters.doorbells.add(1);
            // A doorbell that does not ring is the connection's end, which the control thread hears of.
            if let Err(error) = link.channel.notify() {
                log::warn!("queue {}: {error}", self.index);
            }
        }
    }

    /// Takes the responses, and reports the operations that they complete.
    fn answers(&mut self, done: &mut impl FnMut(Completion)) -> usize {
        let mut count = 0;
        while let Some(link) = &mut self.link {
            let response = match link.ring.pop() {
                Ok(Some(Ok(response))) => response,
                Ok(None) => break,
                Ok(Some(Err(bad))) => {
                    self.breach(Breach::Response(bad));
                    break;
                }
                Err(error) => {
                    self.breach(Breach::Ring(error));
                    break;
                }
            };
            let index = match self.flights.land(&response) {
                Ok(index) => index,
                Err(breach) => {
                    self.breach(breach);
                    break;
                }
            };
            let task = &mut self.tasks[index];
            task.unanswered -= 1;
            let operation = task.operation;
            match response.status {
                Status::Okay => {}
                Status::Error => task.error = Some(Error::Io { operation }),
                Status::NotSupported => task.error = Some(Error::Unsupported { operation }),
            }
            if task.unanswered == 0 && task.pushed >= task.count {
                self.report(index, done);
                count += 1;
            }
        }
        count
    }

    fn report(&mut self, index: usize, done: &mut impl FnMut(Completion)) {
        let task = &mut self.tasks[index];
        task.state = State::Free;
        let result = task.error.take().map_or(Ok(()), Err);
        if result.is_ok() {
            let counters = &self.shared.counters[self.index];
            match task.operation {
                blkif::Operation::Read => counters.sectors_read.add(task.count),
                blkif::Operation::Write | blkif::Operation::WriteBarrier => {
                    counters.sectors_written.add(task.count);
                }
                _ => {}
            }
        }
        let tag = task.tag;
        self.free.push(index);
        done(Completion { tag, result });
    }

    /// Looks whether the connection changed.
    #[inline]
    fn sync(&mut self) {
        if self.shared.generation() != self.generation {
            self.follow();
        }
    }

    /// Does what the new phase of the disk says.
    #[cold]
    fn follow(&mut self) {
        let (index, shared) = (self.index, self.shared.clone());
        let (generation, lost, failure, link) =
            shared.with_phase(|phase, generation| match phase {
                Phase::Connected(links) => {
                    (generation, false, None, links.get_mut(index).and_then(Option::take))
                }
                Phase::Lost => (generation, true, None, None),
                Phase::Failed(error) => (generation, true, Some(error.clone()), None),
            });
        self.generation = generation;
        if let Some(error) = failure {
            self.fail(&error);
        } else if lost {
            self.link = None;
            self.again();
        } else if let Some(link) = link {
            self.attach(link);
        }
    }

    /// Uses a new connection, and sends everything unanswered anew.
    fn attach(&mut self, mut link: Link) {
        self.geometry = self.shared.geometry();
        if let Some(pool) = link.pool.take() {
            self.pool.move_to(pool);
        }
        self.flights = Flights::new(&link);
        self.link = Some(link);
        self.again();
        for at in 0..self.waiting.len() {
            let index = self.waiting[at];
            let Task { sector, count, .. } = self.tasks[index];
            if let Err(error) = self.check_end(sector, count) {
                self.tasks[index].error = Some(error);
                self.tasks[index].state = State::Finished;
                self.finished.push_back(index);
            }
        }
        let tasks = &self.tasks;
        self.waiting.retain(|index| tasks[*index].state == State::Going);
        self.counters().resubmitted.add(self.waiting.len() as u64);
        self.push();
        self.publish();
    }

    /// Makes every task that is not done begin anew, in the order in which they came.
    fn again(&mut self) {
        self.waiting.clear();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if task.state == State::Going {
                (task.pushed, task.unanswered, task.error) = (0, 0, None);
                self.waiting.push_back(index);
            }
        }
        let tasks = &self.tasks;
        self.waiting.make_contiguous().sort_unstable_by_key(|index| tasks[*index].order);
    }

    /// The backend broke the protocol: the whole disk ends.
    #[cold]
    fn breach(&mut self, breach: Breach) {
        let error = Error::Breach { queue: self.index, breach };
        log::error!("{error}");
        self.shared.change(Phase::Failed(error.clone()));
        self.fail(&error);
    }

    /// Everything that is not done gets this error.
    fn fail(&mut self, error: &Error) {
        if self.failure.is_some() {
            return;
        }
        self.link = None;
        self.again();
        for index in self.waiting.drain(..) {
            self.tasks[index].error = Some(error.clone());
            self.tasks[index].state = State::Finished;
            self.finished.push_back(index);
        }
        self.failure = Some(error.clone());
    }
}

impl Task {
    fn moving(operation: blkif::Operation, sector: u64, span: Span) -> Self {
        let count = u64::from(span.sectors);
        Self { operation, sector, count, start: span.start, ..Self::FREE }
    }
}
