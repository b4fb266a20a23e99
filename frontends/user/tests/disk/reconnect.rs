// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that goes away and comes back, in every way that there is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use frontend_user::{Completion, Disk, Error, Operation, Options, Queue, SECTOR_SIZE, load};
use ring_proto::blkif::{Request, Status};
use ring_proto::xenbus::State;
use ring_proto::xenbus::vbd::{BackendFeatures, Geometry};

use crate::scripted::{Backend, FEATURES, OTHER_BACK, Serving, World, back_dir, front_dir};

const SECTORS: u64 = 1 << 13;

fn connect(world: &World, backend: &mut Backend, options: Options) -> Disk {
    std::thread::scope(|scope| {
        scope.spawn(|| backend.connect());
        world.connect(options).unwrap()
    })
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(queue: &mut Queue, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    while all.len() < count {
        queue.wait(None);
        queue.complete(&mut |completion| all.push(completion)).unwrap();
    }
    all
}

fn sector_of(request: &Request) -> u64 {
    match request {
        Request::Rw(rw) => rw.sector,
        other => panic!("{other:?}"),
    }
}

/// Writes ten blocks; the backend takes some, answers one of them, and `goes`. What comes back has to be the others.
fn unanswered_requests_are_sent_anew(goes: impl FnOnce(&World, Backend) -> Backend + Send) {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options::default());
    let mut queue = disk.take_queues().remove(0);
    let buffers: Vec<_> = (0..10)
        .map(|tag| {
            let buffer = queue.buffer(8).unwrap();
            queue.copy_in(&buffer, 0, &[tag as u8 + 1; 4096]);
            let operation = Operation::Write { sector: 8 * (9 - tag), from: buffer.span() };
            queue.submit(operation, tag).unwrap();
            buffer
        })
        .collect();
    queue.kick();
    let taken: Vec<_> = (0..5).map(|_| backend.take(0)).collect();
    backend.answer(0, taken[2].tag(), Status::Okay);
    assert_eq!(wait_for(&mut queue, 1)[0].tag, 2);

    let mut backend = std::thread::scope(|scope| {
        let backend = scope.spawn(|| {
            let mut backend = goes(&world, backend);
            backend.connect();
            backend
        });
        // The queue's owner waits meanwhile, as it does for any answer.
        while !backend.is_finished() {
            queue.wait(Some(Duration::from_millis(5)));
            assert_eq!(queue.complete(&mut |done| panic!("{done:?}")).unwrap(), 0);
        }
        backend.join().unwrap()
    });
    until("connected again", || disk.reconnects() == 1);
    queue.kick();
    let again: Vec<_> = (0..9).map(|_| backend.take(0)).collect();
    let sectors: Vec<_> = again.iter().map(sector_of).collect();
    assert_eq!(sectors, [72, 64, 48, 40, 32, 24, 16, 8, 0], "in order, without the one answered");
    let mut image = vec![0; (SECTORS * 512) as usize];
    for request in &again {
        let status = backend.perform(request, &mut image);
        backend.answer(0, request.tag(), status);
    }
    let done = wait_for(&mut queue, 9);
    assert!(done.iter().all(|completion| completion.result.is_ok()), "{done:?}");
    for tag in (0..10).filter(|tag| *tag != 2) {
        let at = 4096 * (9 - tag);
        assert_eq!(image[at], tag as u8 + 1, "the data of write {tag}");
    }
    buffers.into_iter().for_each(|buffer| queue.release(buffer));
    assert_eq!(disk.statistics()[0].resubmitted, 9);
    drop(disk);
    backend.wait_for_front(State::Closed);
}

#[test]
fn after_the_backend_closed() {
    unanswered_requests_are_sent_anew(|_, mut backend| {
        backend.close_and_offer_again();
        backend
    });
}

#[test]
fn after_the_backend_was_killed_and_replaced() {
    unanswered_requests_are_sent_anew(|world, backend| {
        drop(backend);
        Backend::take_over(world, FEATURES, Geometry::new(SECTORS))
    });
}

#[test]
fn after_the_backend_was_away_for_a_while() {
    unanswered_requests_are_sent_anew(|world, backend| {
        drop(backend);
        // The frontend learns of it by itself.
        until("closed", || {
            let state = world.admin().read_str(&format!("{}/state", front_dir())).unwrap();
            state == "6" || state == "1"
        });
        Backend::take_over(world, FEATURES, Geometry::new(SECTORS))
    });
}

/// The backend moves to another domain, and is lost there and back again before the queue has looked.
#[test]
fn a_queue_that_slept_through_a_move_follows_it() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options::default());
    let mut queue = disk.take_queues().remove(0);
    world.move_disk();
    for times in 1..=2 {
        drop(backend);
        backend = Backend::take_over_in(OTHER_BACK, &world, FEATURES, Geometry::new(SECTORS));
        backend.connect();
        until("connected again", || disk.reconnects() == times || disk.failure().is_some());
    }
    assert!(disk.failure().is_none(), "{:?}", disk.failure());

    let buffer = queue.buffer(8).unwrap();
    queue.copy_in(&buffer, 0, &[7; 4096]);
    queue.submit(Operation::Write { sector: 8, from: buffer.span() }, 1).unwrap();
    queue.kick();
    let mut image = vec![0; SECTORS as usize * SECTOR_SIZE];
    let request = backend.take(0);
    assert_eq!(backend.perform(&request, &mut image), Status::Okay);
    assert_eq!(image[4096..8192], [7; 4096]);
}

#[test]
fn a_backend_that_can_do_less_gets_what_it_can_do() {
    unanswered_requests_are_sent_anew(|world, backend| {
        drop(backend);
        let features = BackendFeatures { max_ring_page_order: 0, ..BackendFeatures::default() };
        Backend::take_over(world, features, Geometry::new(SECTORS))
    });
}

#[test]
fn nothing_acknowledged_is_lost_under_load() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options { queues: 2, ..Options::default() });
    let image = Arc::new(Mutex::new(vec![0; SECTORS as usize * SECTOR_SIZE]));
    let mut serving = Serving::start(backend, image.clone());
    let mut queues = disk.take_queues();
    let job = load::Job {
        reads: 30,
        verify: true,
        depth: 16,
        count: Some(4000),
        // On a machine that does much else, too, the count is what ends it.
        time: Duration::from_secs(300),
        ..load::Job::default()
    };
    let progress = load::Progress::default();
    let report = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut targets: Vec<_> = queues.iter_mut().map(load::QueueTarget::new).collect();
            load::run(&job, &mut targets, &progress).unwrap()
        });
        for cut in 1..=3 {
            until("load", || progress.done() > cut * 1500);
            drop(serving.stop());
            let backend = Backend::take_over(&world, FEATURES, Geometry::new(SECTORS));
            serving = Serving::start(backend, image.clone());
            until("connected again", || disk.reconnects() == cut);
        }
        load.join().unwrap()
    });
    assert_eq!(report.damaged, 0, "{report}");
    assert_eq!(report.reads + report.writes, 8000);
    assert!(report.verified > 500, "{report}");
}

#[test]
fn a_request_beyond_a_disk_that_shrank_fails() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options::default());
    let mut queue = disk.take_queues().remove(0);
    let buffer = queue.buffer(8).unwrap();
    queue.submit(Operation::Write { sector: SECTORS - 8, from: buffer.span() }, 1).unwrap();
    queue.submit(Operation::Write { sector: 0, from: buffer.span() }, 2).unwrap();
    queue.kick();
    backend.geometry = Geometry::new(SECTORS / 2);
    backend.close_and_offer_again();
    backend.connect();
    until("connected again", || disk.reconnects() == 1);
    let done = wait_for(&mut queue, 1);
    let [Completion { tag: 1, result: Err(Error::BeyondEnd { capacity, .. }) }] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!(*capacity, SECTORS / 2);
    assert_eq!(sector_of(&backend.take(0)), 0);
    assert_eq!((disk.sectors(), disk.resizes()), (SECTORS / 2, 1));
}

#[test]
fn a_disk_that_grows_is_seen() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options::default());
    let mut queue = disk.take_queues().remove(0);
    let buffer = queue.buffer(8).unwrap();
    let beyond = Operation::Read { sector: SECTORS, into: buffer.span() };
    assert!(matches!(queue.submit(beyond, 1), Err(Error::BeyondEnd { .. })));
    backend.geometry = Geometry::new(SECTORS * 2);
    backend.publish_geometry();
    until("resized", || disk.resizes() == 1);
    assert_eq!((disk.sectors(), disk.reconnects()), (SECTORS * 2, 0));
    queue.submit(beyond, 1).unwrap();
}

#[test]
fn a_disk_that_is_unplugged_fails() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk = connect(&world, &mut backend, Options::default());
    let mut queue = disk.take_queues().remove(0);
    queue.submit(Operation::Flush, 1).unwrap();
    queue.kick();
    world.admin().write(&format!("{}/online", back_dir()), "0").unwrap();
    backend.enter(State::Closing);
    backend.wait_for_front(State::Closed);
    backend.enter(State::Closed);
    until("removed", || disk.failure().is_some());
    let done = wait_for(&mut queue, 1);
    assert!(matches!(done[0].result, Err(Error::Removed)), "{done:?}");
}

#[test]
fn patience_has_its_limit_when_asked_for() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let mut disk =
        connect(&world, &mut backend, Options { backend_timeout: Some(1), ..Options::default() });
    let mut queue = disk.take_queues().remove(0);
    queue.submit(Operation::Flush, 1).unwrap();
    queue.kick();
    drop(backend);
    let done = wait_for(&mut queue, 1);
    assert!(matches!(done[0].result, Err(Error::NoBackend { .. })), "{done:?}");
}

#[test]
fn a_backend_with_fewer_queues_is_refused() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(SECTORS));
    let disk = connect(&world, &mut backend, Options { queues: 4, ..Options::default() });
    assert_eq!(disk.settings().queues, 4);
    drop(backend);
    let features = BackendFeatures { max_queues: 2, ..FEATURES };
    let _backend = Backend::take_over(&world, features, Geometry::new(SECTORS));
    until("refused", || disk.failure().is_some());
    assert!(
        matches!(disk.failure(), Some(Error::FewerQueues { offered: 2, used: 4 })),
        "{:?}",
        disk.failure()
    );
}

/// A disk has the queues that it was connected with: a backend that comes back with more is taken for what it was.
#[test]
fn more_queues_than_before_are_left_alone() {
    let world = World::new();
    let few = BackendFeatures { max_queues: 2, ..FEATURES };
    let mut backend = Backend::offer(&world, few, Geometry::new(SECTORS));
    let disk = connect(&world, &mut backend, Options { queues: 4, ..Options::default() });
    drop(backend);
    let many = BackendFeatures { max_queues: 4, ..FEATURES };
    Backend::take_over(&world, many, Geometry::new(SECTORS)).connect();
    until("connected again", || disk.reconnects() == 1 || disk.failure().is_some());
    assert!(disk.failure().is_none(), "{:?}", disk.failure());
    assert_eq!(disk.settings().queues, 2);
}
