// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Request/response rings, of all slot sizes that the protocols have.

use std::ffi::c_void;
use std::fmt::Debug;

use proptest::prelude::*;
use ring_proto::blkif::{RawRequest, RawResponse};
use ring_proto::netif;
use ring_proto::ring::{BackRing, FrontRing, RingError};
use ring_proto::shared::{bytes_of_mut, zeroed, Pages, Wire};

use crate::{assert_same, function, Memory};

/// Room for the private half of a ring in C, which takes 24 bytes.
type Private = [u64; 4];
/// A C function that takes the private half of a ring.
type Plain = unsafe extern "C" fn(*mut Private) -> i32;
/// A C function that takes the private half of a ring and a slot.
type WithSlot = unsafe extern "C" fn(*mut Private, *mut c_void) -> i32;
/// A C function that sets up the private half of a ring.
type Attach = unsafe extern "C" fn(*mut Private, *mut u8, usize, u32);

/// One end of a ring, in either language. What it takes and gives are slots.
trait End {
    fn push(&mut self, slot: &[u8]) -> bool;
    fn publish(&mut self) -> bool;
    fn pop(&mut self) -> Option<Vec<u8>>;
    fn final_check(&mut self) -> bool;
}

/// An end in C.
struct C {
    private: Box<Private>,
    out_len: usize,
    push: WithSlot,
    publish: Plain,
    pop: WithSlot,
    final_check: Plain,
}

impl C {
    /// `end` is `front` or `back`, `out_len` the length of what it takes from the ring.
    fn new(ring: &str, end: &str, memory: &Memory, start: u32, out_len: usize) -> Self {
        let mut private = Box::new([0; 4]);
        // SAFETY: the types are those of `rings.c`; the memory is a ring that outlives this end.
        unsafe {
            let attach: Attach = function(&format!("{ring}_{end}_attach"));
            attach(&raw mut *private, memory.base(), memory.len(), start);
            Self {
                private,
                out_len,
                push: function(&format!("{ring}_{end}_push")),
                publish: function(&format!("{ring}_{end}_publish")),
                pop: function(&format!("{ring}_{end}_pop")),
                final_check: function(&format!("{ring}_{end}_final_check")),
            }
        }
    }
}

impl End for C {
    fn push(&mut self, slot: &[u8]) -> bool {
        // SAFETY: the slot is as long as the ring's; C only reads it.
        unsafe { (self.push)(&raw mut *self.private, slot.as_ptr().cast_mut().cast()) != 0 }
    }

    fn publish(&mut self) -> bool {
        // SAFETY: the private half is set up.
        unsafe { (self.publish)(&raw mut *self.private) != 0 }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let mut slot = vec![0; self.out_len];
        // SAFETY: the slot is as long as the ring's.
        let some = unsafe { (self.pop)(&raw mut *self.private, slot.as_mut_ptr().cast()) != 0 };
        some.then_some(slot)
    }

    fn final_check(&mut self) -> bool {
        // SAFETY: the private half is set up.
        unsafe { (self.final_check)(&raw mut *self.private) != 0 }
    }
}

fn from_slot<T: Wire>(slot: &[u8]) -> T {
    let mut value = zeroed::<T>();
    bytes_of_mut(&mut value).copy_from_slice(slot);
    value
}

fn to_slot<T: Wire>(value: T) -> Vec<u8> {
    ring_proto::shared::bytes_of(&value).to_vec()
}

fn pushed(result: Result<(), RingError>) -> bool {
    match result {
        Ok(()) => true,
        Err(RingError::Full) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The crate's ring over pages that it takes for separate ones.
type Split<'a> = Pages<'a, 16>;

impl<Req: Wire, Rsp: Wire> End for FrontRing<Split<'_>, Req, Rsp> {
    fn push(&mut self, slot: &[u8]) -> bool {
        pushed(FrontRing::push(self, &from_slot(slot)))
    }

    fn publish(&mut self) -> bool {
        FrontRing::publish(self)
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        FrontRing::pop(self).expect("the peer is honest").map(to_slot)
    }

    fn final_check(&mut self) -> bool {
        FrontRing::final_check(self).expect("the peer is honest")
    }
}

impl<Req: Wire, Rsp: Wire> End for BackRing<Split<'_>, Req, Rsp> {
    fn push(&mut self, slot: &[u8]) -> bool {
        pushed(BackRing::push(self, &from_slot(slot)))
    }

    fn publish(&mut self) -> bool {
        BackRing::publish(self)
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        BackRing::pop(self).expect("the peer is honest").map(to_slot)
    }

    fn final_check(&mut self) -> bool {
        BackRing::final_check(self).expect("the peer is honest")
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Publish,
    Pop,
    FinalCheck,
}

/// What a step gave back.
#[derive(Debug, PartialEq)]
enum Outcome {
    Said(bool),
    Slot(Option<Vec<u8>>),
}

fn take(end: &mut dyn End, step: &Step, slot_len: usize) -> Outcome {
    match step {
        Step::Push(bytes) => Outcome::Said(end.push(&bytes[..slot_len])),
        Step::Publish => Outcome::Said(end.publish()),
        Step::Pop => Outcome::Slot(end.pop()),
        Step::FinalCheck => Outcome::Said(end.final_check()),
    }
}

/// Steps of the frontend (`true`) and the backend, in bursts, so that rings get full and empty.
fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let slot = prop::array::uniform4(any::<[u8; 28]>()).prop_map(|parts| parts.concat());
    let step = prop_oneof![
        5 => slot.prop_map(Step::Push),
        2 => Just(Step::Publish),
        5 => Just(Step::Pop),
        2 => Just(Step::FinalCheck),
    ];
    let burst = (any::<bool>(), step, prop_oneof![Just(1usize), 1usize..20]);
    prop::collection::vec(burst, 1..60).prop_map(|bursts| {
        let repeat = |(front, step, count)| std::iter::repeat_n((front, step), count);
        bursts.into_iter().flat_map(repeat).collect()
    })
}

/// Gives all four pairings of a ring the same steps.
fn same<Req: Wire, Rsp: Wire>(ring: &str, pages: usize, start: u32, steps: &[(bool, Step)]) {
    let memories: Vec<[Memory; 1]> = (0..4).map(|_| [Memory::new(pages)]).collect();
    let (req_len, rsp_len) = (size_of::<Req>(), size_of::<Rsp>());
    let mut pairs: Vec<(Box<dyn End + '_>, Box<dyn End + '_>)> = memories
        .iter()
        .enumerate()
        .map(|(index, [memory])| {
            // SAFETY: the type is that of `rings.c`; the memory is long enough.
            unsafe {
                let init: unsafe extern "C" fn(*mut u8, u32) = function(&format!("{ring}_init"));
                init(memory.base(), start);
            }
            let split = || Split::new(&memory.parts()).expect("at most 16 pages");
            let front: Box<dyn End + '_> = match index & 1 {
                0 => Box::new(C::new(ring, "front", memory, start, rsp_len)),
                _ => Box::new(FrontRing::<Split, Req, Rsp>::attach(split()).expect("it is a ring")),
            };
            let back: Box<dyn End + '_> = match index & 2 {
                0 => Box::new(C::new(ring, "back", memory, start, req_len)),
                _ => Box::new(BackRing::<Split, Req, Rsp>::attach(split()).expect("it is a ring")),
            };
            (front, back)
        })
        .collect();
    let memories: Vec<&[Memory]> = memories.iter().map(|memory| &memory[..]).collect();
    for (is_front, step) in steps {
        let outcomes: Vec<_> = pairs
            .iter_mut()
            .map(|(front, back)| match is_front {
                true => take(&mut **front, step, req_len),
                false => take(&mut **back, step, rsp_len),
            })
            .collect();
        assert_same(&outcomes, &memories, &(ring, is_front, step));
    }
}

/// Where a ring may stand: new, about to wrap, or anywhere.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), (u32::MAX - 40)..=u32::MAX, any::<u32>()]
}

fn pages() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1usize, 2, 4, 16])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_block_ring_is_the_same_ring(pages in pages(), start in start(), steps in steps()) {
        same::<RawRequest, RawResponse>("blkif", pages, start, &steps);
    }

    #[test]
    fn a_tx_ring_is_the_same_ring(pages in pages(), start in start(), steps in steps()) {
        same::<netif::RawTxRequest, netif::RawTxResponse>("netif_tx", pages, start, &steps);
    }

    #[test]
    fn an_rx_ring_is_the_same_ring(pages in pages(), start in start(), steps in steps()) {
        same::<netif::RawRxRequest, netif::RawRxResponse>("netif_rx", pages, start, &steps);
    }

    #[test]
    fn a_control_ring_is_the_same_ring(start in start(), steps in steps()) {
        same::<netif::RawCtrlRequest, netif::RawCtrlResponse>("xen_netif_ctrl", 1, start, &steps);
    }
}

/// That a new ring of the crate is a new ring of C, and has as many slots.
fn same_when_new<Req: Wire, Rsp: Wire>(ring: &str) {
    for pages in [1, 2, 4, 8, 16] {
        let memories = [[Memory::new(pages)], [Memory::new(pages)]];
        for [memory] in &memories {
            // What lay in the header before must not matter.
            ring_proto::shared::SharedMemory::copy_in(&memory.region(), 0, &[0xaa; 64]);
        }
        let c = &memories[0][0];
        let mut private: Private = [0; 4];
        // SAFETY: the types are those of `rings.c`.
        let size = unsafe {
            let init: unsafe extern "C" fn(*mut u8, u32) = function(&format!("{ring}_init"));
            init(c.base(), 0);
            let attach: Attach = function(&format!("{ring}_front_attach"));
            attach(&raw mut private, c.base(), c.len(), 0);
            let size: Plain = function(&format!("{ring}_size"));
            size(&raw mut private)
        };
        let front = FrontRing::<_, Req, Rsp>::new(memories[1][0].region()).expect("it fits");
        assert_eq!(i64::from(front.size()), i64::from(size), "{ring} of {pages} pages");
        assert_same(&[()], &[&memories[0], &memories[1]], &ring);
    }
}

#[test]
fn a_new_ring_is_the_same_ring() {
    same_when_new::<RawRequest, RawResponse>("blkif");
    same_when_new::<netif::RawTxRequest, netif::RawTxResponse>("netif_tx");
    same_when_new::<netif::RawRxRequest, netif::RawRxResponse>("netif_rx");
    same_when_new::<netif::RawCtrlRequest, netif::RawCtrlResponse>("xen_netif_ctrl");
}
