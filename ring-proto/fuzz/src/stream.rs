// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Byte streams: console, xenstore, the flexible ring.

use ring_proto::shared::PAGE_SIZE;
use ring_proto::stream::{Duplex, flex};
use ring_proto::{console, xenstore};

use crate::memory::{Hostile, Play};

/// One side of any of them, whose peer writes anything.
pub fn run(data: &[u8]) {
    let play = Play::new(data);
    let (kind, steps) = play.steps.split_first().unwrap_or((&0, &[]));
    let page = play.memory(PAGE_SIZE);
    let second = || Hostile::new(PAGE_SIZE << (kind >> 4 & 1), &[], &[]);
    let duplex = match kind % 6 {
        0 => console::frontend(page),
        1 => console::backend(page),
        2 => xenstore::stream::domain(page),
        3 => xenstore::stream::server(page),
        4 => flex::frontend(page, second()),
        _ => flex::backend(page, second()),
    };
    if let Ok(duplex) = duplex {
        talk(duplex, steps);
    }
}

fn talk(mut duplex: Duplex<Hostile, Hostile>, steps: &[u8]) {
    let mut buffer = [0; 3 * PAGE_SIZE];
    let (rx_size, tx_size) = (duplex.rx.size() as usize, duplex.tx.size() as usize);
    for &step in steps {
        let len = usize::from(step >> 3) * 300;
        let moved = match step % 8 {
            0 => duplex.rx.read(&mut buffer[..len]).map(|count| assert!(count <= len.min(rx_size))),
            1 => duplex.rx.peek(&mut buffer[..len]).map(|count| assert!(count <= len.min(rx_size))),
            2 => duplex.rx.available().map(|count| assert!(count as usize <= rx_size)),
            3 => {
                duplex.rx.consume(len);
                Ok(())
            }
            4 => duplex.tx.write(&buffer[..len]).map(|count| assert!(count <= len.min(tx_size))),
            5 => duplex.tx.free().map(|count| assert!(count as usize <= tx_size)),
            6 => duplex.tx.write_all(&buffer[..len]).map(drop),
            _ => duplex.rx.read_exact(&mut buffer[..len]).map(drop),
        };
        if moved.is_err() {
            return;
        }
    }
}
