// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the data path costs, by count: no allocation, no hypercall, one publication and at most one doorbell a batch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use frontend_user::{Operation, Options, SECTOR_SIZE};
use ring_proto::xenbus::vbd::Geometry;

use crate::scripted::{Backend, FEATURES, World};

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; counting touches a constant-initialised thread local without a
// destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_batch_costs_one_publication_and_nothing_else() {
    const BATCHES: u64 = 50;
    const DEPTH: u64 = 32;
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(1 << 15));
    let mut disk = std::thread::scope(|scope| {
        scope.spawn(|| backend.connect());
        world.connect(Options::default()).unwrap()
    });
    let mut queue = disk.take_queues().remove(0);
    let buffers: Vec<_> = (0..DEPTH).map(|_| queue.buffer(128).unwrap()).collect();
    let mut image = vec![0; SECTOR_SIZE << 15];
    let data = [7; 4096];

    let (mut allocations, mut hypercalls) = (0, 0);
    for batch in 0..BATCHES {
        let before = (ALLOCATIONS.get(), world.front.hypercalls());
        for (slot, buffer) in (0..).zip(&buffers) {
            queue.copy_in(buffer, 0, &data);
            let sector = 128 * ((batch + slot) % 256);
            let operation = match slot % 3 {
                0 => Operation::Read { sector, into: buffer.part(0, 8).unwrap() },
                1 => Operation::Write { sector, from: buffer.part(0, 8).unwrap() },
                // Indirect.
                _ => Operation::Write { sector, from: buffer.span() },
            };
            queue.submit(operation, slot).unwrap();
        }
        queue.kick();
        allocations += ALLOCATIONS.get() - before.0;
        hypercalls += world.front.hypercalls() - before.1;

        backend.serve(&mut image);
        let before = (ALLOCATIONS.get(), world.front.hypercalls());
        let mut done = 0;
        while done < DEPTH as usize {
            queue.wait(None);
            done += queue.complete(&mut |completion| completion.result.unwrap()).unwrap();
        }
        allocations += ALLOCATIONS.get() - before.0;
        hypercalls += world.front.hypercalls() - before.1;
    }
    assert_eq!((allocations, hypercalls), (0, 0));
    let statistics = disk.statistics()[0];
    assert_eq!(statistics.operations, BATCHES * DEPTH);
    assert_eq!(statistics.requests, BATCHES * DEPTH);
    assert!(statistics.indirect > BATCHES, "{statistics:?}");
    assert_eq!(statistics.batches, BATCHES);
    assert!(statistics.doorbells <= BATCHES, "{statistics:?}");
}
