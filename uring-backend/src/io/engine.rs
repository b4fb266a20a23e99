// SPDX-License-Identifier: MIT OR Apache-2.0

//! The io_uring of a queue.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use hypervisor_client::mapped::Mapped;
use io_uring::{IoUring, opcode, squeue, types};
use ring_proto::shared::{AsRegion, Region, SharedMemory};

/// What an operation's completion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The disk operation of the request in this slot.
    Slot(u32),
    /// One of the descriptors that events are read from.
    Source(Source),
    /// A doorbell could not be rung; `EAGAIN`: it was, and its owner has not looked. One that was has no completion.
    Doorbell,
    /// The event channel could not be rearmed. One that was has no completion.
    Rearm,
    /// Nothing that anybody waits for.
    Nothing,
}

/// A descriptor that an event is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The event channel.
    Event = 0,
    /// The eventfd of the control thread.
    Control = 1,
    /// The eventfd of the thread that does what io_uring cannot.
    Helper = 2,
}

const SOURCES: [Source; 3] = [Source::Event, Source::Control, Source::Helper];

impl Token {
    fn pack(self) -> u64 {
        match self {
            Self::Slot(slot) => u64::from(slot),
            Self::Source(source) => 1 << 32 | source as u64,
            Self::Doorbell => 2 << 32,
            Self::Nothing => 3 << 32,
            Self::Rearm => 4 << 32,
        }
    }

    /// Whether it completes in any case.
    fn is_awaited(self) -> bool {
        !matches!(self, Self::Doorbell | Self::Rearm)
    }

    /// Whether it goes to the kernel now, not along with the next submission.
    fn is_urgent(self) -> bool {
        !matches!(self, Self::Source(_) | Self::Rearm)
    }

    fn unpack(data: u64) -> Self {
        match (data >> 32, data as u32) {
            (0, slot) => Self::Slot(slot),
            (1, source) => {
                SOURCES.get(source as usize).map_or(Self::Nothing, |&it| Self::Source(it))
            }
            (2, _) => Self::Doorbell,
            (4, _) => Self::Rearm,
            _ => Self::Nothing,
        }
    }
}

/// A finished operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// Not negative: what the system call would have returned. Negative: its error number.
    pub(crate) result: i32,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
}

/// A registered descriptor of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFile {
    /// Past the page cache.
    Direct = 0,
    /// Through it.
    Buffered = 1,
}

/// The descriptors that an engine works on. All stay open as long as it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// The image, past the page cache. That through it if there is no other.
    pub(crate) direct: RawFd,
    /// The image, through the page cache.
    pub(crate) buffered: RawFd,
    /// The event channel.
    pub(crate) event: RawFd,
    /// How many bytes one read of it takes.
    pub(crate) event_len: usize,
    /// What has to be written to it after each event. Such a one does not block.
    pub(crate) rearm: Option<[u8; 4]>,
    /// Where eight bytes ring the peer's doorbell, if anywhere.
    pub(crate) doorbell: Option<RawFd>,
    /// The eventfd of the control thread.
    pub(crate) control: RawFd,
    /// The eventfd of the helper thread.
    pub(crate) helper: RawFd,
}

/// Places in the table of registered files.
mod file {
    pub(super) const DOORBELL: u32 = 2;
    pub(super) const FIRST_SOURCE: u32 = 3;
}

/// Most bytes that are read from an event descriptor at once.
const SOURCE_LEN: usize = 64;

/// The value that a doorbell is rung with.
static RING: u64 = 1;

/// The vector of one slot: pieces of memory that one operation transfers. It keeps its room from one request to the
/// next, and changes only while no operation of the slot is under way.
#[derive(Debug, Default)]
struct Vector {
    pieces: Vec<libc::iovec>,
    /// First piece not transferred yet.
    first: usize,
    /// The fixed buffer that all lie in.
    buffer: Buffer,
}

/// Which fixed buffer the pieces of a vector lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Buffer {
    /// There are no pieces yet.
    #[default]
    Any,
    /// That of this number.
    Fixed(u16),
    /// Not all in one.
    None,
}

/// Length of a fixed buffer. The kernel pins all of it, so memory is registered by and by, where it is used.
const BUFFER_LEN: usize = 2 << 20;

/// Memory that fixed buffers are made of.
#[derive(Debug)]
struct FixedMemory {
    memory: Arc<Mapped>,
    /// For each [`BUFFER_LEN`] of it: whether the kernel has it, `None` when it was not asked yet.
    registered: Vec<Option<bool>>,
}

/// One io_uring, and what its operations point to.
pub(crate) struct Engine {
    ring: IoUring,
    /// One for each slot.
    vectors: Vec<Vector>,
    source_buffers: Box<[[u8; SOURCE_LEN]; SOURCES.len()]>,
    event_len: usize,
    rearm: Option<Box<[u8; 4]>>,
    fixed: Option<FixedMemory>,
    /// Whether this kernel has vectored operations on fixed buffers (since 6.15).
    has_vector_fixed: bool,
    has_doorbell: bool,
    /// An operation is queued that somebody waits for.
    urgent: bool,
    /// The kernel's flag that it has work for this thread was set, and there was none.
    stale_flag: bool,
    /// Operations on memory of this process whose completions were not taken yet.
    outstanding: u64,
}

impl Engine {
    /// An engine for `slots` requests. To be made on the thread that uses it.
    pub(crate) fn new(slots: u32, files: Descriptors) -> io::Result<Self> {
        // For each slot one; for each source two; the doorbell and the rearming.
        let entries = (slots + 2 * SOURCES.len() as u32 + 2).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(entries)
            // Before 6.1 there is no deferred task work.
            .or_else(|_| IoUring::new(entries))?;
        ring.submitter().register_files(&[
            files.direct,
            files.buffered,
            files.doorbell.unwrap_or(-1),
            files.event,
            files.control,
            files.helper,
        ])?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        Ok(Self {
            ring,
            vectors: (0..slots).map(|_| Vector::default()).collect(),
            source_buffers: Box::new([[0; SOURCE_LEN]; SOURCES.len()]),
            event_len: files.event_len.clamp(1, SOURCE_LEN),
            rearm: files.rearm.map(Box::new),
            fixed: None,
            has_vector_fixed: probe.is_supported(opcode::ReadvFixed::CODE)
                && probe.is_supported(opcode::WritevFixed::CODE),
            has_doorbell: files.doorbell.is_some(),
            urgent: false,
            stale_flag: false,
            outstanding: 0,
        })
    }

    /// Makes fixed buffers of this memory as it is used, so that operations on it need not look its pages up. Once per
    /// engine.
    pub(crate) fn use_memory(&mut self, memory: Arc<Mapped>) -> io::Result<()> {
        let buffers = memory.len().div_ceil(BUFFER_LEN);
        let count = u16::try_from(buffers).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.ring.submitter().register_buffers_sparse(count.into())?;
        self.fixed = Some(FixedMemory { memory, registered: vec![None; buffers] });
        Ok(())
    }

    /// The number of the fixed buffer that memory lies in, if it does. The first use of a buffer registers it.
    #[inline]
    fn buffer_of(&mut self, memory: Region<'_>) -> Option<u16> {
        let fixed = self.fixed.as_mut()?;
        let whole = fixed.memory.as_region();
        let base = whole.base().as_ptr().addr();
        let start = memory.base().as_ptr().addr().checked_sub(base)?;
        let end = start + memory.len();
        let number = start / BUFFER_LEN;
        if end > whole.len() || end > (number + 1) * BUFFER_LEN {
            return None;
        }
        let registered = fixed.registered.get_mut(number)?;
        if registered.is_none() {
            let len = BUFFER_LEN.min(whole.len() - number * BUFFER_LEN);
            let part = whole.part(number * BUFFER_LEN, len)?;
            let iovec = libc::iovec { iov_base: part.base().as_ptr().cast(), iov_len: part.len() };
            // SAFETY: `fixed.memory` keeps it mapped as long as the engine lives. The kernel holds the pages themselves
            // besides.
            let result = unsafe {
                self.ring.submitter().register_buffers_update(number as u32, &[iovec], None)
            };
            if let Err(error) = &result {
                log::warn!("no fixed buffer of {len} bytes (RLIMIT_MEMLOCK?): {error}");
            }
            *registered = Some(result.is_ok());
        }
        (*registered == Some(true)).then_some(number as u16)
    }

    /// Has the kernel let go of what is registered of the memory, so that it can be given back. It is registered anew
    /// where it is used.
    pub(crate) fn forget_memory(&mut self) -> io::Result<()> {
        let Some(fixed) = &mut self.fixed else { return Ok(()) };
        for (number, registered) in fixed.registered.iter_mut().enumerate() {
            if *registered == Some(true) {
                let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
                // SAFETY: no memory lies in it.
                unsafe {
                    self.ring.submitter().register_buffers_update(
                        number as u32,
                        &[nothing],
                        None,
                    )?;
                }
                *registered = None;
            }
        }
        Ok(())
    }

    /// Forgets the pieces of a slot.
    #[inline]
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(vector) = self.vectors.get_mut(slot as usize) {
            vector.pieces.clear();
            vector.first = 0;
            vector.buffer = Buffer::Any;
        }
    }

    /// Adds memory to what a slot's next operation transfers. Adjacent memory makes one piece.
    ///
    /// # Safety
    ///
    /// The memory stays mapped, and is used as shared memory only, until the slot is [cleared](Self::clear) with no
    /// operation of it under way, or the engine is dropped.
    #[inline]
    pub(crate) unsafe fn add(&mut self, slot: u32, memory: Region<'_>) {
        let buffer = self.buffer_of(memory);
        let Some(vector) = self.vectors.get_mut(slot as usize) else { return };
        let start = memory.base().as_ptr();
        vector.buffer = match (vector.buffer, buffer) {
            (Buffer::Any, Some(number)) => Buffer::Fixed(number),
            (Buffer::Fixed(all), Some(number)) if all == number => Buffer::Fixed(all),
            _ => Buffer::None,
        };
        match vector.pieces.last_mut() {
            Some(last) if last.iov_base.addr() + last.iov_len == start.addr() => {
                last.iov_len += memory.len();
            }
            _ => vector.pieces.push(libc::iovec { iov_base: start.cast(), iov_len: memory.len() }),
        }
    }

    /// Drops the first `done` bytes from a slot's pieces, after a transfer that fell short.
    pub(crate) fn advance(&mut self, slot: u32, mut done: usize) {
        let Some(vector) = self.vectors.get_mut(slot as usize) else { return };
        for piece in vector.pieces.iter_mut().skip(vector.first) {
            let part = done.min(piece.iov_len);
            piece.iov_base = piece.iov_base.wrapping_byte_add(part);
            piece.iov_len -= part;
            done -= part;
            if piece.iov_len > 0 {
                break;
            }
            vector.first += 1;
        }
    }

    /// Queues the transfer between a slot's pieces and the image at `offset`. Returns whether fixed buffers serve it.
    #[inline]
    pub(crate) fn transfer(
        &mut self,
        slot: u32,
        direction: Direction,
        file: ImageFile,
        offset: u64,
    ) -> bool {
        let Some(vector) = self.vectors.get(slot as usize) else { return false };
        let Some(pieces) = vector.pieces.get(vector.first..) else { return false };
        let fd = types::Fixed(file as u32);
        let vectored = (pieces.as_ptr(), pieces.len() as u32);
        let (entry, fixed) = match (vector.buffer, pieces, direction) {
            (Buffer::Fixed(buffer), [one], Direction::Read) => (
                opcode::ReadFixed::new(fd, one.iov_base.cast(), one.iov_len as u32, buffer)
                    .offset(offset)
                    .build(),
                true,
            ),
            (Buffer::Fixed(buffer), [one], Direction::Write) => (
                opcode::WriteFixed::new(fd, one.iov_base.cast(), one.iov_len as u32, buffer)
                    .offset(offset)
                    .build(),
                true,
            ),
            (Buffer::Fixed(buffer), _, Direction::Read) if self.has_vector_fixed => (
                opcode::ReadvFixed::new(fd, vectored.0, vectored.1, buffer).offset(offset).build(),
                true,
            ),
            (Buffer::Fixed(buffer), _, Direction::Write) if self.has_vector_fixed => (
                opcode::WritevFixed::new(fd, vectored.0, vectored.1, buffer).offset(offset).build(),
                true,
            ),
            (_, _, Direction::Read) => {
                (opcode::Readv::new(fd, vectored.0, vectored.1).offset(offset).build(), false)
            }
            (_, _, Direction::Write) => {
                (opcode::Writev::new(fd, vectored.0, vectored.1).offset(offset).build(), false)
            }
        };
        self.push(entry, Token::Slot(slot));
        fixed
    }

    /// Queues making all finished writes durable.
    pub(crate) fn sync(&mut self, slot: u32) {
        let fd = types::Fixed(ImageFile::Buffered as u32);
        let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        self.push(entry, Token::Slot(slot));
    }

    /// Queues punching a hole into the image.
    pub(crate) fn punch_hole(&mut self, slot: u32, offset: u64, len: u64) {
        let fd = types::Fixed(ImageFile::Buffered as u32);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let entry = opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build();
        self.push(entry, Token::Slot(slot));
    }

    /// Queues a discard on a block device (`BLOCK_URING_CMD_DISCARD`, since 6.12; earlier it fails).
    pub(crate) fn discard(&mut self, slot: u32, offset: u64, len: u64) {
        const BLOCK_URING_CMD_DISCARD: u32 = 0x12 << 8;
        let fd = types::Fixed(ImageFile::Buffered as u32);
        let mut cmd = [0; 16];
        cmd[..8].copy_from_slice(&len.to_ne_bytes());
        let entry = opcode::UringCmd16::new(fd, BLOCK_URING_CMD_DISCARD)
            .addr(Some(offset))
            .cmd(cmd)
            .build();
        self.push(entry, Token::Slot(slot));
    }

    /// Queues a read of an event descriptor. One at a time for each.
    pub(crate) fn read(&mut self, source: Source) {
        let len = if source == Source::Event { self.event_len } else { 8 };
        let Some(buffer) = self.source_buffers.get_mut(source as usize) else { return };
        let fd = types::Fixed(file::FIRST_SOURCE + source as u32);
        let entry = opcode::Read::new(fd, buffer.as_mut_ptr(), len as u32).build();
        let token = Token::Source(source);
        if source == Source::Event && self.rearm.is_some() {
            // It does not block, so it is waited for first. The two make one completion between them: the read's, or
            // that of a wait that failed.
            let wait = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            self.push_unawaited(
                wait.flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS),
                token,
            );
        }
        self.push(entry, token);
    }

    /// Queues what lets the next event through, if the event channel needs that. It goes along with the next
    /// submission: who does not wait yet needs no event.
    pub(crate) fn rearm(&mut self) {
        if let Some(port) = &self.rearm {
            let fd = types::Fixed(file::FIRST_SOURCE + Source::Event as u32);
            // It is over when it is submitted, because the descriptor does not block.
            let entry = opcode::Write::new(fd, port.as_ptr(), port.len() as u32).build();
            self.push_unawaited(entry.flags(squeue::Flags::SKIP_SUCCESS), Token::Rearm);
        }
    }

    /// Queues ringing the peer's doorbell. Returns `false` when there is no descriptor for it.
    #[must_use]
    pub(crate) fn ring_doorbell(&mut self) -> bool {
        if self.has_doorbell {
            let fd = types::Fixed(file::DOORBELL);
            // Without a completion, or it would end the wait that it is submitted with. A doorbell that is full fails
            // at once: if it waited in the kernel, a peer that never looks would collect one operation a batch.
            let entry = opcode::Write::new(fd, (&raw const RING).cast(), 8)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS);
            self.push_unawaited(entry, Token::Doorbell);
        }
        self.has_doorbell
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.outstanding += 1;
        self.push_unawaited(entry, token);
    }

    /// Queues an operation that has no completion of its own when all is well.
    #[inline]
    fn push_unawaited(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        loop {
            // SAFETY: all that the entry points to is memory that the caller of `add` keeps, or the engine's own, and
            // lives until the completion (see the module's rules).
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                // A read of an event that has not come goes along with the next submission.
                self.urgent |= token.is_urgent();
                return;
            }
            // The queue has an entry for each slot and source, so it is full only after a submission failed.
            if let Err(error) = self.ring.submit() {
                log::warn!("io_uring takes no more operations: {error}");
                std::thread::yield_now();
            }
        }
    }

    /// Whether there are completions to take, now or after an [`enter`](Self::enter) that does not wait. Costs no
    /// system call.
    #[inline]
    pub(crate) fn ready(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.has_work()
    }

    /// Whether the kernel has work that only this thread can do, and that may complete an operation. It queues the work
    /// first and sets the flag then: if this thread is done with the work in between, the flag stays, until there is
    /// other work. Who went by the flag alone would call the kernel again and again, and never sleep.
    #[inline]
    fn has_work(&mut self) -> bool {
        !self.stale_flag && self.ring.submission().taskrun()
    }

    /// Submits all that is queued, and waits for a completion if `wait` says so, for at most `timeout`. One system
    /// call, or none when nothing is urgent. Returns whether there was one.
    pub(crate) fn enter(&mut self, wait: bool, timeout: Option<Duration>) -> io::Result<bool> {
        if !wait && !self.urgent && !self.has_work() {
            return Ok(false);
        }
        self.urgent = false;
        // What is done of the work in this call; without it the flag says nothing about it.
        let works = wait || self.ring.submission().taskrun();
        let result = match timeout.filter(|_| wait) {
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &args)
            }
            None => self.ring.submit_and_wait(usize::from(wait)),
        };
        self.stale_flag =
            works && self.ring.completion().is_empty() && self.ring.submission().taskrun();
        match result {
            Ok(_) => Ok(true),
            // Time is over, a signal came, or completions have to be taken first.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the next completion, if there is one.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let token = Token::unpack(entry.user_data());
        self.outstanding -= u64::from(token.is_awaited());
        Some(Completion { token, result: entry.result() })
    }
}

impl Drop for Engine {
    /// Waits until the kernel has let go of all memory and files.
    fn drop(&mut self) {
        if self.outstanding > 0 {
            let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
            self.push(entry, Token::Nothing);
        }
        while self.outstanding > 0 {
            if let Err(error) = self.enter(true, Some(Duration::from_secs(1))) {
                // Leaving now would free memory that the kernel may still write to.
                log::error!(
                    "io_uring fails while {} operations are under way: {error}",
                    self.outstanding
                );
                std::process::abort();
            }
            while self.next().is_some() {}
        }
        // The ring itself ends some time after its descriptor is closed; the image is not to stay open for that long.
        if let Err(error) = self.ring.submitter().unregister_files() {
            log::debug!("unregistering files: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::{AsRawFd, OwnedFd};

    use ring_proto::shared::PAGE_SIZE;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    struct Rig {
        engine: Engine,
        event: OwnedFd,
        doorbell: OwnedFd,
        memory: Arc<Mapped>,
        image: File,
    }

    fn pages(count: usize) -> Arc<Mapped> {
        Arc::new(Mapped::anonymous(count).unwrap())
    }

    fn page(memory: &Mapped, index: usize) -> Region<'_> {
        memory.as_region().part(index * PAGE_SIZE, PAGE_SIZE).unwrap()
    }

    fn add(engine: &mut Engine, slot: u32, memory: Region<'_>) {
        // SAFETY: every test keeps its memory until its engine is gone.
        unsafe { engine.add(slot, memory) }
    }

    fn rig() -> Rig {
        let image = tempfile::tempfile().unwrap();
        let [event, doorbell, control, helper] =
            [(); 4].map(|()| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let engine = Engine::new(
            4,
            Descriptors {
                direct: image.as_raw_fd(),
                buffered: image.as_raw_fd(),
                event: event.as_raw_fd(),
                event_len: 8,
                rearm: None,
                doorbell: Some(doorbell.as_raw_fd()),
                control: control.as_raw_fd(),
                helper: helper.as_raw_fd(),
            },
        )
        .unwrap();
        Rig { engine, event, doorbell, memory: pages(8), image }
    }

    fn finish(engine: &mut Engine) -> Completion {
        engine.enter(true, None).unwrap();
        engine.next().unwrap()
    }

    #[test]
    fn tokens_survive_packing() {
        let sources = SOURCES.map(Token::Source);
        let others =
            [Token::Slot(0), Token::Slot(511), Token::Doorbell, Token::Rearm, Token::Nothing];
        for token in sources.into_iter().chain(others) {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }

    #[test]
    fn adjacent_pages_make_one_piece_and_fixed_memory_is_recognised() {
        let elsewhere = pages(1);
        let mut rig = rig();
        rig.engine.use_memory(rig.memory.clone()).unwrap();
        rig.engine.clear(1);
        for index in [0, 1, 2, 5, 6] {
            add(&mut rig.engine, 1, page(&rig.memory, index));
        }
        let vector = &rig.engine.vectors[1];
        let lengths: Vec<_> = vector.pieces.iter().map(|piece| piece.iov_len).collect();
        assert_eq!(
            (lengths, vector.buffer),
            (vec![3 * PAGE_SIZE, 2 * PAGE_SIZE], Buffer::Fixed(0))
        );
        add(&mut rig.engine, 1, page(&elsewhere, 0));
        assert_eq!(rig.engine.vectors[1].buffer, Buffer::None);
    }

    #[test]
    fn data_goes_both_ways_fixed_and_not() {
        for register in [false, true] {
            let mut rig = rig();
            if register {
                rig.engine.use_memory(rig.memory.clone()).unwrap();
            }
            let memory = rig.memory.clone();
            let page = |index| page(&memory, index);
            page(0).copy_in(0, &[7; PAGE_SIZE]);
            page(3).copy_in(0, &[9; PAGE_SIZE]);
            rig.engine.clear(0);
            add(&mut rig.engine, 0, page(0));
            add(&mut rig.engine, 0, page(3));
            rig.engine.transfer(0, Direction::Write, ImageFile::Direct, 512);
            let done = finish(&mut rig.engine);
            assert_eq!((done.token, done.result), (Token::Slot(0), 8192));

            rig.engine.clear(2);
            add(&mut rig.engine, 2, page(6).part(512, 1024).unwrap());
            let fixed = rig.engine.transfer(2, Direction::Read, ImageFile::Buffered, 512 + 3584);
            assert_eq!(fixed, register);
            assert_eq!(finish(&mut rig.engine).result, 1024);
            assert_eq!(page(6).read::<[u8; 2]>(512 + 511), [7, 9]);

            rig.engine.sync(3);
            assert_eq!(finish(&mut rig.engine).result, 0);
        }
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let mut rig = rig();
        rig.image.write_all(&[1; 3 * 4096]).unwrap();
        rig.engine.clear(0);
        for index in [0, 2, 4] {
            add(&mut rig.engine, 0, page(&rig.memory, index));
        }
        rig.engine.advance(0, 4096 + 1024);
        rig.engine.transfer(0, Direction::Read, ImageFile::Direct, 4096 + 1024);
        assert_eq!(finish(&mut rig.engine).result, 2 * 4096 - 1024);
        let byte = |index, at| page(&rig.memory, index).read::<u8>(at);
        assert_eq!((byte(0, 0), byte(2, 1023), byte(2, 1024), byte(4, 4095)), (0, 0, 1, 1));
    }

    #[test]
    fn only_memory_in_use_is_registered_and_only_within_a_buffer() {
        let memory = pages((3 * BUFFER_LEN - PAGE_SIZE) / PAGE_SIZE);
        let mut rig = rig();
        rig.engine.use_memory(memory.clone()).unwrap();
        let buffer = |rig: &mut Rig, offset, len| {
            rig.engine.clear(0);
            add(&mut rig.engine, 0, memory.as_region().part(offset, len).unwrap());
            rig.engine.vectors[0].buffer
        };
        assert_eq!(buffer(&mut rig, 2 * BUFFER_LEN, BUFFER_LEN - PAGE_SIZE), Buffer::Fixed(2));
        assert_eq!(buffer(&mut rig, BUFFER_LEN - 512, 1024), Buffer::None);
        let registered = &rig.engine.fixed.as_ref().unwrap().registered;
        assert_eq!(registered.as_slice(), [None, None, Some(true)]);
    }

    /// What was given back while the kernel had it would be other pages than those that are there now.
    #[test]
    fn memory_given_back_is_registered_anew() {
        let mut rig = rig();
        rig.engine.use_memory(rig.memory.clone()).unwrap();
        for byte in [3, 4] {
            page(&rig.memory, 1).copy_in(0, &[byte; PAGE_SIZE]);
            rig.engine.clear(0);
            add(&mut rig.engine, 0, page(&rig.memory, 1));
            assert!(rig.engine.transfer(0, Direction::Write, ImageFile::Direct, 0));
            assert_eq!(finish(&mut rig.engine).result, PAGE_SIZE as i32);
            let mut found = Vec::new();
            rig.image.rewind().unwrap();
            rig.image.read_to_end(&mut found).unwrap();
            assert_eq!(found, [byte; PAGE_SIZE]);
            rig.engine.forget_memory().unwrap();
            rig.memory.forget().unwrap();
        }
    }

    #[test]
    fn events_doorbell_and_timeout_pass_through_the_ring() {
        let mut rig = rig();
        rig.engine.read(Source::Event);
        assert!(rig.engine.ring_doorbell());
        assert!(rig.engine.enter(true, Some(Duration::from_millis(1))).unwrap());
        assert!(rig.engine.next().is_none(), "a doorbell ends no wait");
        let mut rung = [0; 8];
        File::from(rig.doorbell).read_exact(&mut rung).unwrap();
        assert_eq!(u64::from_ne_bytes(rung), 1);

        assert!(rig.engine.enter(true, Some(Duration::from_millis(1))).unwrap());
        assert!(rig.engine.next().is_none(), "nobody rang");
        rustix::io::write(&rig.event, &5u64.to_ne_bytes()).unwrap();
        assert_eq!(finish(&mut rig.engine).token, Token::Source(Source::Event));
        assert!(!rig.engine.enter(false, None).unwrap(), "nothing to do is no system call");
    }

    /// A peer that never looks at its doorbell leaves it full. What cannot be added must not wait in the kernel for
    /// better times: it would be one more operation for each batch, without end.
    #[test]
    fn a_full_doorbell_collects_nothing() {
        let mut rig = rig();
        rustix::io::write(&rig.doorbell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..3 {
            assert!(rig.engine.ring_doorbell());
            assert!(rig.engine.enter(false, None).unwrap());
        }
        let mut full = [0; 8];
        rustix::io::read(&rig.doorbell, &mut full).unwrap();
        assert_eq!(u64::from_ne_bytes(full), u64::MAX - 1);
        assert!(rig.engine.enter(true, Some(Duration::from_millis(20))).unwrap());
        while let Some(done) = rig.engine.next() {
            assert_eq!((done.token, done.result), (Token::Doorbell, -libc::EAGAIN));
        }
        let late = rustix::io::read(&rig.doorbell, &mut full);
        assert_eq!(late, Err(rustix::io::Errno::AGAIN), "{full:?}");
    }

    #[test]
    fn dropping_cancels_what_waits() {
        let mut rig = rig();
        rig.engine.read(Source::Event);
        rig.engine.read(Source::Control);
        assert!(rig.engine.enter(true, Some(Duration::ZERO)).unwrap());
        drop(rig.engine);
    }
}
