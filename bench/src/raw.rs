// SPDX-License-Identifier: MIT OR Apache-2.0

//! The baseline of the block benchmarks: a file through raw io_uring, with a registered file, one registered buffer and
//! one submission per batch, which is as good as the kernel does it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use frontend_user::load::{Direction, Target};
use hypervisor_client::mapped::Mapped;
use io_uring::{IoUring, opcode, squeue, types};
use ring_proto::shared::{AsRegion, PAGE_SIZE, SharedMemory};

/// A file or block device, as a target of the load generator.
pub struct RawDisk {
    /// Dropped first: the kernel writes into `memory` until then.
    lane: Option<Lane>,
    file: File,
    capacity: u64,
}

/// The ring, and the memory of its slots.
struct Lane {
    uring: IoUring,
    memory: Mapped,
    block: usize,
    in_flight: usize,
}

impl RawDisk {
    /// Opens `path` for reading and writing, with `O_DIRECT` if `direct`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened so.
    pub fn open(path: &Path, direct: bool) -> io::Result<Self> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let capacity = file.seek(SeekFrom::End(0))?;
        Ok(Self { lane: None, file, capacity })
    }
}

impl Target for RawDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn prepare(&mut self, depth: usize, block: usize) -> io::Result<()> {
        self.lane = None;
        let entries = u32::try_from(depth).map_err(io::Error::other)?;
        let lane = Lane {
            uring: IoUring::new(entries)?,
            memory: Mapped::anonymous((depth * block).div_ceil(PAGE_SIZE))?,
            block,
            in_flight: 0,
        };
        lane.uring.submitter().register_files(&[self.file.as_raw_fd()])?;
        let memory = lane.memory.as_region();
        let buffer = libc::iovec { iov_base: memory.base().as_ptr().cast(), iov_len: memory.len() };
        // SAFETY: the memory is mapped until `Lane` is dropped, which closes the ring before it unmaps.
        unsafe { lane.uring.submitter().register_buffers(&[buffer])? };
        self.lane = Some(lane);
        Ok(())
    }

    fn fill(&mut self, slot: usize, data: &[u8]) {
        if let Some(lane) = &self.lane {
            lane.memory.copy_in(slot * lane.block, data);
        }
    }

    fn fetch(&mut self, slot: usize, data: &mut [u8]) {
        if let Some(lane) = &self.lane {
            lane.memory.copy_out(slot * lane.block, data);
        }
    }

    fn submit(&mut self, slot: usize, direction: Direction, offset: u64) -> io::Result<()> {
        let lane = self.lane.as_mut().ok_or_else(unprepared)?;
        let entry = lane.entry(slot, direction, offset).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("slot {slot} is outside the depth"))
        })?;
        // SAFETY: the buffer lies in the registered memory, which outlives the ring.
        unsafe { lane.uring.submission().push(&entry) }.map_err(io::Error::other)?;
        lane.in_flight += 1;
        Ok(())
    }

    fn complete(&mut self, done: &mut impl FnMut(usize, io::Result<()>)) -> io::Result<()> {
        let lane = self.lane.as_mut().ok_or_else(unprepared)?;
        if lane.in_flight == 0 {
            return Ok(());
        }
        lane.uring.submit_and_wait(1)?;
        for entry in lane.uring.completion() {
            lane.in_flight -= 1;
            let result = match usize::try_from(entry.result()) {
                Ok(length) if length == lane.block => Ok(()),
                Ok(length) => {
                    Err(io::Error::other(format!("only {length} bytes of {}", lane.block)))
                }
                Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            };
            done(entry.user_data() as usize, result);
        }
        Ok(())
    }
}

impl Lane {
    fn entry(&self, slot: usize, direction: Direction, offset: u64) -> Option<squeue::Entry> {
        let memory = self.memory.as_region().part(slot.checked_mul(self.block)?, self.block)?;
        let (file, at, len) = (types::Fixed(0), memory.base().as_ptr(), self.block as u32);
        let entry = match direction {
            Direction::Read => opcode::ReadFixed::new(file, at, len, 0).offset(offset).build(),
            Direction::Write => opcode::WriteFixed::new(file, at, len, 0).offset(offset).build(),
        };
        Some(entry.user_data(slot as u64))
    }
}

fn unprepared() -> io::Error {
    io::Error::other("used before it was prepared")
}
