// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::collections::VecDeque;
use std::string::ToString;

use proptest::prelude::*;

use super::*;
use crate::shared::PAGE_SIZE;
use crate::testing::Local;

type Request = [u32; 3];
type Response = [u32; 1];
type Front = FrontRing<Local, Request, Response>;
type Back = BackRing<Local, Request, Response>;

/// Memory of a ring of four slots.
const LEN: usize = header::LEN + 4 * size_of::<Request>();

/// Both ends of a ring whose indices begin at `index`.
fn ring_at(index: u32, len: usize) -> (Front, Back, Local) {
    let memory = Local::new(len);
    Front::new(memory.clone()).unwrap();
    memory.store(header::REQ_PROD, index);
    memory.store(header::RSP_PROD, index);
    memory.store(header::REQ_EVENT, index.wrapping_add(1));
    memory.store(header::RSP_EVENT, index.wrapping_add(1));
    (Front::attach(memory.clone()).unwrap(), Back::attach(memory.clone()).unwrap(), memory)
}

#[test]
fn sizes_are_those_of_ring_h() {
    // A block ring has 32 slots a page, a network ring 256; half of the last page's space is lost to rounding.
    for order in 0..=MAX_ORDER {
        let len = PAGE_SIZE << order;
        assert_eq!(slots::<[u64; 14], [u64; 2]>(len), Some(32 << order));
        assert_eq!(slots::<[u32; 3], [u32; 1]>(len), Some(256 << order));
        assert_eq!(slots::<[u32; 2], [u32; 2]>(len), Some(256 << order));
    }
    assert_eq!(slots::<[u32; 3], [u32; 1]>(header::LEN + 12), Some(1));
    assert_eq!(slots::<[u32; 3], [u32; 1]>(header::LEN + 11), None);
    assert_eq!(slots::<[u32; 3], [u32; 1]>(0), None);
    assert_eq!(slots::<u8, u8>(usize::MAX), None);
    // The union takes the larger size and the stricter alignment.
    assert_eq!(slot_len::<[u8; 9], u64>(), 16);
    assert_eq!(slot_len::<u32, [u16; 5]>(), 12);
}

#[test]
fn a_view_tells_how_far_both_ends_are() {
    let (mut front, mut back, memory) = ring_at(u32::MAX, LEN);
    front.push(&[1; 3]).unwrap();
    front.push(&[2; 3]).unwrap();
    assert!(front.publish());
    back.pop().unwrap();
    memory.store(header::RSP_EVENT, 77);
    let header = View {
        size: 4,
        req_prod: 1,
        req_event: 0,
        rsp_prod: u32::MAX,
        rsp_event: 77,
        request: 1,
        response: u32::MAX,
    };
    assert_eq!(front.view(), header);
    assert_eq!(back.view(), View { request: 0, ..header });
    assert_eq!(
        back.view().to_string(),
        "slots 4, req_prod 1, req_event 0, rsp_prod 4294967295, rsp_event 77, \
         next request 0, next response 4294967295"
    );
}

#[test]
fn a_new_ring_asks_for_the_first_doorbell() {
    let memory = Local::new(LEN);
    memory.copy_in(0, &[0xff; LEN]);
    let mut front = Front::new(memory.clone()).unwrap();
    let mut back = Back::attach(memory.clone()).unwrap();
    assert_eq!([0, 4, 8, 12, 16, 60].map(|at| memory.load(at)), [0, 1, 0, 1, 0, 0]);
    assert!(!front.publish(), "nothing was pushed");
    front.push(&[1; 3]).unwrap();
    assert!(front.publish());
    front.push(&[2; 3]).unwrap();
    assert!(!front.publish(), "nobody asked for another");
    assert_eq!(back.pop(), Ok(Some([1; 3])));
    assert!(!back.publish(), "nothing was answered");
    back.push(&[1]).unwrap();
    assert!(back.publish());
    assert_eq!(Front::new(Local::new(70)).unwrap_err(), RingError::TooSmall { len: 70 });
}

#[test]
fn slots_are_reused_and_never_overfilled() {
    let (mut front, mut back, _) = ring_at(0, LEN);
    for round in 0..3 {
        for n in 0..4 {
            assert_eq!(front.free(), 4 - n);
            front.push(&[round, n, 0]).unwrap();
        }
        assert_eq!(front.push(&[0; 3]), Err(RingError::Full));
        let _ = front.publish();
        assert_eq!(back.push(&[0]), Err(RingError::Full), "nothing was taken");
        for n in 0..4 {
            assert_eq!(back.pop(), Ok(Some([round, n, 0])));
        }
        assert_eq!((back.pop(), back.unanswered()), (Ok(None), 4));
        for n in 0..4 {
            back.push(&[n]).unwrap();
        }
        assert_eq!(back.push(&[0]), Err(RingError::Full));
        assert_eq!(front.pop(), Ok(None), "not published yet");
        let _ = back.publish();
        for n in 0..4 {
            assert_eq!(front.pop(), Ok(Some([n])));
        }
        assert_eq!((front.pop(), front.outstanding()), (Ok(None), 0));
    }
}

#[test]
fn a_frontend_that_claims_too_many_requests_is_cut_off() {
    for start in [0, 1000, u32::MAX - 1] {
        let (mut front, mut back, memory) = ring_at(start, LEN);
        front.push(&[7; 3]).unwrap();
        let _ = front.publish();
        assert_eq!(back.available(), Ok(1));
        for ahead in [5, 100, 1 << 31, u32::MAX] {
            let producer = start.wrapping_add(ahead);
            memory.store(header::REQ_PROD, producer);
            let overflow = RingError::Overflow { producer, consumer: start, limit: 4 };
            assert_eq!(back.available(), Err(overflow), "{ahead} ahead");
            assert_eq!(back.final_check(), Err(overflow));
        }
        memory.store(header::REQ_PROD, start);
        assert!(back.available().is_err(), "the index went backwards");
        // What was seen once stays to be taken.
        assert_eq!(back.pop(), Ok(Some([7; 3])));
        assert!(back.pop().is_err());
    }
}

#[test]
fn an_unanswered_request_takes_a_slot() {
    let (mut front, mut back, memory) = ring_at(u32::MAX, LEN);
    for n in 0..4 {
        front.push(&[n; 3]).unwrap();
    }
    let _ = front.publish();
    let _ = back.pop();
    let _ = back.pop();
    back.push(&[0]).unwrap();
    memory.store(header::REQ_PROD, 4);
    assert!(back.available().is_err(), "a response that was not published frees no slot");
    let _ = back.publish();
    assert_eq!(back.available(), Ok(3));
}

#[test]
fn a_backend_that_claims_too_many_responses_is_cut_off() {
    for start in [0, 1000, u32::MAX - 1] {
        let (mut front, _, memory) = ring_at(start, LEN);
        front.push(&[1; 3]).unwrap();
        front.push(&[2; 3]).unwrap();
        let _ = front.publish();
        front.push(&[3; 3]).unwrap();
        for ahead in [3, 4, 1 << 31, u32::MAX] {
            let producer = start.wrapping_add(ahead);
            memory.store(header::RSP_PROD, producer);
            let overflow = RingError::Overflow { producer, consumer: start, limit: 2 };
            assert_eq!(front.pop(), Err(overflow), "{ahead} ahead, of two published");
            assert_eq!(front.final_check(), Err(overflow));
        }
        memory.store(header::RSP_PROD, start.wrapping_add(2));
        assert_eq!(front.available(), Ok(2));
        memory.store(header::RSP_PROD, start.wrapping_add(1));
        assert!(front.available().is_err(), "the index went backwards");
    }
}

#[test]
fn an_index_in_memory_is_never_taken_back() {
    let (mut front, mut back, memory) = ring_at(10, LEN);
    front.push(&[1; 3]).unwrap();
    let _ = front.publish();
    memory.store(header::RSP_PROD, 11);
    assert_eq!(front.available(), Ok(1));
    memory.store(header::REQ_PROD, 99);
    front.push(&[2; 3]).unwrap();
    let _ = front.publish();
    assert_eq!(memory.load(header::REQ_PROD), 12);
    assert_eq!(back.pop(), Ok(Some([1; 3])));
    memory.store(header::RSP_PROD, 99);
    back.push(&[1]).unwrap();
    let _ = back.publish();
    assert_eq!(memory.load(header::RSP_PROD), 11);
}

#[test]
fn final_check_asks_for_the_next_one_only_when_there_is_nothing() {
    let (mut front, mut back, memory) = ring_at(u32::MAX, LEN);
    memory.store(header::REQ_EVENT, 77);
    front.push(&[1; 3]).unwrap();
    let _ = front.publish();
    assert_eq!(back.final_check(), Ok(true));
    assert_eq!(memory.load(header::REQ_EVENT), 77);
    let _ = back.pop();
    assert_eq!(back.final_check(), Ok(false));
    assert_eq!(memory.load(header::REQ_EVENT), 1);
    assert_eq!(front.final_check_after(2), Ok(false));
    assert_eq!(memory.load(header::RSP_EVENT), 1);
    back.push(&[1]).unwrap();
    assert!(!back.publish(), "the frontend wants to hear of the second");
}

#[test]
fn a_ring_is_attached_to_where_the_last_owner_left_it() {
    let (mut front, mut back, memory) = ring_at(u32::MAX - 1, LEN);
    for n in 0..3 {
        front.push(&[n; 3]).unwrap();
    }
    let _ = front.publish();
    let _ = (back.pop(), back.pop());
    back.push(&[0]).unwrap();
    let _ = back.publish();
    // The backend dies with one request taken and one not: both are there for the next.
    let mut next = Back::attach(back.into_memory()).unwrap();
    assert_eq!((next.available(), next.unanswered()), (Ok(2), 0));
    assert_eq!(next.pop(), Ok(Some([1; 3])));
    // The frontend cannot be replaced while requests are out.
    assert!(matches!(Front::attach(memory.clone()), Err(RingError::Overflow { .. })));
    assert_eq!(next.pop(), Ok(Some([2; 3])));
    let _ = (next.push(&[1]), next.push(&[2]), next.publish());
    let next = Front::attach(front.into_memory()).unwrap();
    assert_eq!((next.free(), next.outstanding(), next.memory().len()), (4, 0, LEN));
    memory.store(header::REQ_PROD, memory.load(header::RSP_PROD).wrapping_add(5));
    assert!(matches!(Back::attach(memory), Err(RingError::Overflow { .. })));
}

/// `RING_PUSH_*_AND_CHECK_NOTIFY` by its words: the doorbell rings if the index that the peer waits for is one of those
/// that were published now.
fn notify_by_definition(old: u32, new: u32, event: u32) -> bool {
    (1..=new.wrapping_sub(old)).any(|step| old.wrapping_add(step) == event)
}

/// Somewhere, and often around the wrap.
fn index() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (u32::MAX - 40)..=u32::MAX, 0..40u32]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    PublishRequests,
    Pop,
    Answer,
    PublishResponses,
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        3 => Just(Push),
        1 => Just(PublishRequests),
        3 => Just(Pop),
        3 => Just(Answer),
        1 => Just(PublishResponses),
        3 => Just(Take)
    ]
}

proptest! {
    #[test]
    fn the_doorbell_rings_by_definition(old in index(), pushed in 1..=4u32, near in -6..6i32) {
        let event = old.wrapping_add(near as u32);
        let (mut front, mut back, memory) = ring_at(old, LEN);
        memory.store(header::REQ_EVENT, event);
        memory.store(header::RSP_EVENT, event);
        for n in 0..pushed {
            front.push(&[n; 3]).unwrap();
        }
        let expected = notify_by_definition(old, old.wrapping_add(pushed), event);
        prop_assert_eq!(front.publish(), expected);
        for n in 0..pushed {
            prop_assert_eq!(back.pop(), Ok(Some([n; 3])));
            back.push(&[n]).unwrap();
        }
        prop_assert_eq!(back.publish(), expected);
    }

    /// Both ends against two plain queues, from any index on.
    #[test]
    fn like_two_queues(
        start in index(),
        order in 0..=6u32,
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let size = 1usize << order;
        let (mut front, mut back, _) = ring_at(start, header::LEN + size * size_of::<Request>());
        prop_assert_eq!((front.size(), back.size()), (size as u32, size as u32));
        let (mut written, mut requests, mut taken) = (0, VecDeque::new(), VecDeque::new());
        let (mut answered, mut responses) = (0, VecDeque::new());
        let (mut next, mut outstanding) = (0u32, 0);
        for step in steps {
            match step {
                Step::Push => {
                    let request = [next, !next, next ^ start];
                    let result = front.push(&request);
                    prop_assert_eq!(result.is_ok(), outstanding < size);
                    if result.is_ok() {
                        requests.push_back(request);
                        (written, outstanding, next) = (written + 1, outstanding + 1, next + 1);
                    }
                }
                Step::PublishRequests => {
                    let _ = front.publish();
                    written = 0;
                }
                Step::Pop => {
                    let visible = requests.len() > written;
                    let expected = if visible { requests.pop_front() } else { None };
                    prop_assert_eq!(back.pop(), Ok(expected));
                    taken.extend(expected);
                }
                Step::Answer => {
                    let result = back.push(&[taken.front().map_or(0, |request| request[0])]);
                    prop_assert_eq!(result.is_ok(), !taken.is_empty());
                    if let Some(request) = taken.pop_front() {
                        responses.push_back([request[0]]);
                        answered += 1;
                    }
                }
                Step::PublishResponses => {
                    let _ = back.publish();
                    answered = 0;
                }
                Step::Take => {
                    let visible = responses.len() > answered;
                    let expected = if visible { responses.pop_front() } else { None };
                    prop_assert_eq!(front.pop(), Ok(expected));
                    outstanding -= usize::from(expected.is_some());
                }
            }
            prop_assert_eq!(front.outstanding() as usize, outstanding);
            prop_assert_eq!(back.unanswered() as usize, taken.len());
        }
    }
}
