// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a request has to be answered, where the protocol leaves but one way. Written anew for that: what backends judge by
//! is not to be judged by itself.

use ring_proto::blkif::{Operation, RawRequest, Status};
use ring_proto::xen::GrantRef;
use ring_proto::xenbus::vbd::{BackendFeatures, Geometry};

/// How a request has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// It is legal, and nothing is in its way.
    Succeed,
    /// It is not legal. With which error is the backend's choice.
    Fail,
    /// That depends on what this end does not know.
    Either,
}

impl Must {
    /// Whether it may be answered with this status.
    pub fn allows(self, status: u16) -> bool {
        match Status::from_raw(status as i16) {
            None => false,
            Some(Status::Okay) => self != Self::Fail,
            Some(Status::Error | Status::NotSupported) => self != Self::Succeed,
        }
    }
}

/// What a frontend's requests are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The disk.
    pub geometry: &'a Geometry,
    /// What the backend offers.
    pub offered: &'a BackendFeatures,
    /// Pages of data that the frontend granted, to read and to write.
    pub granted: &'a [GrantRef],
}

/// No grant table has so many entries.
const MOST_GRANTS: u32 = 1 << 20;

impl Rules<'_> {
    /// How this request has to be answered.
    pub fn must(&self, raw: &RawRequest) -> Must {
        let Some(operation) = Operation::from_raw(raw.operation) else { return Must::Fail };
        let (discard, indirect) = (raw.as_discard(), raw.as_indirect());
        let most_indirect = self.offered.max_indirect_segments;
        let offered = match operation {
            Operation::Read | Operation::Write => true,
            Operation::WriteBarrier => self.offered.barrier,
            Operation::FlushDiskcache => self.offered.flush_cache,
            Operation::Discard => self.geometry.discard.is_some(),
            Operation::Indirect => most_indirect > 0,
        };
        let changes_data = match operation {
            Operation::Read => false,
            Operation::Write | Operation::Discard => true,
            Operation::WriteBarrier | Operation::FlushDiskcache => raw.nr_segments > 0,
            Operation::Indirect => indirect.indirect_op == Operation::Write as u8,
        };
        if !offered || (changes_data && self.geometry.read_only) {
            return Must::Fail;
        }
        match operation {
            // It may be one that is to be secure.
            Operation::Discard => {
                self.fail_unless(self.fits(discard.sector_number, discard.nr_sectors))
            }
            // Its segments are elsewhere.
            Operation::Indirect => self.fail_unless(
                [Operation::Read as u8, Operation::Write as u8].contains(&indirect.indirect_op)
                    && (1..=most_indirect).contains(&indirect.nr_segments.into()),
            ),
            // A backend may have nothing that could be flushed.
            Operation::WriteBarrier | Operation::FlushDiskcache if !changes_data => {
                if self.geometry.read_only { Must::Either } else { Must::Succeed }
            }
            _ => self.must_move(raw),
        }
    }

    fn fail_unless(&self, legal: bool) -> Must {
        if legal { Must::Either } else { Must::Fail }
    }

    /// The same of one that moves data, by its segments.
    fn must_move(&self, raw: &RawRequest) -> Must {
        let used = raw.seg.get(..raw.nr_segments.into()).unwrap_or_default();
        let mut end = 0;
        for segment in used {
            let (first, last) = (u64::from(segment.first_sect), u64::from(segment.last_sect));
            if first > last || last > 7 || !self.is_whole(first) || !self.is_whole(last + 1) {
                return Must::Fail;
            }
            end += last + 1 - first;
        }
        let beyond = used.iter().any(|segment| segment.gref >= MOST_GRANTS);
        if used.is_empty() || beyond || !self.fits(raw.sector_number, end) {
            return Must::Fail;
        }
        let ours = used.iter().all(|segment| self.granted.contains(&GrantRef(segment.gref)));
        if ours { Must::Succeed } else { Must::Either }
    }

    /// Whether the disk has these sectors.
    fn fits(&self, sector: u64, count: u64) -> bool {
        let end = u128::from(sector) + u128::from(count);
        end <= self.geometry.sectors.into() && self.is_whole(sector) && self.is_whole(count)
    }

    /// Whether so many sectors are whole blocks.
    fn is_whole(&self, sectors: u64) -> bool {
        sectors.is_multiple_of((self.geometry.sector_size / 512).into())
    }
}

#[cfg(test)]
mod tests {
    use ring_proto::blkif::{RawDiscard, RawIndirect, RawSegment};
    use ring_proto::shared::zeroed;
    use ring_proto::xenbus::vbd::Discard;

    use super::*;

    fn must_of(geometry: Geometry, raw: &RawRequest) -> Must {
        let offered = BackendFeatures {
            flush_cache: true,
            max_indirect_segments: 256,
            ..BackendFeatures::default()
        };
        let granted = [GrantRef(8), GrantRef(9)];
        Rules { geometry: &geometry, offered: &offered, granted: &granted }.must(raw)
    }

    fn disk() -> Geometry {
        let discard = Some(Discard { granularity: 512, alignment: 0, secure: false });
        Geometry { discard, ..Geometry::new(64) }
    }

    fn request(operation: u8, nr_segments: u8, sector_number: u64) -> RawRequest {
        let page = RawSegment { gref: 8, first_sect: 0, last_sect: 7, pad: [0; 2] };
        RawRequest { operation, nr_segments, sector_number, seg: [page; 11], ..zeroed() }
    }

    #[test]
    fn data_are_moved_within_the_disk_and_the_page() {
        for (operation, segments, sector, must) in [
            (0, 1, 0, Must::Succeed),
            (1, 8, 0, Must::Succeed),
            (1, 1, 56, Must::Succeed),
            (0, 1, 57, Must::Fail),
            (0, 9, 0, Must::Fail),
            (0, 1, u64::MAX, Must::Fail),
            (0, 0, 0, Must::Fail),
            (1, 12, 0, Must::Fail),
            (1, 255, 0, Must::Fail),
            (4, 1, 0, Must::Fail),
            (255, 1, 0, Must::Fail),
        ] {
            let raw = request(operation, segments, sector);
            assert_eq!(must_of(disk(), &raw), must, "{operation} {segments} {sector}");
        }
        for (first_sect, last_sect, gref, must) in [
            (3, 3, 9, Must::Succeed),
            (3, 2, 9, Must::Fail),
            (0, 8, 9, Must::Fail),
            (0, 7, 10, Must::Either),
            (0, 7, u32::MAX, Must::Fail),
        ] {
            let mut raw = request(0, 1, 0);
            raw.seg[0] = RawSegment { gref, first_sect, last_sect, pad: [0; 2] };
            assert_eq!(must_of(disk(), &raw), must, "{first_sect} {last_sect} {gref}");
        }
        let large = Geometry { sector_size: 4096, ..disk() };
        assert_eq!(must_of(large, &request(0, 1, 8)), Must::Succeed);
        assert_eq!(must_of(large, &request(0, 1, 9)), Must::Fail);
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let whole = |sector_number, nr_sectors| {
            RawRequest::from(RawDiscard { operation: 5, sector_number, nr_sectors, ..zeroed() })
        };
        assert_eq!(must_of(disk(), &whole(0, 64)), Must::Either);
        assert_eq!(must_of(disk(), &whole(0, 65)), Must::Fail);
        assert_eq!(must_of(disk(), &whole(1, u64::MAX)), Must::Fail);
        assert_eq!(must_of(Geometry::new(64), &whole(0, 64)), Must::Fail);
        assert_eq!(must_of(disk(), &request(3, 0, 0)), Must::Succeed);
        assert_eq!(must_of(disk(), &request(2, 0, 0)), Must::Fail);
        for (indirect_op, nr_segments, must) in [
            (0, 256, Must::Either),
            (1, 1, Must::Either),
            (0, 0, Must::Fail),
            (0, 257, Must::Fail),
            (3, 1, Must::Fail),
        ] {
            let raw = RawIndirect { operation: 6, indirect_op, nr_segments, ..zeroed() };
            assert_eq!(must_of(disk(), &raw.into()), must, "{indirect_op} {nr_segments}");
        }
    }

    #[test]
    fn a_disk_that_is_only_read_is_not_changed() {
        let disk = Geometry { read_only: true, ..disk() };
        let indirect =
            |indirect_op| RawIndirect { operation: 6, indirect_op, nr_segments: 1, ..zeroed() };
        assert_eq!(must_of(disk, &request(0, 1, 0)), Must::Succeed);
        assert_eq!(must_of(disk, &indirect(0).into()), Must::Either);
        assert_eq!(must_of(disk, &request(3, 0, 0)), Must::Either);
        for raw in [request(1, 1, 0), request(3, 1, 0), request(5, 0, 0), indirect(1).into()] {
            assert_eq!(must_of(disk, &raw), Must::Fail, "{raw:?}");
        }
    }

    #[test]
    fn a_status_is_one_that_there_is() {
        let [okay, error, unsupported] = [0, -1_i16 as u16, -2_i16 as u16];
        assert!(
            Must::Succeed.allows(okay) && !Must::Fail.allows(okay) && Must::Either.allows(okay)
        );
        for status in [error, unsupported] {
            assert!(!Must::Succeed.allows(status) && Must::Fail.allows(status));
            assert!(Must::Either.allows(status));
        }
        assert!(![Must::Succeed, Must::Fail, Must::Either].iter().any(|must| must.allows(7)));
    }
}
