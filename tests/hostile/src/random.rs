// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers that look random and come again.

/// Numbers that a seed makes: the same ones each time (splitmix64).
#[derive(Debug)]
pub struct Random(u64);

/// Numbers that programs get wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 55,
    i64::MAX as u64,
    u64::MAX,
];

impl Random {
    /// A generator.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    /// Half of the time any number, else one near an edge.
    pub fn nasty(&mut self) -> u64 {
        match self.below(2) {
            0 => self.any(),
            _ => {
                let edge = self.below(EDGES.len() as u64) as usize;
                EDGES.get(edge).copied().unwrap_or(0).wrapping_add(self.below(3)).wrapping_sub(1)
            }
        }
    }

    /// Bytes of any values.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.any() as u8).collect()
    }

    /// One of a list that is not empty.
    pub fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}
