// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;

/// What the disk in memory does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges the write with this number without doing it.
    Lose(u64),
    /// Does the write with this number a block further.
    Misplace(u64),
    /// Does half of the write with this number.
    Tear(u64),
    /// Fails the request with this number.
    Fail(u64),
}

/// A disk in memory, shared by the targets.
struct Memory {
    disk: Arc<Mutex<Vec<u8>>>,
    slots: Vec<Vec<u8>>,
    queue: VecDeque<(usize, Direction, usize)>,
    count: u64,
    fault: Fault,
    deepest: usize,
}

impl Memory {
    fn new(bytes: usize, fault: Fault) -> Self {
        let disk = Arc::new(Mutex::new(vec![0; bytes]));
        Self { disk, slots: Vec::new(), queue: VecDeque::new(), count: 0, fault, deepest: 0 }
    }

    fn again(&self) -> Self {
        Self { disk: self.disk.clone(), ..Self::new(0, self.fault) }
    }
}

impl Target for Memory {
    fn capacity(&self) -> u64 {
        self.disk.lock().unwrap().len() as u64
    }

    fn prepare(&mut self, depth: usize, block: usize) -> io::Result<()> {
        self.slots = vec![vec![0; block]; depth];
        Ok(())
    }

    fn fill(&mut self, slot: usize, data: &[u8]) {
        self.slots[slot].copy_from_slice(data);
    }

    fn fetch(&mut self, slot: usize, data: &mut [u8]) {
        data.copy_from_slice(&self.slots[slot]);
    }

    fn submit(&mut self, slot: usize, direction: Direction, offset: u64) -> io::Result<()> {
        self.queue.push_back((slot, direction, offset as usize));
        self.deepest = self.deepest.max(self.queue.len());
        Ok(())
    }

    fn complete(&mut self, done: &mut impl FnMut(usize, io::Result<()>)) -> io::Result<()> {
        // Half of them, the newest first, so that requests stay in flight and overtake each other.
        for _ in 0..self.queue.len().div_ceil(2) {
            let (slot, direction, mut offset) = self.queue.pop_back().unwrap();
            let (block, mut disk) = (&mut self.slots[slot], self.disk.lock().unwrap());
            self.count += 1;
            if self.fault == Fault::Fail(self.count) {
                done(slot, Err(io::Error::other("broken")));
                continue;
            }
            let mut len = block.len();
            if direction == Direction::Read {
                block.copy_from_slice(&disk[offset..offset + len]);
            } else {
                match self.fault {
                    Fault::Lose(count) if count == self.count => len = 0,
                    Fault::Tear(count) if count == self.count => len /= 2,
                    Fault::Misplace(count) if count == self.count => {
                        offset = (offset + len) % disk.len()
                    }
                    _ => {}
                }
                disk[offset..offset + len].copy_from_slice(&block[..len]);
            }
            done(slot, Ok(()));
        }
        Ok(())
    }
}

const BLOCKS: u64 = 64;

fn verified(reads: u8, count: u64) -> Job {
    Job {
        reads,
        count: Some(count),
        verify: true,
        depth: 8,
        time: Duration::from_secs(60),
        ..Job::default()
    }
}

fn with_fault(fault: Fault) -> io::Result<Report> {
    let mut targets = [Memory::new(BLOCKS as usize * 4096, fault)];
    run(
        &Job { order: Order::Sequential, ..verified(0, 2 * BLOCKS) },
        &mut targets,
        &Progress::default(),
    )
}

#[test]
fn a_good_disk_verifies() {
    let first = Memory::new(BLOCKS as usize * 4096, Fault::None);
    let mut targets = [first.again(), first.again(), first];
    let progress = Progress::default();
    let report = run(&verified(50, 500), &mut targets, &progress).unwrap();
    assert_eq!(report.damaged, 0, "{report}");
    assert_eq!(report.reads + report.writes, 1500);
    assert!(report.reads > 500 && report.writes > 500, "{report}");
    // Each block was written, and read at the end at least.
    assert!(report.verified > BLOCKS, "{report}");
    assert!(progress.done() >= 1500);
    assert!(targets.iter().all(|target| target.deepest == 8));
}

#[test]
fn a_lost_write_is_stale() {
    let report = with_fault(Fault::Lose(BLOCKS + 5)).unwrap();
    assert_eq!(report.damaged, 1, "{report}");
    assert!(report.damage[0].contains("is that of write 1, acknowledged was 2"), "{report}");
}

#[test]
fn a_write_that_never_happened_is_seen() {
    let report = with_fault(Fault::Lose(2 * BLOCKS)).unwrap();
    assert_eq!(report.damaged, 1, "{report}");
}

#[test]
fn a_torn_write_is_told() {
    let report = with_fault(Fault::Tear(BLOCKS + 5)).unwrap();
    assert_eq!(report.damaged, 1, "{report}");
    assert!(report.damage[0].contains("torn between its writes 1 and 2"), "{report}");
}

#[test]
fn a_misplaced_write_is_told() {
    // The second write of the last blocks: nothing overwrites the place where it lands.
    let report = with_fault(Fault::Misplace(2 * BLOCKS)).unwrap();
    assert!(report.damaged >= 1, "{report}");
    assert!(report.damage.iter().any(|damage| damage.contains("belongs to")), "{report}");
}

#[test]
fn a_failed_request_ends_the_job_and_is_named() {
    let error = with_fault(Fault::Fail(10)).unwrap_err().to_string();
    assert!(error.starts_with("writing 4096 bytes at ") && error.ends_with(": broken"), "{error}");
}

#[test]
fn a_job_can_be_stopped() {
    let progress = Progress::default();
    progress.stop();
    let job = Job { time: Duration::from_secs(3600), ..Job::default() };
    let report = run(&job, &mut [Memory::new(1 << 20, Fault::None)], &progress).unwrap();
    assert_eq!(report.reads, 0);
}

#[test]
fn a_job_that_the_disk_has_no_room_for_is_refused() {
    let mut targets = [Memory::new(10 * 4096, Fault::None)];
    let error = run(&Job::default(), &mut targets, &Progress::default()).unwrap_err().to_string();
    assert!(error.starts_with("10 blocks of 4096 bytes are too few"), "{error}");
    let job = Job { block: 1000, ..Job::default() };
    let error = run(&job, &mut targets, &Progress::default()).unwrap_err().to_string();
    assert!(error.contains("no multiple of 512"), "{error}");
}
