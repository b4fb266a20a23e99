// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The flexible ring.

use proptest::prelude::*;
use ring_proto::shared::{Pages, Region, SharedMemory};
use ring_proto::stream::flex::{self, IN_CONS, IN_PROD, OUT_CONS, OUT_PROD};
use ring_proto::stream::Duplex;

use crate::{assert_same, function, Memory};

/// `flex_write` and `flex_read` of `rings.c`.
type Move = unsafe extern "C" fn(*mut u32, *mut u32, *mut u8, u32, *mut u8, u32) -> u32;

trait End {
    fn write(&mut self, bytes: &[u8]) -> usize;
    fn read(&mut self, into: &mut [u8]) -> usize;
}

/// An end in C: the memory of indices and of data, and where in it.
struct C {
    index: *mut u32,
    data: *mut u8,
    size: u32,
    front: bool,
    write: Move,
    read: Move,
}

impl C {
    /// Calls a function on the direction in which `out` (to the backend) goes, or the other.
    fn call(&self, function: Move, out: bool, bytes: *mut u8, len: usize) -> usize {
        let (prod, cons, data) =
            if out { (OUT_PROD, OUT_CONS, self.size as usize) } else { (IN_PROD, IN_CONS, 0) };
        // SAFETY: the types are those of `rings.c`; the pages outlive this end, and `bytes` is `len` long.
        unsafe {
            let word = |offset: usize| self.index.add(offset / 4);
            function(word(prod), word(cons), self.data.add(data), self.size, bytes, len as u32)
                as usize
        }
    }
}

impl End for C {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.call(self.write, self.front, bytes.as_ptr().cast_mut(), bytes.len())
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        self.call(self.read, !self.front, into.as_mut_ptr(), into.len())
    }
}

impl End for Duplex<Region<'_>, Pages<'_, 16>> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.tx.write(bytes).expect("the peer is honest")
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        self.rx.read(into).expect("the peer is honest")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flexible_ring_is_the_same_ring(
        order in 0u32..3,
        start in prop_oneof![Just(0), (u32::MAX - 5000)..=u32::MAX, any::<u32>()],
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0usize..9000), 1..40),
    ) {
        let size = flex::size(order).expect("a legal order");
        let memories: Vec<[Memory; 2]> = (0..4).map(|_| [Memory::new(1), Memory::new(1 << order)]).collect();
        let mut pairs: Vec<(Box<dyn End + '_>, Box<dyn End + '_>)> = memories
            .iter()
            .enumerate()
            .map(|(kind, [index, data])| {
                for offset in [IN_CONS, IN_PROD, OUT_CONS, OUT_PROD] {
                    index.region().store(offset, start);
                }
                // SAFETY: the types are those of `rings.c`.
                let (write, read) = unsafe { (function("flex_write"), function("flex_read")) };
                let c = |front| C { index: index.words(), data: data.base(), size, front, write, read };
                let split = || Pages::<16>::new(&data.parts()).expect("at most 16 pages");
                let front: Box<dyn End + '_> = match kind & 1 {
                    0 => Box::new(c(true)),
                    _ => Box::new(flex::frontend(index.region(), split()).expect("it is a ring")),
                };
                let back: Box<dyn End + '_> = match kind & 2 {
                    0 => Box::new(c(false)),
                    _ => Box::new(flex::backend(index.region(), split()).expect("it is a ring")),
                };
                (front, back)
            })
            .collect();
        let memories: Vec<&[Memory]> = memories.iter().map(|memory| &memory[..]).collect();
        for (round, step) in steps.iter().enumerate() {
            let (front, write, len) = *step;
            let results: Vec<(usize, Vec<u8>)> = pairs
                .iter_mut()
                .map(|pair| {
                    let end = if front { &mut pair.0 } else { &mut pair.1 };
                    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7 + round) as u8).collect();
                    let count = if write { end.write(&bytes) } else { end.read(&mut bytes) };
                    (count, bytes)
                })
                .collect();
            assert_same(&results, &memories, step);
        }
    }
}
