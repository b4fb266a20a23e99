// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::shared::PAGE_SIZE;
use crate::testing::Local;
use crate::{console, xenstore};

/// What one end does next.
#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    WriteAll(usize),
    Read(usize),
    ReadExact(usize),
    Peek(usize),
    Consume(usize),
    /// Both ends are made anew from what stands in memory.
    Reattach,
}

fn steps(size: usize) -> impl Strategy<Value = Vec<Step>> {
    let len = 0..size * 3 / 2;
    let step = prop_oneof![
        len.clone().prop_map(Step::Write),
        len.clone().prop_map(Step::WriteAll),
        len.clone().prop_map(Step::Read),
        len.clone().prop_map(Step::ReadExact),
        len.clone().prop_map(Step::Peek),
        len.prop_map(Step::Consume),
        Just(Step::Reattach),
    ];
    prop::collection::vec(step, 0..40)
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(vec![
        console::IN,
        console::OUT,
        xenstore::stream::REQUESTS,
        xenstore::stream::REPLIES,
        flex::to_frontend(2048),
        Layout { prod: 4, cons: 0, data: 8, size: 1 },
    ])
}

/// Memory with a stream that has moved `start` bytes, all read.
fn memory(layout: Layout, start: u32) -> (Local, Local) {
    let (index, data) = (Local::new(PAGE_SIZE), Local::new(PAGE_SIZE));
    index.store(layout.prod, start);
    index.store(layout.cons, start);
    (index, data)
}

proptest! {
    #[test]
    fn a_stream_is_a_bounded_queue_of_bytes(
        layout in layouts(),
        start in prop_oneof![Just(0), Just(u32::MAX - 100), any::<u32>()],
        steps in steps(2048),
    ) {
        let (index, data) = memory(layout, start);
        let mut tx = Producer::attach(index.clone(), data.clone(), layout).unwrap();
        let mut rx = Consumer::attach(index.clone(), data.clone(), layout).unwrap();
        let mut model = VecDeque::new();
        let mut next = 0u8;
        let size = layout.size as usize;
        for step in steps {
            // What the consumer has not looked at, it cannot consume.
            let known = rx.available().unwrap() as usize;
            prop_assert_eq!(known, model.len());
            match step {
                Step::Write(len) | Step::WriteAll(len) => {
                    let bytes: Vec<u8> = (0..len).map(|at| next.wrapping_add(at as u8)).collect();
                    let room = size - model.len();
                    let wanted = match step {
                        Step::Write(_) => len.min(room),
                        _ if len <= room => len,
                        _ => 0,
                    };
                    if let Step::Write(_) = step {
                        prop_assert_eq!(tx.write(&bytes).unwrap(), wanted);
                    } else {
                        prop_assert_eq!(tx.write_all(&bytes).unwrap(), len <= room);
                    }
                    model.extend(&bytes[..wanted]);
                    next = next.wrapping_add(wanted as u8);
                }
                Step::Read(len) | Step::Peek(len) => {
                    let mut bytes = vec![0; len];
                    let taken = matches!(step, Step::Read(_));
                    let count = if taken { rx.read(&mut bytes) } else { rx.peek(&mut bytes) }.unwrap();
                    prop_assert_eq!(count, len.min(model.len()));
                    prop_assert!(bytes[..count].iter().eq(model.iter().take(count)));
                    model.drain(..if taken { count } else { 0 });
                }
                Step::ReadExact(len) => {
                    let mut bytes = vec![0; len];
                    let enough = len <= model.len();
                    prop_assert_eq!(rx.read_exact(&mut bytes).unwrap(), enough);
                    if enough {
                        prop_assert!(model.drain(..len).eq(bytes));
                    }
                }
                Step::Consume(count) => {
                    rx.consume(count);
                    model.drain(..count.min(known));
                }
                Step::Reattach => {
                    tx = Producer::attach(index.clone(), data.clone(), layout).unwrap();
                    rx = Consumer::attach(index.clone(), data.clone(), layout).unwrap();
                }
            }
            prop_assert_eq!(tx.free().unwrap() as usize, size - model.len());
        }
    }

    /// `Local` fails the test on an access outside; the counts must hold whatever the peer writes.
    #[test]
    fn a_hostile_peer_reaches_nothing_beyond_the_buffer(
        layout in layouts(),
        writes in prop::collection::vec((any::<bool>(), any::<u32>(), 0usize..3000), 1..30),
    ) {
        let (index, data) = memory(layout, 0);
        let mut tx = Producer::attach(index.clone(), data.clone(), layout).unwrap();
        let mut rx = Consumer::attach(index.clone(), data, layout).unwrap();
        let size = layout.size as usize;
        for (producer, value, len) in writes {
            index.store(if producer { layout.prod } else { layout.cons }, value);
            let mut bytes = vec![0; len];
            if let Ok(count) = rx.read(&mut bytes) {
                prop_assert!(count <= size);
            }
            if let Ok(count) = tx.write(&bytes) {
                prop_assert!(count <= size);
            }
            rx.consume(len);
        }
    }
}

#[test]
fn an_index_too_far_or_backwards_ends_the_stream() {
    let layout = console::OUT;
    let (index, data) = memory(layout, 0);
    let mut tx = Producer::attach(index.clone(), data.clone(), layout).unwrap();
    let mut rx = Consumer::attach(index.clone(), data.clone(), layout).unwrap();
    assert_eq!(tx.write(b"abc"), Ok(3));
    assert_eq!(rx.available(), Ok(3));

    index.store(layout.prod, 2);
    let backwards = StreamError::Overflow { producer: 2, consumer: 0, size: 2048 };
    assert_eq!(rx.available(), Err(backwards));
    index.store(layout.prod, 2049);
    let too_far = StreamError::Overflow { producer: 2049, consumer: 0, size: 2048 };
    assert_eq!(rx.read(&mut [0]), Err(too_far));
    assert_eq!(Consumer::attach(index.clone(), data, layout).unwrap_err(), too_far);

    index.store(layout.cons, 4);
    assert_eq!(tx.free(), Err(StreamError::Overflow { producer: 3, consumer: 4, size: 2048 }));
    index.store(layout.cons, 3);
    assert_eq!(tx.free(), Ok(2048));
    index.store(layout.cons, 1);
    assert_eq!(tx.write(b"d"), Err(StreamError::Overflow { producer: 3, consumer: 1, size: 2048 }));
}

#[test]
fn a_layout_has_to_lie_in_the_memory() {
    let page = Local::new(PAGE_SIZE);
    for layout in [
        Layout { size: 1000, ..console::IN },
        Layout { size: 0, ..console::IN },
        Layout { data: 4000, ..console::IN },
        Layout { data: usize::MAX, ..console::IN },
        Layout { prod: 4096, ..console::IN },
        Layout { cons: 2, ..console::IN },
    ] {
        let refused = Producer::attach(page.clone(), page.clone(), layout).unwrap_err();
        assert_eq!(refused, StreamError::Layout(layout));
    }
}

#[test]
fn both_ends_of_each_kind_hear_each_other() {
    fn talk<I: SharedMemory, D: SharedMemory>(mut one: Duplex<I, D>, mut other: Duplex<I, D>) {
        for (from, to) in [(&mut one.tx, &mut other.rx), (&mut other.tx, &mut one.rx)] {
            let said: Vec<u8> = (0..from.size()).map(|at| at as u8).collect();
            assert_eq!(from.write(&said), Ok(said.len()));
            let mut heard = vec![0; said.len()];
            assert_eq!(to.read_exact(&mut heard), Ok(true));
            assert_eq!(heard, said);
        }
    }
    let page = Local::new(PAGE_SIZE);
    talk(console::frontend(page.clone()).unwrap(), console::backend(page).unwrap());
    let page = Local::new(PAGE_SIZE);
    talk(xenstore::stream::domain(page.clone()).unwrap(), xenstore::stream::server(page).unwrap());
    for order in [0, 3, flex::MAX_ORDER] {
        let (index, data) = (Local::new(PAGE_SIZE), Local::new(PAGE_SIZE << order));
        let front = flex::frontend(index.clone(), data.clone()).unwrap();
        assert_eq!(Some(front.rx.size()), flex::size(order));
        talk(front, flex::backend(index, data).unwrap());
    }
    assert_eq!(flex::size(flex::MAX_ORDER + 1), None);
}
