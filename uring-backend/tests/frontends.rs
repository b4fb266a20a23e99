// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frontends of several kinds under loads that check what they read, and frontends that take their pages back.

mod rig;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hypervisor_client::toolstack::Vbd;
use hypervisor_client::{Access, Client, Grant};
use rig::{BACK, FRONT, FrontQueue, Frontend, PATIENCE, Rig, VBD, Wanted, join, pattern};
use ring_proto::blkif::{Indirect, RawSegment, Request, Rw, RwOp, Segment, Segments, Status};
use ring_proto::shared::{SharedMemory, bytes_of};
use ring_proto::xenbus::{State, vbd::keys};
use uring_backend::{Format, Options, fetch_stats};

const MIB: usize = 1 << 20;

#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Requests in flight of [`write_and_verify`], and pages of each: as many as a direct request takes.
const DEPTH: usize = 20;
const PAGES: usize = 11;

/// Writes a part of the disk with requests in flight together, whose content tells `round`, then reads it back likewise
/// and checks every byte. It uses data pages from `first_page` on.
fn write_and_verify(queue: &mut FrontQueue, round: usize, first_page: usize) {
    const LEN: usize = PAGES * 4096;
    let content = |at: usize| pattern((round * DEPTH + at) * LEN, LEN);
    for op in [RwOp::Write, RwOp::Read] {
        let mut asked = HashMap::new();
        for at in 0..DEPTH {
            let page = first_page + at * PAGES;
            let before = if op == RwOp::Write { content(at) } else { vec![0xee; LEN] };
            queue.data.copy_in(page * 4096, &before);
            let segments = queue.segments(page, PAGES * 8);
            let request = queue.rw(op, (at * PAGES * 8) as u64, &segments);
            asked.insert(request.tag().id, at);
            queue.ring.push(&request).unwrap();
        }
        queue.publish();
        for _ in 0..DEPTH {
            let response = queue.answer();
            let at = asked.remove(&response.id).expect("an id that was asked, once");
            assert_eq!(response.status, Status::Okay);
            if op == RwOp::Read {
                let mut bytes = vec![0; LEN];
                queue.data.copy_out((first_page + at * PAGES) * 4096, &mut bytes);
                assert!(bytes == content(at), "request {at} of round {round} reads something else");
            }
        }
    }
}

/// More pages than may stay mapped: what is not used any more makes room for what is, and all data is right.
#[test]
fn more_pages_than_may_stay_mapped_take_turns() {
    const LIMIT: usize = 64;
    let rig = Rig::new();
    let socket = rig.dir.path().join("stats");
    let stats = Some(socket.clone());
    let _backend = rig.start(Options { persistent: LIMIT, stats, ..Options::default() });
    rig.plug(&rig.image("disk", MIB), &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let count = |name: &str| {
        let json = fetch_stats(&socket, Format::Json).unwrap();
        let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
        disks[0]["queues"][0][name].as_u64().unwrap()
    };
    let queue = &mut front.queues[0];
    let mut round = 0;
    // From one set of pages to another that shares none with it, and back.
    for first_page in [0, DEPTH * PAGES, 0] {
        let evicted = count("evicted_grants");
        loop {
            write_and_verify(queue, round, first_page);
            round += 1;
            assert!(count("mapped_grants") <= LIMIT as u64);
            let made_room = count("evicted_grants") - evicted;
            if round == 1 || made_room >= LIMIT as u64 {
                break;
            }
            assert!(round < 200, "only {made_room} grants made room in {round} rounds");
        }
    }
    let hits = count("persistent_pages");
    write_and_verify(queue, round, 0);
    assert!(count("persistent_pages") - hits >= LIMIT as u64, "those in use are mapped");
}

/// Ends a load, also when what goes on beside it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two disks of one domain: while one is under load, the frontend breaks the other's ring.
#[test]
fn a_broken_ring_does_not_disturb_the_load_on_the_other_disk() {
    let rig = Rig::new();
    let other = Vbd { device: 51728, ..VBD };
    let _backend = rig.start(Options::default());
    rig.plug(&rig.image("broken", MIB), &[]);
    rig.plug_as(other, &rig.image("good", MIB), &[]);
    let client = Arc::new(join(rig.dir.path(), FRONT));
    let mut broken = Frontend::new(client.clone(), VBD, Wanted::default());
    let mut good = Frontend::new(client, other, Wanted::default());
    broken.settle(State::Connected, true);
    good.settle(State::Connected, true);
    let (rounds, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let more = |count: usize| {
        let wanted = rounds.load(Ordering::Relaxed) + count;
        move |rounds: &AtomicUsize| rounds.load(Ordering::Relaxed) >= wanted
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let round = rounds.fetch_add(1, Ordering::Relaxed);
                write_and_verify(&mut good.queues[0], round, 0);
            }
        });
        let stop = Stop(&stop);
        let goes_on = |what: &str| {
            let enough = more(3);
            eventually(what, || load.is_finished() || enough(&rounds));
        };
        write_and_verify(&mut broken.queues[0], 0, 0);
        goes_on("the load before");
        let ring = broken.queues[0].ring.memory();
        ring.store_release(0, ring.load(0).wrapping_add(5000));
        broken.queues[0].channel.notify().unwrap();
        rig.await_back_state(State::Closing);
        let error = rig.await_error();
        assert!(error.contains("queue 0: the frontend broke the ring"), "{error}");
        goes_on("the load with the other disk closed");
        broken.settle(State::Closed, true);
        broken.settle(State::Connected, true);
        write_and_verify(&mut broken.queues[0], 1, 0);
        goes_on("the load with the other disk back");
        drop(stop);
        load.join().unwrap();
    });
    assert_eq!(good.state(), State::Connected);
}

/// A request for one whole page.
fn push(queue: &mut FrontQueue, op: RwOp, sector: u64, page: &Grant) -> u64 {
    let segment = Segment::new(page.refs()[0], 0, 7).unwrap();
    let request = queue.rw(op, sector, &[segment]);
    queue.ring.push(&request).unwrap();
    request.tag().id
}

/// A frontend ends its grants while requests for the pages are under way, those that the backend has mapped and those
/// that it has not.
fn pages_are_taken_back(persistent: bool) {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    // The first request is let through, and pays for it for an hour.
    rig.plug(&rig.image("disk", MIB), &[(keys::BANDWIDTH_LIMIT, "1")]);
    let client = Arc::new(join(rig.dir.path(), FRONT));
    let mut front = Frontend::new(client.clone(), VBD, Wanted { persistent, ..Wanted::default() });
    front.settle(State::Connected, true);
    let queue = &mut front.queues[0];
    let page = || client.grant(BACK, 1, Access::ReadWrite).unwrap();

    let (known, unknown, kept, descriptors) = (page(), page(), page(), page());
    push(queue, RwOp::Read, 0, &known);
    queue.publish();
    assert_eq!(queue.answer().status, Status::Okay);
    let waits = [&known, &unknown, &kept].map(|page| push(queue, RwOp::Read, 8, page));
    // One whose segments are taken back with the page that they stand in.
    let raw = RawSegment::from(Segment::new(kept.refs()[0], 0, 7).unwrap());
    (0..12).for_each(|at| descriptors.copy_in(at * 8, bytes_of(&raw)));
    let id = queue.id();
    let segments = Segments::Indirect(Indirect::new(12, descriptors.refs()).unwrap());
    let indirect = Rw { id, op: RwOp::Read, handle: 0, sector: 8, segments };
    queue.ring.push(&Request::Rw(indirect)).unwrap();
    let [first, second, third] = waits;
    let waits = [first, second, third, id];
    queue.publish();
    drop((known, unknown, descriptors));
    // A copy's mapping ends a moment after the copy.
    eventually("the backend has only mapped what it keeps", || {
        client.waiting_pages() == usize::from(persistent)
    });
    rig.write_back_key("bandwidth-limit", "0");
    let answers: HashMap<_, _> =
        waits.iter().map(|_| queue.answer()).map(|a| (a.id, a.status)).collect();
    let known = if persistent { Status::Okay } else { Status::Error };
    assert_eq!(waits.map(|id| answers[&id]), [known, Status::Error, Status::Okay, Status::Error]);
    let mut bytes = [0; 4096];
    kept.copy_out(0, &mut bytes);
    assert_eq!(bytes[..], pattern(4096, 4096));

    // A race, whoever wins it: an error, or the data of the moment before.
    const RACED: u64 = 1024;
    let before = pattern(RACED as usize * 512, 4096);
    for round in 0..40u8 {
        let pages: Vec<_> = (0..8).map(|_| page()).collect();
        for (at, page) in pages.iter().enumerate() {
            page.copy_in(0, &[round; 4096]);
            push(queue, if at % 2 == 0 { RwOp::Read } else { RwOp::Write }, RACED, page);
        }
        queue.publish();
        drop(pages);
        for _ in 0..8 {
            let status = queue.answer().status;
            assert!(matches!(status, Status::Okay | Status::Error), "{status:?}");
        }
        let now = queue.read(RACED, 8).unwrap();
        assert!(now == before || now.iter().all(|byte| *byte == now[0] && *byte <= round));
    }
    write_and_verify(queue, 0, 0);
    front.settle(State::Closed, false);
    eventually("the backend has let go of every page", || client.waiting_pages() == 0);
}

#[test]
fn pages_taken_back_cost_their_requests_only() {
    pages_are_taken_back(false);
}

#[test]
fn persistent_pages_taken_back_cost_their_requests_only() {
    pages_are_taken_back(true);
}
