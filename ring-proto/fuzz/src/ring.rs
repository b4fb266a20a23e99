// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Request/response rings.

use ring_proto::ring::{BackRing, FrontRing, RingError};
use ring_proto::shared::PAGE_SIZE;

use crate::memory::{Hostile, Play};

type Request = [u64; 14];
type Response = [u64; 2];

const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;

/// A ring of 2^order pages by the first step, and the other steps.
fn memory<'a>(play: &Play<'a>) -> (Hostile, &'a [u8]) {
    let (order, steps) = play.steps.split_first().unwrap_or((&0, &[]));
    (play.memory(PAGE_SIZE << (order % 5)), steps)
}

/// The back end, while the frontend writes anything. It takes no more requests than the ring holds, and shows no more
/// responses than it wrote.
pub fn back(data: &[u8]) {
    let play = Play::new(data);
    let (memory, steps) = memory(&play);
    let Ok(mut ring) = BackRing::<_, Request, Response>::attach(memory.clone()) else { return };
    let (mut taken, mut pushed, mut start) = (0u32, 0u32, None);
    for &step in steps {
        match step % 5 {
            0 => match ring.pop() {
                Ok(Some(_)) => taken += 1,
                Ok(None) => {}
                Err(RingError::Overflow { limit, .. }) => return assert!(limit <= ring.size()),
                Err(error) => panic!("{error}"),
            },
            1 => match ring.push(&[u64::from(step); 2]) {
                Ok(()) => pushed += 1,
                Err(error) => assert_eq!((error, taken), (RingError::Full, pushed)),
            },
            2 => {
                let _ = ring.publish();
                if let Some(shown) = memory.written(RSP_PROD) {
                    let start = *start.get_or_insert(shown.wrapping_sub(pushed));
                    assert_eq!(shown, start.wrapping_add(pushed), "shows what it did not write");
                }
            }
            3 => {
                if ring.final_check().is_err() {
                    return;
                }
            }
            _ => match ring.available() {
                Ok(ready) => assert!(ready + ring.unanswered() <= ring.size()),
                Err(_) => return,
            },
        }
        assert_eq!(ring.unanswered(), taken - pushed);
        assert!(ring.unanswered() <= ring.size(), "more requests than slots");
    }
}

/// The front end, while the backend writes anything. It takes no more responses than it has requests out.
pub fn front(data: &[u8]) {
    let play = Play::new(data);
    let (memory, steps) = memory(&play);
    let (attach, steps) = steps.split_first().unwrap_or((&0, &[]));
    let ring = match attach % 2 {
        0 => FrontRing::<_, Request, Response>::new(memory.clone()),
        _ => FrontRing::attach(memory.clone()),
    };
    let Ok(mut ring) = ring else { return };
    let (mut pushed, mut published, mut taken, mut start) = (0u32, 0, 0u32, None);
    for &step in steps {
        match step % 6 {
            0 => match ring.pop() {
                Ok(Some(_)) => taken += 1,
                Ok(None) => {}
                Err(RingError::Overflow { limit, .. }) => {
                    return assert_eq!(limit, published - taken);
                }
                Err(error) => panic!("{error}"),
            },
            1 | 2 => match ring.push(&[u64::from(step); 14]) {
                Ok(()) => pushed += 1,
                Err(error) => assert_eq!((error, ring.free()), (RingError::Full, 0)),
            },
            3 => {
                let _ = ring.publish();
                published = pushed;
                if let Some(shown) = memory.written(REQ_PROD) {
                    let start = *start.get_or_insert(shown.wrapping_sub(pushed));
                    assert_eq!(shown, start.wrapping_add(pushed), "shows what it did not write");
                }
            }
            4 => {
                if ring.final_check_after(u32::from(step)).is_err() {
                    return;
                }
            }
            _ => match ring.available() {
                Ok(ready) => assert!(ready <= published - taken),
                Err(_) => return,
            },
        }
        assert!(taken <= published, "more responses than requests");
        assert_eq!(ring.outstanding(), pushed - taken);
        assert_eq!(ring.free() + ring.outstanding(), ring.size());
    }
}
