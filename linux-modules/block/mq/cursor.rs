// SPDX-License-Identifier: GPL-2.0

//! The memory of a request, piece by piece.

use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};

use kernel::bindings;
use kernel::page::{BorrowedPage, PAGE_SIZE};
use ring_proto::shared::Region;

/// Part of one page of a request.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    page: NonNull<bindings::page>,
    offset: u32,
    len: u32,
    request: PhantomData<&'a ()>,
}

impl<'a> Segment<'a> {
    /// The page, which is there as long as the request is not ended.
    pub fn page(&self) -> BorrowedPage<'a> {
        // SAFETY: the pages of a request stay until it ends, and it is borrowed for `'a`.
        unsafe { BorrowedPage::from_raw(self.page) }
    }

    /// Where in the page it begins, in bytes.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Length in bytes: at least 1, and no more than the page has left.
    pub fn size(&self) -> u32 {
        self.len
    }
}

/// Goes through the memory of a read or write.
///
/// # Invariants
///
/// `bio` is null or a bio with memory that belongs to a request borrowed for `'a`, as those linked to it; `iter` is
/// within it.
pub struct Cursor<'a> {
    bio: *mut bindings::bio,
    iter: bindings::bvec_iter,
    request: PhantomData<&'a ()>,
}

impl<'a> Cursor<'a> {
    /// # Safety
    ///
    /// `bio` is null, or begins a list of bios with memory that do not change for the life of the cursor.
    #[inline]
    pub(super) unsafe fn new(bio: *mut bindings::bio) -> Self {
        let mut cursor = Self::empty();
        cursor.enter(bio);
        cursor
    }

    #[inline]
    pub(super) fn empty() -> Self {
        Self { bio: null_mut(), iter: pin_init::zeroed(), request: PhantomData }
    }

    #[inline]
    fn enter(&mut self, bio: *mut bindings::bio) {
        self.bio = bio;
        if !bio.is_null() {
            // SAFETY: by the invariant, or by the contract of `new`, it is alive.
            self.iter = unsafe { (*bio).bi_iter };
        }
    }

    /// The rest of the page at hand, at most `limit` bytes, without moving.
    #[inline]
    fn peek(&mut self, limit: usize) -> Option<Segment<'a>> {
        loop {
            if self.bio.is_null() {
                return None;
            }
            let (left, index, done) =
                (self.iter.bi_size, self.iter.bi_idx as usize, self.iter.bi_offset);
            if left == 0 {
                // SAFETY: by the invariant, `bio` is alive.
                let next = unsafe { (*self.bio).bi_next };
                self.enter(next);
                continue;
            }
            // SAFETY: by the invariant, `bio` is alive and `iter` within it: as bytes are left, entry `index` exists.
            let vec = unsafe { *(*self.bio).bi_io_vec.add(index) };
            let rest = vec.bv_len.saturating_sub(done);
            if rest == 0 {
                self.iter.bi_idx += 1;
                self.iter.bi_offset = 0;
                continue;
            }
            let at = vec.bv_offset as usize + done as usize;
            let offset = at % PAGE_SIZE;
            let len = (rest.min(left) as usize).min(PAGE_SIZE - offset).min(limit);
            // SAFETY: the pages of one entry are adjacent in the array of pages.
            let page = NonNull::new(unsafe { vec.bv_page.add(at / PAGE_SIZE) })?;
            return Some(Segment {
                page,
                offset: offset as u32,
                len: len as u32,
                request: PhantomData,
            });
        }
    }

    #[inline]
    fn advance(&mut self, len: u32) {
        self.iter.bi_size -= len;
        self.iter.bi_offset += len;
    }

    /// The next part that lies in one page without a gap, as the block layer counts segments.
    #[inline]
    pub fn next_segment(&mut self) -> Option<Segment<'a>> {
        let mut segment = self.peek(PAGE_SIZE)?;
        self.advance(segment.len);
        while (segment.offset + segment.len) as usize % PAGE_SIZE != 0 {
            match self.peek(PAGE_SIZE) {
                Some(next)
                    if next.page == segment.page && next.offset == segment.offset + segment.len =>
                {
                    self.advance(next.len);
                    segment.len += next.len;
                }
                _ => break,
            }
        }
        Some(segment)
    }

    /// Leaves out so many bytes.
    pub fn skip(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(segment) = self.peek(bytes) else { return };
            self.advance(segment.len);
            bytes = bytes.saturating_sub(segment.len as usize);
        }
    }

    /// Copies from here into `region` until it is full or nothing is left. Returns the number of bytes.
    #[inline]
    pub fn copy_to(&mut self, region: Region<'_>) -> usize {
        self.copy(region, |inside, outside, len| {
            // SAFETY: both are mapped for `len` bytes, and are not the same page: one belongs to a request, the other
            // to a peer. The copy is done by C, which assumes nothing of what others write at the same time.
            unsafe { sys::causeway_copy(outside.cast(), inside.cast(), len) }
        })
    }

    /// Copies from `region` to here until it is used up or nothing is left. Returns the number of bytes.
    #[inline]
    pub fn copy_from(&mut self, region: Region<'_>) -> usize {
        self.copy(region, |inside, outside, len| {
            // SAFETY: as in `copy_to`.
            unsafe { sys::causeway_copy(inside.cast(), outside.cast(), len) }
        })
    }

    #[inline]
    fn copy(&mut self, region: Region<'_>, move_bytes: impl Fn(*mut u8, *mut u8, usize)) -> usize {
        use ring_proto::shared::SharedMemory;
        let (base, len) = (region.base().as_ptr(), region.len());
        let mut done = 0;
        while done < len {
            let Some(segment) = self.peek(len - done) else { break };
            // SAFETY: the page belongs to a request, and pages are always mapped on the machines that this is for.
            let page = unsafe { sys::causeway_page_address(segment.page.as_ptr()) }.cast::<u8>();
            let inside = page.wrapping_add(segment.offset as usize);
            move_bytes(inside, base.wrapping_add(done), segment.len as usize);
            self.advance(segment.len);
            done += segment.len as usize;
        }
        done
    }
}
