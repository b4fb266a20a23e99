// SPDX-License-Identifier: MIT OR Apache-2.0

//! What verified blocks hold, so that each way of losing data is told from the others.
//!
//! Every sector of 512 bytes says which sector it is, in which run and by which write of that run it was written, and
//! has a checksum over all of it:
//!
//! ```text
//! offset   0          4            8     16       24                512
//!        | crc32c   | generation | run | sector | pseudo-random … |
//! ```

use std::fmt;

/// Bytes of a sector of the ring protocol.
pub const SECTOR: usize = 512;

/// Which write a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A number that no other run uses.
    pub run: u64,
    /// First sector of the block on the disk.
    pub sector: u64,
    /// Counts the writes of this block in this run, from 1.
    pub generation: u32,
}

/// What is wrong with a block that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A sector that no write can have left.
    Corrupt {
        /// The sector on the disk.
        sector: u64,
    },
    /// A sector of another run: a write of this one was lost.
    Foreign {
        /// The sector on the disk.
        sector: u64,
    },
    /// A sector that belongs elsewhere.
    Misplaced {
        /// The sector on the disk.
        sector: u64,
        /// Where it belongs.
        belongs: u64,
    },
    /// Sectors of two writes in one block.
    Torn {
        /// First sector of the block.
        sector: u64,
        /// The lowest generation found.
        oldest: u32,
        /// The highest generation found.
        newest: u32,
    },
    /// A whole block of another write than the last one acknowledged.
    Stale {
        /// First sector of the block.
        sector: u64,
        /// The generation found.
        found: u32,
        /// The one acknowledged.
        wanted: u32,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { sector } => write!(f, "sector {sector} is corrupt"),
            Self::Foreign { sector } => write!(f, "sector {sector} is from before this run"),
            Self::Misplaced { sector, belongs } => {
                write!(f, "sector {sector} holds what belongs to sector {belongs}")
            }
            Self::Torn { sector, oldest, newest } => {
                write!(
                    f,
                    "the block at sector {sector} is torn between its writes {oldest} and {newest}"
                )
            }
            Self::Stale { sector, found, wanted } => {
                write!(
                    f,
                    "the block at sector {sector} is that of write {found}, acknowledged was {wanted}"
                )
            }
        }
    }
}

/// A pseudo-random sequence (SplitMix64): every seed gives another one.
#[derive(Clone, Debug)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next number.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }
}

impl Stamp {
    /// Writes the block into `block`, a multiple of 512 bytes.
    pub fn fill(&self, block: &mut [u8]) {
        for (sector, bytes) in (self.sector..).zip(block.chunks_exact_mut(SECTOR)) {
            bytes[4..8].copy_from_slice(&self.generation.to_le_bytes());
            bytes[8..16].copy_from_slice(&self.run.to_le_bytes());
            bytes[16..24].copy_from_slice(&sector.to_le_bytes());
            let mut noise =
                Sequence(self.run ^ sector.rotate_left(32) ^ u64::from(self.generation));
            for word in bytes[24..].chunks_exact_mut(8) {
                word.copy_from_slice(&noise.number().to_le_bytes());
            }
            let checksum = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// Whether `block` is what [`fill`](Self::fill) wrote.
    ///
    /// # Errors
    ///
    /// What else it is.
    pub fn check(&self, block: &[u8]) -> Result<(), Damage> {
        let (mut oldest, mut newest) = (u32::MAX, 0);
        for (sector, bytes) in (self.sector..).zip(block.chunks_exact(SECTOR)) {
            let checksum = word(bytes, 0) as u32;
            let generation = word(bytes, 4) as u32;
            if checksum != crc32c::crc32c(&bytes[4..]) {
                return Err(Damage::Corrupt { sector });
            }
            if word(bytes, 8) != self.run {
                return Err(Damage::Foreign { sector });
            }
            if word(bytes, 16) != sector {
                return Err(Damage::Misplaced { sector, belongs: word(bytes, 16) });
            }
            oldest = oldest.min(generation);
            newest = newest.max(generation);
        }
        match (oldest, newest) {
            _ if oldest == self.generation && newest == self.generation => Ok(()),
            _ if oldest == newest => {
                Err(Damage::Stale { sector: self.sector, found: newest, wanted: self.generation })
            }
            _ => Err(Damage::Torn { sector: self.sector, oldest, newest }),
        }
    }
}

/// The little-endian number at `offset`; a `u32` stands in its lower half.
fn word(sector: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&sector[offset..offset + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(generation: u32) -> Stamp {
        Stamp { run: 7, sector: 800, generation }
    }

    fn block(stamp: Stamp) -> Vec<u8> {
        let mut block = vec![0; 4096];
        stamp.fill(&mut block);
        block
    }

    #[test]
    fn an_intact_block_is_recognised() {
        assert_eq!(stamp(3).check(&block(stamp(3))), Ok(()));
    }

    #[test]
    fn a_block_of_an_earlier_write_is_stale() {
        let damage = stamp(3).check(&block(stamp(2)));
        assert_eq!(damage, Err(Damage::Stale { sector: 800, found: 2, wanted: 3 }));
    }

    #[test]
    fn a_block_with_sectors_of_two_writes_is_torn() {
        let mut torn = block(stamp(3));
        torn[1024..].copy_from_slice(&block(stamp(2))[1024..]);
        let damage = stamp(3).check(&torn);
        assert_eq!(damage, Err(Damage::Torn { sector: 800, oldest: 2, newest: 3 }));
    }

    #[test]
    fn a_block_from_elsewhere_is_misplaced() {
        let other = Stamp { sector: 1600, ..stamp(3) };
        let damage = stamp(3).check(&block(other));
        assert_eq!(damage, Err(Damage::Misplaced { sector: 800, belongs: 1600 }));
    }

    #[test]
    fn a_block_of_another_run_is_foreign() {
        let other = Stamp { run: 8, ..stamp(3) };
        assert_eq!(stamp(3).check(&block(other)), Err(Damage::Foreign { sector: 800 }));
    }

    #[test]
    fn any_changed_byte_is_seen() {
        for at in [0, 3, 4, 9, 17, 24, 511, 512, 4095] {
            let mut bad = block(stamp(3));
            bad[at] ^= 0x10;
            let sector = 800 + at as u64 / 512;
            assert_eq!(stamp(3).check(&bad), Err(Damage::Corrupt { sector }), "byte {at}");
        }
        assert_eq!(stamp(3).check(&[0; 4096]), Err(Damage::Corrupt { sector: 800 }));
    }

    #[test]
    fn a_sequence_stays_below_its_limit_and_reaches_everything() {
        let mut sequence = Sequence(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[sequence.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }
}
