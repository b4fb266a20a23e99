// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Request/response rings.

use loom::thread;
use ring_proto::ring::{BackRing, FrontRing};

use crate::memory::Failure::{LostWakeUp, Torn};
use crate::memory::{holds_and_needs, Doorbell, Model, Without};

ring_proto::wire! {
    struct Request {
        id: u16,
        value: u16,
    }
}

ring_proto::wire! {
    struct Response {
        id: u16,
        value: u16,
    }
}

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;

type Front = FrontRing<Model, Request, Response>;
type Back = BackRing<Model, Request, Response>;

/// What request `id` asks, and what its answer says.
fn value(id: u16) -> u16 {
    id * 0x101 + 0x11
}

/// Both ends of a ring of `slots`.
fn ring(slots: usize, without: Without) -> (Front, Back) {
    let memory = Model::new(64, size_of::<Request>(), slots, without);
    let front = Front::new(memory.clone()).unwrap();
    let back = Back::attach(memory).unwrap();
    assert_eq!(front.size() as usize, slots);
    (front, back)
}

/// Sends `count` requests, as many at once as there is room for, and sleeps whenever nothing is left to do. Every
/// request is answered once, in order here, with what belongs to it.
fn frontend(mut ring: Front, count: u16, to_back: &Doorbell, to_front: &Doorbell) {
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count && ring.free() > 0 {
            ring.push(&Request { id: sent, value: value(sent) }).unwrap();
            sent += 1;
        }
        if ring.publish() {
            to_back.ring();
        }
        while let Some(response) = ring.pop().unwrap() {
            assert_eq!(response, Response { id: answered, value: !value(answered) });
            answered += 1;
        }
        let room = sent < count && ring.free() > 0;
        if answered < count && !room && !ring.final_check().unwrap() {
            to_front.wait();
        }
    }
}

/// Answers `count` requests and sleeps whenever there is none.
fn backend(mut ring: Back, count: u16, to_back: &Doorbell, to_front: &Doorbell) {
    let mut taken = 0;
    while taken < count {
        while let Some(request) = ring.pop().unwrap() {
            assert_eq!(request, Request { id: taken, value: value(taken) });
            taken += 1;
            ring.push(&Response { id: request.id, value: !request.value }).unwrap();
        }
        if ring.publish() {
            to_front.ring();
        }
        if taken < count && !ring.final_check().unwrap() {
            to_back.wait();
        }
    }
}

fn conversation(slots: usize, count: u16, without: Without) {
    let (front, back) = ring(slots, without);
    let (to_back, to_front) = (Doorbell::new(), Doorbell::new());
    let peer = {
        let (to_back, to_front) = (to_back.clone(), to_front.clone());
        thread::spawn(move || backend(back, count, &to_back, &to_front))
    };
    frontend(front, count, &to_back, &to_front);
    peer.join().unwrap();
}

/// More requests than slots, both ends sleep and wake. Every ordering of the engine is there, and needed.
#[test]
fn no_request_or_response_is_lost_torn_or_repeated() {
    let needed = [
        (Without::Release(REQ_PROD), Torn),
        (Without::Acquire(REQ_PROD), Torn),
        (Without::Release(RSP_PROD), Torn),
        (Without::Acquire(RSP_PROD), Torn),
        (Without::Barrier(REQ_PROD), LostWakeUp),
        (Without::Barrier(REQ_EVENT), LostWakeUp),
        (Without::Barrier(RSP_PROD), LostWakeUp),
        (Without::Barrier(RSP_EVENT), LostWakeUp),
    ];
    let test = "ring::no_request_or_response_is_lost_torn_or_repeated";
    holds_and_needs(test, 3, &needed, |without| conversation(2, 3, without));
}
