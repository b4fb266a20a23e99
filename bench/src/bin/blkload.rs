// SPDX-License-Identifier: MIT OR Apache-2.0

//! `blkload DEVICE …`: the load of `cargo xtask lab bench block`, run in the guest.
//!
//! Direct I/O of one block size, so many requests at a time on each of so many CPUs: at depth 1 with `pread` and
//! `pwrite`, deeper through io_uring with a registered file and registered buffers. What is measured stands between two
//! [marks](bench::mark) that the lab's QEMU plugin sees; before them, every thread has done some requests, so that the
//! drivers have their grants and the ring is warm. Prints one line of `key=value`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use bench::mark;
use clap::{Parser, ValueEnum};
use hypervisor_client::mapped::Mapped;
use io_uring::{IoUring, opcode, types};
use ring_proto::shared::{AsRegion, PAGE_SIZE, SharedMemory};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Loads a block device.
#[derive(Clone, Parser)]
struct Options {
    /// The block device.
    device: PathBuf,
    /// Which way data goes.
    #[arg(long, value_enum, default_value_t = Op::Read)]
    op: Op,
    /// Where to.
    #[arg(long, value_enum, default_value_t = Pattern::Random)]
    pattern: Pattern,
    /// Bytes of a request.
    #[arg(long, default_value_t = 4096)]
    block: usize,
    /// Requests at a time, of each thread.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Requests to measure, of each thread.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Requests before that, of each thread.
    #[arg(long, default_value_t = 256)]
    warm: usize,
    /// Threads, the first on the first CPU, and so on.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Which random places.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Op {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Pattern {
    Random,
    Sequential,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(options.depth > 0 && options.requests > 0 && options.threads > 0, "nothing to do");
    ensure!(options.block > 0 && options.block % 512 == 0, "blocks are whole sectors");
    let (warm, start) = (Barrier::new(options.threads + 1), Barrier::new(options.threads + 1));
    let (mut times, whole, elapsed) = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|number| {
                let (options, warm, start) = (&options, &warm, &start);
                scope.spawn(move || {
                    let lane = Lane::new(options, number).and_then(|mut lane| {
                        lane.run(options.warm, &mut Vec::new()).map(|()| lane)
                    });
                    // Also when that failed: the others wait.
                    warm.wait();
                    start.wait();
                    let mut times = Vec::with_capacity(options.requests);
                    lane?.run(options.requests, &mut times).map(|()| times)
                })
            })
            .collect();
        warm.wait();
        let begin = (Instant::now(), mark::ticks());
        mark::begin();
        start.wait();
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        mark::end();
        let (elapsed, ticks) = (begin.0.elapsed(), mark::ticks() - begin.1);
        let mut times = Vec::new();
        for result in results {
            let result: anyhow::Result<Vec<u64>> =
                result.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            times.extend(result?);
        }
        anyhow::Ok((times, ticks, elapsed))
    })?;
    times.sort_unstable();
    let nanoseconds = |ticks: u64| u128::from(ticks) * elapsed.as_nanos() / u128::from(whole);
    println!(
        "requests={} ns={} p50={} p99={}",
        times.len(),
        elapsed.as_nanos() / times.len() as u128,
        nanoseconds(times[times.len() / 2]),
        nanoseconds(times[times.len() * 99 / 100]),
    );
    Ok(())
}

/// A thread's own file, memory and ring.
struct Lane {
    file: File,
    blocks: u64,
    memory: Mapped,
    uring: Option<IoUring>,
    op: Op,
    block: usize,
    depth: usize,
    place: Place,
}

/// The sequence of places on the disk.
struct Place {
    pattern: Pattern,
    state: u64,
}

impl Place {
    fn next(&mut self, blocks: u64) -> u64 {
        match self.pattern {
            Pattern::Sequential => self.state = self.state.wrapping_add(1),
            Pattern::Random => {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
            }
        }
        self.state % blocks
    }
}

impl Lane {
    fn new(options: &Options, number: usize) -> anyhow::Result<Self> {
        let mut cpus = CpuSet::new();
        cpus.set(number);
        sched_setaffinity(None, &cpus).with_context(|| format!("no CPU {number}"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(options.op == Op::Write)
            .custom_flags(libc::O_DIRECT)
            .open(&options.device)
            .with_context(|| format!("cannot open {}", options.device.display()))?;
        let blocks = file.seek(SeekFrom::End(0))? / options.block as u64;
        ensure!(blocks > 0, "the device is smaller than a block");
        let memory = Mapped::anonymous((options.depth * options.block).div_ceil(PAGE_SIZE))?;
        let uring =
            (options.depth > 1).then(|| uring(&file, &memory, options.depth)).transpose()?;
        // Never 0, of which no random sequence gets away, and each thread's far from the others'.
        let seed = (options.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number as u64) << 32;
        let state = match options.pattern {
            Pattern::Random => seed | 1,
            Pattern::Sequential => blocks / options.threads as u64 * number as u64,
        };
        let place = Place { pattern: options.pattern, state };
        let Options { op, block, depth, .. } = *options;
        Ok(Self { file, blocks, memory, uring, op, block, depth, place })
    }

    /// Does so many requests, and notes how many ticks each took.
    fn run(&mut self, requests: usize, times: &mut Vec<u64>) -> anyhow::Result<()> {
        if self.uring.is_some() {
            self.deep(requests, times)
        } else {
            self.one_by_one(requests, times)
        }
    }

    fn offset(&mut self) -> u64 {
        self.place.next(self.blocks) * self.block as u64
    }

    fn one_by_one(&mut self, requests: usize, times: &mut Vec<u64>) -> anyhow::Result<()> {
        for _ in 0..requests {
            let offset = self.offset();
            let begin = mark::ticks();
            let memory = self.memory.as_region().base().as_ptr();
            // SAFETY: the lane's own memory, at least a block of it, which nothing else touches meanwhile.
            let buffer = unsafe { std::slice::from_raw_parts_mut(memory, self.block) };
            match self.op {
                Op::Read => self.file.read_exact_at(buffer, offset)?,
                Op::Write => self.file.write_all_at(buffer, offset)?,
            }
            times.push(mark::ticks() - begin);
        }
        Ok(())
    }

    fn deep(&mut self, requests: usize, times: &mut Vec<u64>) -> anyhow::Result<()> {
        let mut begins = vec![0; self.depth];
        let mut free: Vec<usize> = (0..self.depth).rev().collect();
        let (mut sent, mut done) = (0, 0);
        while done < requests {
            while sent < requests {
                let Some(slot) = free.pop() else { break };
                begins[slot] = mark::ticks();
                self.push(slot)?;
                sent += 1;
            }
            let Some(uring) = &mut self.uring else { break };
            uring.submit_and_wait(1)?;
            for entry in uring.completion() {
                let result = entry.result();
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result).into());
                }
                ensure!(result as usize == self.block, "only {result} bytes of a block");
                let slot = entry.user_data() as usize;
                times.push(mark::ticks() - begins[slot]);
                free.push(slot);
                done += 1;
            }
        }
        Ok(())
    }

    fn push(&mut self, slot: usize) -> anyhow::Result<()> {
        let offset = self.offset();
        let part = self.memory.as_region().part(slot * self.block, self.block);
        let memory = part.context("a slot outside of the memory")?.base().as_ptr();
        let (file, length) = (types::Fixed(0), self.block as u32);
        let entry = match self.op {
            Op::Read => opcode::ReadFixed::new(file, memory, length, 0).offset(offset).build(),
            Op::Write => opcode::WriteFixed::new(file, memory, length, 0).offset(offset).build(),
        };
        let uring = self.uring.as_mut().context("no ring")?;
        // SAFETY: the slot's memory belongs to this request until its completion, and is unmapped after the ring.
        unsafe { uring.submission().push(&entry.user_data(slot as u64)) }?;
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Before the memory: the kernel writes into it until then.
        self.uring = None;
    }
}

/// A ring with the file and the memory registered.
fn uring(file: &File, memory: &Mapped, depth: usize) -> anyhow::Result<IoUring> {
    let uring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::try_from(depth)?)?;
    uring.submitter().register_files(&[file.as_raw_fd()])?;
    let memory = memory.as_region();
    let buffer = libc::iovec { iov_base: memory.base().as_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the memory stays mapped until the lane has dropped the ring.
    unsafe { uring.submitter().register_buffers(&[buffer])? };
    Ok(uring)
}
