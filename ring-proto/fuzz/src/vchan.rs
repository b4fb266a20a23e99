// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! libxenvchan's channel.

use ring_proto::shared::PAGE_SIZE;
use ring_proto::vchan::{Orders, Vchan};

use crate::memory::{Hostile, Play};

/// Either end, whose peer writes anything.
pub fn run(data: &[u8]) {
    let play = Play::new(data);
    let (role, steps) = play.steps.split_first().unwrap_or((&0, &[]));
    let page = play.memory(PAGE_SIZE);
    let end = if role & 1 == 0 {
        let Ok(orders) = Orders::read(&page) else { return };
        let left = buffer(&page, orders.left());
        let right = buffer(&page, orders.right());
        Vchan::client(page, left, right, orders)
    } else {
        let Ok(orders) = Orders::new(10, 11) else { unreachable!("both fit in the page") };
        Vchan::server(page.clone(), page.clone(), page, orders, &[])
    };
    let Ok(mut end) = end else { return };
    let mut bytes = [0; 2 * PAGE_SIZE];
    for &step in steps {
        let len = usize::from(step >> 3) * 200;
        let moved = match step % 8 {
            0 => end.read(&mut bytes[..len]).map(|done| assert!(done.count <= len)),
            1 => end.write(&bytes[..len]).map(|done| assert!(done.count <= len)),
            2 => end
                .recv(&mut bytes[..len])
                .map(|done| assert!(done.count == len || done.count == 0)),
            3 => end.send(&bytes[..len]).map(|done| assert!(done.count == len || done.count == 0)),
            4 => end.data_ready().map(drop),
            5 => end.buffer_space().map(drop),
            6 => {
                let _ = end.peer();
                Ok(())
            }
            _ => {
                let _ = end.close();
                return;
            }
        };
        if moved.is_err() {
            return;
        }
    }
}

/// The memory of a buffer of this order: in the control page, or of its own.
fn buffer(page: &Hostile, order: u16) -> Hostile {
    if order < 12 { page.clone() } else { Hostile::new(1 << order, &[], &[]) }
}
