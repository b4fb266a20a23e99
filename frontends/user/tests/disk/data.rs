// SPDX-License-Identifier: MIT OR Apache-2.0

//! How operations become requests, with every setting that can be negotiated.

use std::sync::{Arc, Mutex};

use frontend_user::{Disk, Error, Operation, Options, Queue, SECTOR_SIZE, load};
use ring_proto::blkif::{self, Abi, Request, RwOp, Segments, Status};
use ring_proto::xenbus::vbd::{BackendFeatures, Discard, Geometry};

use crate::scripted::{Backend, FEATURES, Serving, World};

const SECTORS: u64 = 1 << 15;

fn connect(
    world: &World,
    features: BackendFeatures,
    geometry: Geometry,
    options: Options,
) -> (Disk, Vec<Queue>, Backend) {
    let mut backend = Backend::offer(world, features, geometry);
    let mut disk = std::thread::scope(|scope| {
        scope.spawn(|| backend.connect());
        world.connect(options).unwrap()
    });
    let queues = disk.take_queues();
    (disk, queues, backend)
}

/// Serves one operation and returns how many completions there were.
fn serve_one(queue: &mut Queue, backend: &mut Backend, image: &mut [u8]) -> usize {
    let mut count = 0;
    queue.kick();
    while queue.outstanding() > 0 {
        backend.serve(image);
        queue
            .complete(&mut |completion| {
                completion.result.unwrap();
                count += 1;
            })
            .unwrap();
    }
    count
}

/// Writes a megabyte from the middle of a page and reads it back. Returns the requests that this took.
fn large(features: BackendFeatures, options: Options) -> frontend_user::Statistics {
    const LEN: u32 = 2048;
    let world = World::new();
    let (disk, mut queues, mut backend) =
        connect(&world, features, Geometry::new(SECTORS), options);
    let queue = &mut queues[0];
    let data: Vec<u8> = (0..LEN as usize * SECTOR_SIZE).map(|at| (at / 7) as u8).collect();
    let buffer = queue.buffer(LEN + 8).unwrap();
    queue.copy_in(&buffer, 3 * SECTOR_SIZE, &data);
    let mut image = vec![0; SECTORS as usize * SECTOR_SIZE];
    let from = buffer.part(3, LEN).unwrap();
    queue.submit(Operation::Write { sector: 5, from }, 1).unwrap();
    assert_eq!(serve_one(queue, &mut backend, &mut image), 1);
    assert_eq!(image[5 * SECTOR_SIZE..][..data.len()], data);

    queue.copy_in(&buffer, 0, &vec![0; data.len()]);
    queue.submit(Operation::Read { sector: 5, into: buffer.part(1, LEN).unwrap() }, 2).unwrap();
    assert_eq!(serve_one(queue, &mut backend, &mut image), 1);
    let mut back = vec![0; data.len()];
    queue.copy_out(&buffer, SECTOR_SIZE, &mut back);
    assert!(back == data);
    disk.statistics()[0]
}

#[test]
fn large_operations_are_split_as_negotiated() {
    let direct = large(BackendFeatures::default(), Options::default());
    // 257 pages of 11 segments each, twice.
    assert_eq!((direct.requests, direct.indirect), (2 * 24, 0));
    let indirect = large(FEATURES, Options::default());
    assert_eq!((indirect.requests, indirect.indirect), (4, 2));
    let less = large(FEATURES, Options { indirect_segments: 32, ..Options::default() });
    assert_eq!((less.requests, less.indirect), (2 * 9, 2 * 8));
    let none = large(FEATURES, Options { indirect_segments: 0, ..Options::default() });
    assert_eq!((none.requests, none.indirect), (2 * 24, 0));
}

#[test]
fn more_indirect_requests_than_pages_for_them_go_out_direct() {
    let world = World::new();
    let options = Options { ring_page_order: 3, ..Options::default() };
    let (disk, mut queues, mut backend) =
        connect(&world, FEATURES, Geometry::new(SECTORS), options);
    let queue = &mut queues[0];
    let buffer = queue.buffer(96).unwrap();
    for tag in 0..80 {
        queue.submit(Operation::Write { sector: 96 * tag, from: buffer.span() }, tag).unwrap();
    }
    let mut image = vec![0; SECTORS as usize * SECTOR_SIZE];
    assert_eq!(serve_one(queue, &mut backend, &mut image), 80);
    let statistics = disk.statistics()[0];
    // 64 in one request of 12 segments, the others in one of 11 and one of 1.
    assert_eq!((statistics.indirect, statistics.requests), (64, 64 + 2 * 16));
}

#[test]
fn every_setting_is_negotiated_and_carries_data() {
    for (ring_page_order, queues, x86_32, indirect_segments, no_persistent) in [
        (0, 1, false, 256, false),
        (1, 2, true, 32, false),
        (4, 4, false, 0, true),
        (2, 3, true, 0, true),
    ] {
        let world = World::new();
        let options = Options {
            ring_page_order,
            queues,
            x86_32,
            indirect_segments,
            no_persistent,
            ..Options::default()
        };
        let (disk, mut queues, backend) =
            connect(&world, FEATURES, Geometry::new(SECTORS), options.clone());
        let settings = disk.settings();
        assert_eq!((settings.queues, settings.ring_page_order), (options.queues, ring_page_order));
        assert_eq!(settings.abi, if x86_32 { Abi::X86_32 } else { Abi::X86_64 });
        assert_eq!(
            (settings.indirect_segments, settings.persistent),
            (indirect_segments, !no_persistent)
        );
        let image = vec![0; SECTORS as usize * SECTOR_SIZE];
        let serving = Serving::start(backend, Arc::new(Mutex::new(image)));
        for block in [512, 4096, 65536] {
            let mut targets: Vec<_> = queues.iter_mut().map(load::QueueTarget::new).collect();
            let job = load::Job {
                reads: 50,
                verify: true,
                block,
                depth: 8,
                count: Some(60),
                ..load::Job::default()
            };
            let report = load::run(&job, &mut targets, &load::Progress::default()).unwrap();
            assert_eq!(report.damaged, 0, "{report}");
            assert_eq!(report.reads + report.writes, 60 * u64::from(options.queues));
        }
        drop(serving);
    }
}

#[test]
fn a_backend_that_offers_nothing_is_enough() {
    let world = World::new();
    let (disk, mut queues, mut backend) = connect(
        &world,
        BackendFeatures::default(),
        Geometry::new(SECTORS),
        Options { queues: 4, ..Options::default() },
    );
    let settings = disk.settings();
    assert_eq!((settings.queues, settings.ring_page_order, settings.indirect_segments), (1, 0, 0));
    assert!(!settings.persistent && !settings.flush && !settings.barrier);
    let queue = &mut queues[0];
    let buffer = queue.buffer(8).unwrap();
    queue.submit(Operation::Flush, 1).unwrap();
    queue.submit(Operation::Barrier { sector: 0, from: buffer.span() }, 2).unwrap();
    let mut refused = Vec::new();
    queue.complete(&mut |completion| refused.push(completion)).unwrap();
    assert_eq!(refused.len(), 2);
    for completion in refused {
        assert!(matches!(completion.result, Err(Error::Unsupported { .. })), "{completion:?}");
    }
    assert!(backend.is_idle(0));
}

/// A backend that was not asked whether it can would answer that it has.
#[test]
fn a_secure_discard_is_not_sent_to_a_backend_without() {
    let world = World::new();
    let discard = Some(Discard { granularity: 4096, alignment: 0, secure: false });
    let geometry = Geometry { discard, ..Geometry::new(SECTORS) };
    let (_disk, mut queues, mut backend) = connect(&world, FEATURES, geometry, Options::default());
    let queue = &mut queues[0];
    queue.submit(Operation::Discard { sector: 16, count: 8, secure: true }, 1).unwrap();
    queue.kick();
    let mut refused = Vec::new();
    queue.complete(&mut |completion| refused.push(completion)).unwrap();
    assert!(
        matches!(
            refused[..],
            [frontend_user::Completion { tag: 1, result: Err(Error::Unsupported { .. }) }]
        ),
        "{refused:?}"
    );
    assert!(backend.is_idle(0));
}

#[test]
fn flush_barrier_and_discard_are_what_they_are() {
    let world = World::new();
    let discard = Some(Discard { granularity: 4096, alignment: 0, secure: true });
    let geometry = Geometry { discard, ..Geometry::new(SECTORS) };
    let (_disk, mut queues, mut backend) = connect(&world, FEATURES, geometry, Options::default());
    let queue = &mut queues[0];
    let buffer = queue.buffer(100).unwrap();
    queue.submit(Operation::Flush, 1).unwrap();
    queue.submit(Operation::Barrier { sector: 8, from: buffer.part(0, 88).unwrap() }, 2).unwrap();
    queue.submit(Operation::Discard { sector: 16, count: 1 << 14, secure: true }, 3).unwrap();
    queue.submit(Operation::Barrier { sector: 8, from: buffer.span() }, 4).unwrap();
    queue.kick();
    assert!(matches!(backend.take(0), Request::Flush { barrier: false, .. }));
    match backend.take(0) {
        Request::Rw(rw) => {
            assert_eq!((rw.op, rw.sector, rw.segments.count()), (RwOp::WriteBarrier, 8, 11));
            assert!(matches!(rw.segments, Segments::Direct(_)));
        }
        other => panic!("{other:?}"),
    }
    match backend.take(0) {
        Request::Discard(discard) => {
            assert_eq!((discard.sector, discard.count, discard.secure), (16, 1 << 14, true));
        }
        other => panic!("{other:?}"),
    }
    let mut refused = Vec::new();
    queue.complete(&mut |completion| refused.push(completion)).unwrap();
    assert!(matches!(
        refused[..],
        [frontend_user::Completion { tag: 4, result: Err(Error::LongBarrier { .. }) }]
    ));
}

#[test]
fn a_flush_goes_as_a_barrier_where_that_is_all_there_is() {
    let world = World::new();
    let features = BackendFeatures { flush_cache: false, ..FEATURES };
    let (_disk, mut queues, mut backend) =
        connect(&world, features, Geometry::new(SECTORS), Options::default());
    queues[0].submit(Operation::Flush, 1).unwrap();
    queues[0].kick();
    let request = backend.take(0);
    assert_eq!(request.tag().operation, blkif::Operation::WriteBarrier as u8);
    backend.answer(0, request.tag(), Status::Okay);
    let mut done = 0;
    while done == 0 {
        queues[0].wait(None);
        done = queues[0].complete(&mut |completion| completion.result.unwrap()).unwrap();
    }
}

#[test]
fn what_does_not_fit_the_disk_is_refused_before_it_is_sent() {
    let world = World::new();
    let geometry =
        Geometry { sector_size: 4096, physical_sector_size: 4096, ..Geometry::new(SECTORS) };
    let (_disk, mut queues, mut backend) = connect(&world, FEATURES, geometry, Options::default());
    let queue = &mut queues[0];
    let buffer = queue.buffer(16).unwrap();
    for (sector, span) in
        [(1, buffer.span()), (0, buffer.part(0, 7).unwrap()), (0, buffer.part(1, 8).unwrap())]
    {
        let refused = queue.submit(Operation::Read { sector, into: span }, 1);
        assert!(matches!(refused, Err(Error::Unaligned { logical: 4096, .. })), "{refused:?}");
    }
    let refused = queue.submit(Operation::Discard { sector: 0, count: 0, secure: false }, 1);
    assert!(matches!(refused, Err(Error::Unaligned { .. })), "{refused:?}");
    let refused =
        queue.submit(Operation::Read { sector: u64::MAX - 7, into: buffer.part(0, 8).unwrap() }, 1);
    assert!(matches!(refused, Err(Error::BeyondEnd { .. })), "{refused:?}");
    queue.kick();
    assert!(backend.is_idle(0));
    assert_eq!(buffer.part(9, 8), None);
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let world = World::new();
    let geometry = Geometry { read_only: true, ..Geometry::new(SECTORS) };
    let (_disk, mut queues, _backend) = connect(&world, FEATURES, geometry, Options::default());
    let buffer = queues[0].buffer(8).unwrap();
    let refused = queues[0].submit(Operation::Write { sector: 0, from: buffer.span() }, 1);
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
}

#[test]
fn memory_and_operations_have_limits_and_come_back() {
    let world = World::new();
    let options = Options { buffers: 64, ring_page_order: 0, ..Options::default() };
    let (_disk, mut queues, mut backend) =
        connect(&world, FEATURES, Geometry::new(SECTORS), options);
    let queue = &mut queues[0];
    let first = queue.buffer(64).unwrap();
    let second = queue.buffer(64).unwrap();
    assert!(matches!(queue.buffer(1), Err(Error::Full)));
    queue.release(first);
    let first = queue.buffer(60).unwrap();
    // Buffers given back in any order leave no holes behind.
    queue.release(second);
    queue.release(first);
    let (first, second) = (queue.buffer(64).unwrap(), queue.buffer(64).unwrap());
    let mut taken = 0;
    while queue.submit(Operation::Write { sector: 0, from: second.span() }, taken).is_ok() {
        taken += 1;
    }
    assert!(taken > 100, "many more than the ring has slots: {taken}");
    let mut image = vec![0; SECTORS as usize * SECTOR_SIZE];
    assert_eq!(serve_one(queue, &mut backend, &mut image) as u64, taken);
    queue.submit(Operation::Read { sector: 0, into: first.span() }, 1).unwrap();
}
