// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Whether a well-formed request fits the disk that it is for.

use super::{Discard, Operation, Problem, RwOp, Segment, SECTOR_SIZE};

/// What a disk can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in sectors of 512 bytes.
    pub capacity: u64,
    /// Bytes of a logical sector, the least that it reads or writes: 512 or a larger power of two.
    pub logical: u32,
    /// Writes and discards are refused.
    pub read_only: bool,
    /// Flush was offered (`feature-flush-cache`).
    pub flush: bool,
    /// Write barrier was offered (`feature-barrier`).
    pub barrier: bool,
    /// Discard was offered (`feature-discard`).
    pub discard: bool,
}

impl Disk {
    /// Judges a read or write of these segments, which for an indirect request come from its pages. Returns the number
    /// of sectors.
    ///
    /// # Errors
    ///
    /// The reason to refuse it.
    #[inline]
    pub fn check_rw(&self, op: RwOp, sector: u64, segments: &[Segment]) -> Result<u32, Problem> {
        self.offered(op.operation())?;
        if op.is_write() && self.read_only {
            return Err(Problem::ReadOnly(op.operation()));
        }
        let mask = self.logical_mask();
        let (mut count, mut edges) = (0u32, 0u64);
        for segment in segments {
            count = count.saturating_add(segment.sectors());
            edges |= u64::from(segment.first()) | (u64::from(segment.last()) + 1);
        }
        if edges & mask != 0 {
            return Err(self.unaligned_segment(segments));
        }
        self.check_range(sector, u64::from(count))?;
        Ok(count)
    }

    /// Judges a flush, or a barrier without data.
    ///
    /// # Errors
    ///
    /// [`Problem::NotOffered`].
    pub fn check_flush(&self, barrier: bool) -> Result<(), Problem> {
        self.offered(if barrier { Operation::WriteBarrier } else { Operation::FlushDiskcache })
    }

    /// Judges a discard.
    ///
    /// # Errors
    ///
    /// The reason to refuse it.
    pub fn check_discard(&self, discard: &Discard) -> Result<(), Problem> {
        self.offered(Operation::Discard)?;
        if self.read_only {
            return Err(Problem::ReadOnly(Operation::Discard));
        }
        self.check_range(discard.sector, discard.count)
    }

    fn offered(&self, operation: Operation) -> Result<(), Problem> {
        let offered = match operation {
            Operation::Read | Operation::Write | Operation::Indirect => true,
            Operation::WriteBarrier => self.barrier,
            Operation::FlushDiskcache => self.flush,
            Operation::Discard => self.discard,
        };
        if offered {
            Ok(())
        } else {
            Err(Problem::NotOffered(operation))
        }
    }

    /// The bits of a sector number that are zero where a logical sector begins.
    fn logical_mask(&self) -> u64 {
        (u64::from(self.logical) / SECTOR_SIZE as u64).saturating_sub(1)
    }

    fn check_range(&self, sector: u64, count: u64) -> Result<(), Problem> {
        let capacity = self.capacity;
        if sector.checked_add(count).is_none_or(|end| end > capacity) {
            return Err(Problem::BeyondEnd { sector, count, capacity });
        }
        if (sector | count) & self.logical_mask() != 0 {
            return Err(Problem::Unaligned { sector, count, logical: self.logical });
        }
        Ok(())
    }

    #[cold]
    fn unaligned_segment(&self, segments: &[Segment]) -> Problem {
        let mask = self.logical_mask();
        let bad = |segment: &&Segment| {
            (u64::from(segment.first()) | (u64::from(segment.last()) + 1)) & mask != 0
        };
        let (first, last) =
            segments.iter().find(bad).map_or((0, 0), |bad| (bad.first(), bad.last()));
        Problem::UnalignedSegment { first, last, logical: self.logical }
    }
}
