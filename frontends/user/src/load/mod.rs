// SPDX-License-Identifier: MIT OR Apache-2.0

//! The load generator: reads and writes blocks, measures, and verifies what it wrote.
//!
//! A [`Job`] says what to do; [`run`] does it over one [`Target`] for each thread. The disk's blocks are shared out
//! among the threads, so that with [`verify`](Job::verify) each thread knows what every one of its blocks has to hold.

mod pattern;
mod queue;
mod report;
mod target;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use pattern::{Damage, SECTOR, Sequence, Stamp};
pub use queue::QueueTarget;
pub use report::{Latency, Report};
pub use target::{Direction, Target};

use report::Tally;
use worker::Worker;

/// Which blocks follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Any.
    Random,
    /// One after the other, from the beginning again after the last.
    Sequential,
}

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Job {
    /// Share of reads among the blocks, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    /// Which blocks follow each other
    #[arg(long, value_enum, default_value_t = Order::Random)]
    pub order: Order,
    /// Size of a block in bytes, a multiple of 512
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub block: usize,
    /// Blocks in flight for each queue
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub depth: usize,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub time: Duration,
    /// Stop after this many blocks on each queue
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Use only this many bytes from the beginning of the disk
    #[arg(long, value_name = "BYTES")]
    pub span: Option<u64>,
    /// Write blocks that tell who wrote them, and check all of them
    #[arg(long)]
    pub verify: bool,
    /// Where the random numbers begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Default for Job {
    fn default() -> Self {
        Self {
            reads: 100,
            order: Order::Random,
            block: 4096,
            depth: 32,
            time: Duration::from_secs(5),
            count: None,
            span: None,
            verify: false,
            seed: 1,
        }
    }
}

/// How far a job is, to be looked at by another thread, which may also end it.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Blocks read and written until now.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the job as if its time were over.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Does the job over these targets, one thread each.
///
/// With [`Job::verify`], every block that was written is read back at the end; damage stands in the report and is no
/// error of this function.
///
/// # Errors
///
/// When the job asks for what the disk has not, or the disk failed to read or write a block.
pub fn run<T: Target + Send>(
    job: &Job,
    targets: &mut [T],
    progress: &Progress,
) -> io::Result<Report> {
    let count = targets.len() as u64;
    // Differs between two runs with the same seed: the first one's blocks are foreign to the second.
    let run =
        Sequence(job.seed ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64))
            .number();
    let mut workers = (0..)
        .zip(targets)
        .map(|(index, target)| Worker::new(job, target, index, count, run, progress))
        .collect::<io::Result<Vec<_>>>()?;

    let start = Instant::now();
    in_threads(&mut workers, |worker| worker.load(start))?;
    let elapsed = start.elapsed();
    if job.verify {
        in_threads(&mut workers, Worker::verify)?;
    }

    let mut sum = Tally::new();
    workers.iter().for_each(|worker| sum.add(worker.tally()));
    Ok(Report::new(&sum, elapsed, job.block))
}

/// Runs `work` on each worker in a thread of its own; the first error is everybody's.
fn in_threads<W: Send>(
    workers: &mut [W],
    work: impl Fn(&mut W) -> io::Result<()> + Sync,
) -> io::Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            workers.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results
            .into_iter()
            .try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests;
