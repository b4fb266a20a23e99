// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Byte streams whose ends ring whenever they moved an index: console, xenstore, the flexible ring.

use loom::thread;
use ring_proto::stream::{Consumer, Layout, Producer};

use crate::memory::Failure::Torn;
use crate::memory::{holds_and_needs, Doorbell, Model, Without};

const PROD: usize = 0;
const CONS: usize = 4;
const LAYOUT: Layout = Layout { prod: PROD, cons: CONS, data: 64, size: 2 };

const MESSAGE: [u8; 5] = *b"hello";

/// Sends the message through a buffer that holds two bytes of it. Both ends sleep when they cannot go on.
fn conversation(without: Without) {
    let memory = Model::new(LAYOUT.data, 1, LAYOUT.size as usize, without);
    let mut producer = Producer::attach(memory.clone(), memory.clone(), LAYOUT).unwrap();
    let mut consumer = Consumer::attach(memory.clone(), memory, LAYOUT).unwrap();
    let (data, room) = (Doorbell::new(), Doorbell::new());
    let reader = {
        let (data, room) = (data.clone(), room.clone());
        thread::spawn(move || {
            let (mut received, mut taken) = ([0; MESSAGE.len()], 0);
            while taken < received.len() {
                match consumer.read(&mut received[taken..]).unwrap() {
                    0 => data.wait(),
                    count => {
                        taken += count;
                        room.ring();
                    }
                }
            }
            assert_eq!(received, MESSAGE);
        })
    };
    let mut sent = 0;
    while sent < MESSAGE.len() {
        match producer.write(&MESSAGE[sent..]).unwrap() {
            0 => room.wait(),
            count => {
                sent += count;
                data.ring();
            }
        }
    }
    reader.join().unwrap();
}

#[test]
fn bytes_arrive_once_in_order_and_whole() {
    let needed = [
        (Without::Release(PROD), Torn),
        (Without::Acquire(PROD), Torn),
        (Without::Release(CONS), Torn),
        (Without::Acquire(CONS), Torn),
    ];
    holds_and_needs("stream::bytes_arrive_once_in_order_and_whole", 3, &needed, conversation);
}
