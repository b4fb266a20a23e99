// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that is started again goes on where the one before ended, and the frontend sees nothing of it.

use std::time::{Duration, Instant};

use hypervisor_client::Client;
use ring_proto::blkif::{RwOp, Status};
use ring_proto::xenbus::State;
use uring_backend::Options;

mod rig;

use rig::{FRONT, Frontend, PATIENCE, Rig, VBD, Wanted};

const MIB: usize = 1 << 20;

fn keeping(rig: &Rig) -> Options {
    Options { state: Some(rig.dir.path().join("state")), ..Options::default() }
}

#[test]
fn a_frontend_that_does_not_look_away_finds_its_disk_again() {
    let rig = Rig::new();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let mut backend = rig.start(keeping(&rig));
    let wanted = Wanted { order: 1, queues: 2, ..Wanted::default() };
    let mut front = Frontend::connect(&rig, wanted);
    for generation in 1..=3u8 {
        for queue in &mut front.queues {
            assert_eq!(queue.write(RwOp::Write, 64, &[generation; 4096]), Status::Okay);
        }
        backend.end().unwrap();
        rig.await_back_state(State::Connected);
        // While nobody serves: a ring full of reads.
        for queue in &mut front.queues {
            for page in 0..queue.ring.free() as usize {
                let segments = queue.segments(page % 32, 8);
                let request = queue.rw(RwOp::Read, 64, &segments);
                queue.ring.push(&request).unwrap();
            }
            queue.publish();
        }
        backend = rig.start(keeping(&rig));
        for queue in &mut front.queues {
            for _ in 0..queue.ring.size() {
                assert_eq!(queue.answer().status, Status::Okay);
            }
            assert_eq!(queue.read(64, 8).unwrap(), [generation; 4096]);
        }
        rig.await_back_state(State::Connected);
    }
    front.settle(State::Closed, false);
    rig.await_back_state(State::Closed);
    let left = std::fs::read_dir(rig.dir.path().join("state")).unwrap().count();
    assert_eq!(left, 0, "nothing stays of a connection that is over");
}

/// What is noted of one connection is not done to the next.
#[test]
fn what_was_noted_of_another_connection_is_not_used() {
    let rig = Rig::new();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let backend = rig.start(keeping(&rig));
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert_eq!(front.queues[0].write(RwOp::Write, 0, &[1; 4096]), Status::Okay);
    backend.end().unwrap();
    let journal = rig.dir.path().join("state/vbd-2-51712-q0");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[8] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let _backend = rig.start(keeping(&rig));
    front.settle_away_from(State::Connected);
    front.settle(State::Connected, true);
    assert_eq!(front.queues[0].read(0, 8).unwrap(), [1; 4096]);
}

/// One that is struck as soon as it is connected may not have come to note anything.
#[test]
fn a_new_ring_without_notes_is_begun() {
    let rig = Rig::new();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let backend = rig.start(keeping(&rig));
    let mut front = Frontend::connect(&rig, Wanted::default());
    backend.end().unwrap();
    std::fs::remove_file(rig.dir.path().join("state/vbd-2-51712-q0")).unwrap();
    let _backend = rig.start(keeping(&rig));
    assert_eq!(front.queues[0].write(RwOp::Write, 0, &[1; 4096]), Status::Okay);
    rig.await_back_state(State::Connected);
}

/// The kernel closes the files of a process that was killed one after the other: its event channels a moment after its
/// image.
#[test]
fn event_channels_that_are_closed_late_are_awaited() {
    let rig = Rig::new();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let backend = rig.start(keeping(&rig));
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert_eq!(front.queues[0].write(RwOp::Write, 0, &[1; 4096]), Status::Okay);
    backend.end().unwrap();
    let port = front.queues[0].channel.port();
    let held = rig.client.as_ref().unwrap().bind_interdomain(FRONT, port).unwrap();
    let _backend = rig.start(keeping(&rig));
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert_eq!(front.queues[0].read(0, 8).unwrap(), [1; 4096]);
    rig.await_back_state(State::Connected);
}

/// Of a disk that is taken away without being closed nothing is noted any more, also if nobody saw it go.
#[test]
fn nothing_stays_noted_of_a_disk_that_is_gone() {
    let rig = Rig::new();
    let image = rig.image("disk", 4 * MIB);
    let journals = || std::fs::read_dir(rig.dir.path().join("state")).unwrap().count();
    for seen in [true, false] {
        rig.plug(&image, &[]);
        let backend = rig.start(keeping(&rig));
        let mut front = Frontend::connect(&rig, Wanted::default());
        assert_eq!(front.queues[0].write(RwOp::Write, 0, &[1; 4096]), Status::Okay);
        assert_eq!(journals(), 1);
        let remove = || rig.toolstack.rm(&VBD.backend_path()).unwrap();
        let backend = if seen {
            remove();
            backend
        } else {
            backend.end().unwrap();
            remove();
            rig.start(keeping(&rig))
        };
        let end = Instant::now() + PATIENCE;
        while journals() > 0 {
            assert!(Instant::now() < end, "seen: {seen}");
            std::thread::sleep(Duration::from_millis(2));
        }
        front.crash();
        backend.end().unwrap();
        rig.toolstack.rm(&VBD.frontend_path()).unwrap();
    }
}
