// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! libxenvchan, whose ends ring only when they were asked to.

use loom::thread;
use ring_proto::vchan::{Orders, Transfer, Vchan, CLI_LIVE, LEFT, SMALL_ORDER};

use crate::memory::Failure::{LostWakeUp, Torn};
use crate::memory::{holds_and_needs, Doorbell, Model, Without};

const CONS: usize = LEFT;
const PROD: usize = LEFT + 4;
/// The word of the notification bits.
const FLAGS: usize = CLI_LIVE;

/// A message is half of the client's buffer.
const LEN: usize = 1 << (SMALL_ORDER - 1);
const COUNT: u8 = 3;

/// Tries until bytes moved, sleeping in between.
fn transfer(mut attempt: impl FnMut() -> Transfer, own: &Doorbell, peers: &Doorbell) {
    loop {
        let Transfer { count, notify } = attempt();
        if notify {
            peers.ring();
        }
        if count > 0 {
            return assert_eq!(count, LEN);
        }
        own.wait();
    }
}

/// The client sends three messages through a buffer that holds two.
fn conversation(without: Without) {
    // The small buffer begins 1024 bytes into the control page, the large one fills its second half.
    let memory = Model::new(1024, LEN, 3072 / LEN, without);
    let orders = Orders::new(SMALL_ORDER, SMALL_ORDER + 1).unwrap();
    let data = || memory.clone();
    let mut server = Vchan::server(memory.clone(), data(), data(), orders, &[]).unwrap();
    let mut client = Vchan::client(memory.clone(), data(), data(), orders).unwrap();
    let (to_server, to_client) = (Doorbell::new(), Doorbell::new());
    let reader = {
        let (to_server, to_client) = (to_server.clone(), to_client.clone());
        thread::spawn(move || {
            for n in 0..COUNT {
                let mut message = [0; LEN];
                transfer(|| server.recv(&mut message).unwrap(), &to_server, &to_client);
                assert_eq!(message, [n + 1; LEN]);
            }
        })
    };
    for n in 0..COUNT {
        transfer(|| client.send(&[n + 1; LEN]).unwrap(), &to_client, &to_server);
    }
    reader.join().unwrap();
}

#[test]
fn messages_arrive_and_nobody_sleeps_for_ever() {
    let needed = [
        (Without::Release(PROD), Torn),
        (Without::Acquire(PROD), Torn),
        (Without::Release(CONS), Torn),
        (Without::Acquire(CONS), Torn),
        (Without::Barrier(PROD), LostWakeUp),
        (Without::Barrier(CONS), LostWakeUp),
        (Without::Barrier(FLAGS), LostWakeUp),
    ];
    holds_and_needs("vchan::messages_arrive_and_nobody_sleeps_for_ever", 2, &needed, conversation);
}
