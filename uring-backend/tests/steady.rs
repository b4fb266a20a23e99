// SPDX-License-Identifier: MIT OR Apache-2.0

//! The data path in its steady state, counted: allocations, and system calls for each batch.

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rig::{FrontQueue, Frontend, Rig, Wanted};
use ring_proto::blkif::{RwOp, Status};
use uring_backend::{Format, Options, fetch_stats};

/// Counts allocations of all threads but those that say otherwise.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: all calls are passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !EXEMPT.try_with(Cell::get).unwrap_or(true) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One test at a time: allocations of all threads are counted together.
static ALONE: Mutex<()> = Mutex::new(());

/// Keeps `depth` requests of `pages` pages under way until `count` are answered: two reads, then a write.
fn load(queue: &mut FrontQueue, depth: usize, pages: usize, count: usize) {
    let mut free: VecDeque<usize> = (0..depth).collect();
    let mut asked = VecDeque::new();
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count {
            let Some(place) = free.pop_front() else { break };
            let segments = queue.segments(place * pages, pages * 8);
            let op = if sent % 3 == 2 { RwOp::Write } else { RwOp::Read };
            let request = queue.rw(op, (sent * 104729 % 400 * 8) as u64, &segments);
            asked.push_back((request.tag().id, place));
            queue.ring.push(&request).unwrap();
            sent += 1;
        }
        queue.publish();
        let response = queue.answer();
        assert_eq!(response.status, Status::Okay);
        let at = asked.iter().position(|(id, _)| *id == response.id).unwrap();
        free.push_back(asked.remove(at).unwrap().1);
        answered += 1;
    }
}

/// Waits until the threads of the control path have done what a new disk gives them to do.
fn settle() {
    let mut seen = None;
    while seen != Some(ALLOCATIONS.load(Ordering::Relaxed)) {
        seen = Some(ALLOCATIONS.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Counts {
    allocations: u64,
    stats: serde_json::Value,
}

impl Counts {
    fn stat(&self, name: &str) -> u64 {
        self.stats[0]["queues"][0][name].as_u64().unwrap()
    }
}

/// Loads a queue until it is warm, then again, and returns what the second load cost.
fn cost(wanted: Wanted, options: Options, depth: usize, pages: usize) -> impl Fn(&str) -> u64 {
    EXEMPT.with(|exempt| exempt.set(true));
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let rig = Rig::new();
    let image = rig.image("disk", 4 << 20);
    let socket = rig.dir.path().join("stats");
    let options = Options { stats: Some(socket.clone()), check: 0, ..options };
    let _backend = rig.start(options);
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, wanted);
    let queue = &mut front.queues[0];
    let count = || {
        let stats = serde_json::from_str(&fetch_stats(&socket, Format::Json).unwrap()).unwrap();
        Counts { stats, allocations: ALLOCATIONS.load(Ordering::Relaxed) }
    };
    load(queue, depth, pages, 400);
    settle();
    let before = count();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let rung = queue.rung;
    load(queue, depth, pages, 2000);
    let rung = queue.rung - rung;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    let after = count();
    assert!(after.allocations >= before.allocations);
    move |name| match name {
        "allocations" => allocations,
        "rung" => rung,
        _ => after.stat(name) - before.stat(name),
    }
}

#[test]
fn no_allocation_and_one_call_a_batch() {
    for (depth, pages) in [(1, 1), (24, 1), (8, 8), (4, 32)] {
        for poll in [0, 50] {
            let options = Options { poll, ..Options::default() };
            let cost = cost(Wanted::default(), options, depth, pages);
            assert_eq!(cost("allocations"), 0, "depth {depth}, {pages} pages");
            assert_eq!(cost("reads") + cost("writes"), 2000);
            let (calls, batches) = (cost("submissions"), cost("batches"));
            assert_eq!((cost("other_syscalls"), cost("copied_pages")), (0, 0));
            // Who looks for work has submitted already when a doorbell ends that, or the sleep after it.
            let looked = if poll > 0 { cost("rung") } else { 0 };
            // How often a doorbell rings for a request that was seen without it is a matter of timing.
            let empty = cost("empty_passes");
            assert!(
                calls <= batches + looked + empty + 2,
                "depth {depth}, {pages} pages: {calls} calls for {batches} batches, {empty} empty passes, {looked} doorbells"
            );
            assert!(empty <= 2000, "depth {depth}, {pages} pages: {empty} empty passes");
        }
    }
}

/// Without persistent grants, all copies of a batch are one call to the hypervisor each way.
#[test]
fn copies_are_one_call_a_batch() {
    let wanted = Wanted { persistent: false, ..Wanted::default() };
    let cost = cost(wanted, Options::default(), 24, 4);
    assert_eq!(cost("copied_pages"), 2000 * 4);
    assert!(cost("other_syscalls") <= cost("batches"));
}
