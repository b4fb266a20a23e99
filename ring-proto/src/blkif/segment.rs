// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Where the data of a read or write lies.

use core::mem::size_of;
use core::ops::Deref;

use super::wire::RawSegment;
use super::{
    Problem, MAX_INDIRECT_PAGES, MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS, SECTORS_PER_PAGE,
    SECTOR_SIZE, SEGMENTS_PER_INDIRECT_PAGE,
};
use crate::shared::from_bytes;
use crate::xen::GrantRef;

/// Part of a page to transfer: at least one sector, none outside the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    gref: GrantRef,
    first: u8,
    last: u8,
}

impl Segment {
    /// What fills the places of an array that no segment was put into.
    pub const UNUSED: Self = Self { gref: GrantRef(0), first: 0, last: 0 };

    /// Sectors `first` to `last`, both included, of the page granted as `gref`; `None` unless
    /// `first <= last <= 7`.
    #[inline]
    pub const fn new(gref: GrantRef, first: u8, last: u8) -> Option<Self> {
        if first <= last && last < SECTORS_PER_PAGE {
            Some(Self { gref, first, last })
        } else {
            None
        }
    }

    /// The page. Whether the frontend really granted it shows when it is mapped.
    #[inline]
    pub const fn gref(&self) -> GrantRef {
        self.gref
    }

    /// First sector in the page, 0 to 7.
    #[inline]
    pub const fn first(&self) -> u8 {
        self.first
    }

    /// Last sector in the page, from `first` to 7.
    #[inline]
    pub const fn last(&self) -> u8 {
        self.last
    }

    /// Number of sectors, 1 to 8.
    #[inline]
    pub const fn sectors(&self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// Where in the page it begins, in bytes.
    #[inline]
    pub const fn offset(&self) -> usize {
        self.first as usize * SECTOR_SIZE
    }

    /// Its length in bytes.
    #[inline]
    pub const fn byte_len(&self) -> usize {
        self.sectors() as usize * SECTOR_SIZE
    }
}

#[inline]
const fn is_legal(raw: &RawSegment) -> bool {
    (raw.first_sect <= raw.last_sect) & (raw.last_sect < SECTORS_PER_PAGE)
}

/// What is wrong with the segments of a slot, of which something is.
#[cold]
fn first_problem(used: &[RawSegment], count: u8) -> Problem {
    let segment = (0..=u8::MAX).zip(used).find(|(_, raw)| !is_legal(raw));
    match segment {
        Some((index, raw)) => Problem::SegmentRange {
            index: index.into(),
            first: raw.first_sect,
            last: raw.last_sect,
        },
        None => Problem::SegmentCount { count: count.into(), limit: MAX_SEGMENTS as u16 },
    }
}

impl From<Segment> for RawSegment {
    #[inline]
    fn from(segment: Segment) -> Self {
        Self {
            gref: segment.gref.0,
            first_sect: segment.first,
            last_sect: segment.last,
            pad: [0; 2],
        }
    }
}

/// Up to [`MAX_SEGMENTS`] segments, in place.
#[derive(Clone, Copy, Debug)]
pub struct SegmentArray {
    count: u8,
    segments: [Segment; MAX_SEGMENTS],
}

impl SegmentArray {
    /// These segments, or `None` when there are none or too many for a slot.
    #[inline]
    pub fn new(segments: &[Segment]) -> Option<Self> {
        if segments.is_empty() {
            return None;
        }
        let mut array = Self::EMPTY;
        array.segments.get_mut(..segments.len())?.copy_from_slice(segments);
        array.count = segments.len() as u8;
        Some(array)
    }

    /// Judges the first `count` segments of a slot.
    #[inline]
    pub(super) fn check(raw: &[RawSegment; MAX_SEGMENTS], count: u8) -> Result<Self, Problem> {
        let used = raw.get(..usize::from(count)).unwrap_or(&[]);
        // One verdict on all of them costs less than a decision on each.
        let illegal = used.iter().fold(used.is_empty(), |any, raw| any | !is_legal(raw));
        if illegal {
            return Err(first_problem(used, count));
        }
        // Those beyond `count` come along unchecked, and nobody sees them.
        let segments = raw.map(|raw| Segment {
            gref: GrantRef(raw.gref),
            first: raw.first_sect,
            last: raw.last_sect,
        });
        Ok(Self { count, segments })
    }

    /// The segments as they lie in a slot; the rest of it zero.
    #[inline]
    pub(super) fn to_raw(self) -> [RawSegment; MAX_SEGMENTS] {
        let mut raw = self.segments.map(RawSegment::from);
        for unused in raw.iter_mut().skip(usize::from(self.count)) {
            *unused = RawSegment::default();
        }
        raw
    }

    const EMPTY: Self = Self { count: 0, segments: [Segment::UNUSED; MAX_SEGMENTS] };
}

impl Deref for SegmentArray {
    type Target = [Segment];

    #[inline]
    fn deref(&self) -> &[Segment] {
        self.segments.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

impl PartialEq for SegmentArray {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SegmentArray {}

/// Segments that lie in pages of their own, which the frontend granted.
#[derive(Clone, Copy, Debug)]
pub struct Indirect {
    count: u16,
    grefs: [GrantRef; MAX_INDIRECT_PAGES],
}

impl Indirect {
    /// `count` segments in the pages granted as `pages`; `None` when there are no segments, or not just as many pages
    /// as they take.
    pub fn new(count: u16, pages: &[GrantRef]) -> Option<Self> {
        let mut grefs = [GrantRef(0); MAX_INDIRECT_PAGES];
        grefs.get_mut(..pages.len())?.copy_from_slice(pages);
        let right =
            count > 0 && pages.len() == usize::from(count).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        right.then_some(Self { count, grefs })
    }

    /// Judges the fields of a slot, for a backend that offered up to `limit` segments.
    #[inline]
    pub(super) fn check(
        count: u16,
        limit: u16,
        grefs: [u32; MAX_INDIRECT_PAGES],
    ) -> Result<Self, Problem> {
        let limit = limit.min(MAX_INDIRECT_SEGMENTS);
        if count == 0 || count > limit {
            return Err(Problem::SegmentCount { count, limit });
        }
        Ok(Self { count, grefs: grefs.map(GrantRef) })
    }

    /// Number of segments, at least one and at most the limit that the request was checked against.
    #[inline]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// The pages to map, 1 to 8.
    #[inline]
    pub fn pages(&self) -> &[GrantRef] {
        let pages = usize::from(self.count).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        self.grefs.get(..pages).unwrap_or(&[])
    }

    /// How many segments lie in the page of this number. Each takes 8 bytes from the page's beginning.
    #[inline]
    pub fn in_page(&self, page: usize) -> usize {
        usize::from(self.count)
            .saturating_sub(page.saturating_mul(SEGMENTS_PER_INDIRECT_PAGE))
            .min(SEGMENTS_PER_INDIRECT_PAGE)
    }
}

impl PartialEq for Indirect {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.pages() == other.pages()
    }
}

impl Eq for Indirect {}

/// Reads the segments in a page of an indirect request. `bytes` is a private copy of as many segments as
/// [`Indirect::in_page`] says, eight bytes each; a rest of fewer bytes is left out.
///
/// # Errors
///
/// An item is [`Problem::SegmentRange`], with the index in this page, when the segment is not within its page.
pub fn descriptors(bytes: &[u8]) -> impl Iterator<Item = Result<Segment, Problem>> + '_ {
    bytes.chunks_exact(size_of::<RawSegment>()).enumerate().map(|(index, bytes)| {
        let RawSegment { gref, first_sect: first, last_sect: last, .. } =
            from_bytes(bytes).unwrap_or_default();
        let problem = Problem::SegmentRange { index: index as u16, first, last };
        Segment::new(GrantRef(gref), first, last).ok_or(problem)
    })
}

/// The segments of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a request is built in place, without allocation")]
pub enum Segments {
    /// In the slot: 1 to 11 of them.
    Direct(SegmentArray),
    /// In pages that the frontend granted.
    Indirect(Indirect),
}

impl Segments {
    /// Number of segments, at least one.
    #[inline]
    pub fn count(&self) -> u16 {
        match self {
            Self::Direct(array) => u16::from(array.count),
            Self::Indirect(indirect) => indirect.count,
        }
    }
}
