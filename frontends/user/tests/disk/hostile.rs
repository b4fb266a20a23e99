// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that breaks the protocol: the disk ends, with the reason, and everything outstanding fails.

use frontend_user::{Breach, Completion, Disk, Error, Operation, Options, Queue};
use ring_proto::blkif::{self, Request, Status, Tag};
use ring_proto::ring::RingError;
use ring_proto::shared::SharedMemory;
use ring_proto::xenbus::vbd::Geometry;

use crate::scripted::{Backend, FEATURES, World, back_dir};

/// A connected disk with one page of ring, and its backend.
fn connected(world: &World) -> (Disk, Queue, Backend) {
    let mut backend = Backend::offer(world, FEATURES, Geometry::new(1 << 16));
    let options = Options { ring_page_order: 0, ..Options::default() };
    let mut disk = std::thread::scope(|scope| {
        scope.spawn(|| backend.connect());
        world.connect(options).unwrap()
    });
    let queue = disk.take_queues().remove(0);
    (disk, queue, backend)
}

fn collect(queue: &mut Queue) -> Result<Vec<Completion>, Error> {
    let mut all = Vec::new();
    queue.complete(&mut |completion| all.push(completion))?;
    Ok(all)
}

/// Submits three reads, lets the backend do its worst with the first, and returns what became of the disk.
fn after(misdeed: impl FnOnce(&mut Backend, Tag)) -> Breach {
    let world = World::new();
    let (disk, mut queue, mut backend) = connected(&world);
    let buffer = queue.buffer(8).unwrap();
    for tag in 1..=3 {
        queue.submit(Operation::Read { sector: 8 * tag, into: buffer.span() }, tag).unwrap();
    }
    queue.kick();
    let tag = backend.take(0).tag();
    misdeed(&mut backend, tag);

    // The misdeed may come after an honest answer.
    let mut failed = Vec::new();
    loop {
        queue.wait(None);
        match collect(&mut queue) {
            Ok(done) => failed.extend(done.into_iter().filter(|done| done.result.is_err())),
            Err(_) => break,
        }
    }
    assert!(failed.len() >= 2, "{failed:?}");
    let Some(Error::Breach { queue: 0, breach }) = disk.failure() else {
        panic!("{:?}", disk.failure())
    };
    for completion in &failed {
        let Err(Error::Breach { breach: reason, .. }) = &completion.result else {
            panic!("{completion:?}")
        };
        assert_eq!(*reason, breach);
    }
    let later = queue.submit(Operation::Flush, 9).unwrap_err();
    assert!(matches!(later, Error::Breach { breach: reason, .. } if reason == breach), "{later}");
    assert!(matches!(collect(&mut queue), Err(Error::Breach { .. })));
    // The frontend says good-bye even to such a backend.
    backend.wait_for_front(ring_proto::xenbus::State::Closed);
    breach
}

#[test]
fn an_id_that_was_never_given() {
    let breach =
        after(|backend, tag| backend.answer(0, Tag { id: 0xdead_beef, ..tag }, Status::Okay));
    assert_eq!(breach, Breach::UnknownId { id: 0xdead_beef });
}

#[test]
fn an_answer_to_another_operation() {
    let breach = after(|backend, tag| {
        let operation = blkif::Operation::Write as u8;
        backend.answer(0, Tag { operation, ..tag }, Status::Okay);
    });
    let Breach::WrongOperation { asked, answered, .. } = breach else { panic!("{breach}") };
    assert_eq!((asked, answered), (blkif::Operation::Read, blkif::Operation::Write));
}

#[test]
fn an_answer_given_twice() {
    let mut id = 0;
    let breach = after(|backend, tag| {
        id = tag.id;
        backend.take(0);
        backend.answer(0, tag, Status::Okay);
        backend.answer(0, tag, Status::Okay);
    });
    assert_eq!(breach, Breach::UnknownId { id });
}

#[test]
fn an_answer_that_is_none() {
    let breach =
        after(|backend, tag| backend.answer(0, Tag { operation: 77, ..tag }, Status::Okay));
    assert!(matches!(breach, Breach::Response(bad) if bad.operation == 77), "{breach}");
}

#[test]
fn more_answers_than_questions() {
    let breach = after(|backend, _| {
        let queue = &mut backend.queues[0];
        queue.ring.memory().store_release(8, 4);
        queue.channel.notify().unwrap();
    });
    let Breach::Ring(RingError::Overflow { producer: 4, limit: 3, .. }) = breach else {
        panic!("{breach}")
    };
}

#[test]
fn an_index_that_goes_back() {
    let world = World::new();
    let (disk, mut queue, mut backend) = connected(&world);
    for tag in 0..2 {
        queue.submit(Operation::Flush, tag).unwrap();
    }
    queue.kick();
    let tag = backend.take(0).tag();
    backend.answer(0, tag, Status::Okay);
    while collect(&mut queue).unwrap().is_empty() {}
    backend.queues[0].ring.memory().store_release(8, 0);
    let error = collect(&mut queue).map(|failed| failed.into_iter().next().unwrap().result);
    assert!(matches!(error, Ok(Err(Error::Breach { .. }))), "{error:?}");
    let Some(Error::Breach { breach, .. }) = disk.failure() else { panic!() };
    assert!(matches!(breach, Breach::Ring(RingError::Overflow { producer: 0, .. })), "{breach}");
}

#[test]
fn a_refusal_is_no_breach() {
    let world = World::new();
    let (disk, mut queue, mut backend) = connected(&world);
    let buffer = queue.buffer(8).unwrap();
    queue.submit(Operation::Read { sector: 0, into: buffer.span() }, 1).unwrap();
    queue.submit(Operation::Discard { sector: 0, count: 8, secure: false }, 2).unwrap();
    queue.kick();
    let (read, discard) = (backend.take(0), backend.take(0));
    assert!(matches!(discard, Request::Discard(discard) if discard.count == 8));
    backend.answer(0, discard.tag(), Status::NotSupported);
    backend.answer(0, read.tag(), Status::Error);
    let mut done = Vec::new();
    while done.len() < 2 {
        queue.wait(None);
        done.extend(collect(&mut queue).unwrap());
    }
    assert!(
        matches!(done[0], Completion { tag: 2, result: Err(Error::Unsupported { .. }) }),
        "{done:?}"
    );
    assert!(matches!(done[1], Completion { tag: 1, result: Err(Error::Io { .. }) }), "{done:?}");
    assert!(disk.failure().is_none());
}

#[test]
fn a_key_that_is_nonsense_is_named() {
    let world = World::new();
    let mut backend = Backend::offer(&world, FEATURES, Geometry::new(1 << 16));
    world.admin().write(&format!("{}/multi-queue-max-queues", back_dir()), "many").unwrap();
    let error = world.connect(Options::default()).unwrap_err().to_string();
    assert!(error.contains("multi-queue-max-queues") && error.contains("\"many\""), "{error}");
    assert!(error.starts_with(&back_dir()), "{error}");
    // And one that is written when it is connected.
    world.admin().write(&format!("{}/multi-queue-max-queues", back_dir()), "1").unwrap();
    backend.enter(ring_proto::xenbus::State::InitWait);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            backend.wait_for_front(ring_proto::xenbus::State::Initialised);
            world.admin().write(&format!("{}/sector-size", back_dir()), "513").unwrap();
            world.admin().write(&format!("{}/sectors", back_dir()), "100").unwrap();
            world.admin().write(&format!("{}/info", back_dir()), "0").unwrap();
            backend.enter(ring_proto::xenbus::State::Connected);
        });
        world.connect(Options::default()).unwrap_err().to_string()
    });
    assert!(error.contains("sector-size") && error.contains("513"), "{error}");
}

#[test]
fn a_missing_device_and_a_missing_backend_are_told() {
    let world = World::new();
    let error =
        world.connect(Options { backend_timeout: Some(0), ..Options::default() }).unwrap_err();
    assert!(matches!(error, Error::NoBackend { .. }), "{error}");
    let client: std::sync::Arc<dyn hypervisor_client::Client> = world.front.clone();
    let error = Disk::connect(client, 99, Options::default()).unwrap_err().to_string();
    assert!(error.contains("device/vbd/99") && error.contains("backend is missing"), "{error}");
}
