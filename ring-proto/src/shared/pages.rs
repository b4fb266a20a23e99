// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Pages that need not be adjacent.

use core::mem::size_of;

use super::{bytes_of_mut, zeroed, Region, SharedMemory, Wire, PAGE_SIZE};

/// Up to `N` pages that need not be adjacent, as one memory: byte `n` is byte `n % 4096` of page `n / 4096`.
#[derive(Clone, Copy, Debug)]
pub struct Pages<'a, const N: usize> {
    page: [Region<'a>; N],
    count: usize,
}

impl<'a, const N: usize> Pages<'a, N> {
    /// The memory made of these pages in their order, or `None` if there are none, more than `N`, or one is not
    /// exactly a page long.
    pub fn new(pages: &[Region<'a>]) -> Option<Self> {
        let first = *pages.first()?;
        if pages.len() > N || pages.iter().any(|page| page.len() != PAGE_SIZE) {
            return None;
        }
        let mut page = [first; N];
        page.get_mut(..pages.len())?.copy_from_slice(pages);
        Some(Self { page, count: pages.len() })
    }

    #[inline]
    fn page(&self, offset: usize) -> Option<&Region<'a>> {
        let index = offset / PAGE_SIZE;
        debug_assert!(index < self.count, "offset {offset:#x} outside {} pages", self.count);
        if index < self.count {
            self.page.get(index)
        } else {
            None
        }
    }
}

/// Does `$body` with the page of a word and the offset in it.
macro_rules! in_page {
    ($self:ident, $offset:ident, $default:expr, |$page:ident, $at:ident| $body:expr) => {
        match $self.page($offset) {
            Some($page) => {
                let $at = $offset % PAGE_SIZE;
                $body
            }
            None => $default,
        }
    };
}

impl<const N: usize> SharedMemory for Pages<'_, N> {
    #[inline]
    fn len(&self) -> usize {
        self.count * PAGE_SIZE
    }

    #[inline]
    fn load(&self, offset: usize) -> u32 {
        in_page!(self, offset, 0, |page, at| page.load(at))
    }

    #[inline]
    fn load_acquire(&self, offset: usize) -> u32 {
        in_page!(self, offset, 0, |page, at| page.load_acquire(at))
    }

    #[inline]
    fn store(&self, offset: usize, value: u32) {
        in_page!(self, offset, (), |page, at| page.store(at, value));
    }

    #[inline]
    fn store_release(&self, offset: usize, value: u32) {
        in_page!(self, offset, (), |page, at| page.store_release(at, value));
    }

    #[inline]
    fn publish(&self, offset: usize, value: u32) {
        in_page!(self, offset, (), |page, at| page.publish(at, value));
    }

    #[inline]
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        in_page!(self, offset, Err(!old), |page, at| page.compare_exchange(at, old, new))
    }

    #[inline]
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let mut at = offset;
        for piece in pieces_mut(into, offset) {
            in_page!(self, at, piece.fill(0), |page, start| page.copy_out(start, piece));
            at += piece.len();
        }
    }

    #[inline]
    fn copy_in(&self, offset: usize, from: &[u8]) {
        let mut at = offset;
        let (head, rest) = from.split_at(from.len().min(PAGE_SIZE - offset % PAGE_SIZE));
        for piece in core::iter::once(head).chain(rest.chunks(PAGE_SIZE)) {
            in_page!(self, at, (), |page, start| page.copy_in(start, piece));
            at += piece.len();
        }
    }

    #[inline]
    fn read<T: Wire>(&self, offset: usize) -> T {
        if offset % PAGE_SIZE + size_of::<T>() <= PAGE_SIZE {
            return in_page!(self, offset, zeroed(), |page, at| page.read(at));
        }
        let mut value = zeroed::<T>();
        self.copy_out(offset, bytes_of_mut(&mut value));
        value
    }

    #[inline]
    fn will_write(&self, offset: usize, len: usize) {
        let at = offset % PAGE_SIZE;
        if let Some(page) = self.page(offset) {
            page.will_write(at, len.min(PAGE_SIZE - at));
        }
    }
}

/// Splits a buffer where memory that begins at `offset` crosses into another page.
#[inline]
fn pieces_mut(buffer: &mut [u8], offset: usize) -> impl Iterator<Item = &mut [u8]> {
    let head_len = buffer.len().min(PAGE_SIZE - offset % PAGE_SIZE);
    let (head, rest) = buffer.split_at_mut(head_len);
    core::iter::once(head).chain(rest.chunks_mut(PAGE_SIZE))
}
