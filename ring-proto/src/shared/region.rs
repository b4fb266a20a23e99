// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! One contiguous mapping.

use core::marker::PhantomData;
use core::mem::{size_of, MaybeUninit};
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, fence, AtomicU32, Ordering};

use super::copy::{copy_in, copy_out, prefetch_for_write};
use super::{zeroed, SharedMemory, Wire};

/// One contiguous mapping of shared memory, borrowed for `'a` from whatever keeps it mapped. What owns a mapping hands
/// regions of it out through [`AsRegion`], and is shared memory itself.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    base: NonNull<u8>,
    len: usize,
    mapped: PhantomData<&'a ()>,
}

/// An owner of mapped memory. It is [`SharedMemory`] itself, so that a ring can own what it lies in.
pub trait AsRegion {
    /// All of the memory, which stays mapped as long as the owner is borrowed.
    fn as_region(&self) -> Region<'_>;
}

// SAFETY: all access goes through atomics or byte copies that tolerate concurrent writers, by the contract of `new`.
unsafe impl Send for Region<'_> {}
// SAFETY: as above.
unsafe impl Sync for Region<'_> {}

impl Region<'_> {
    /// Shared memory of `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// As long as `'a` lasts, `base..base + len` is mapped for reading and writing (or only for reading: a write through
    /// it then ends the process), `base` is a multiple of eight, and no Rust reference to any byte of it exists.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, mapped: PhantomData }
    }

    /// Where the memory begins, for handing to the kernel (an iovec, a scatterlist). Reading or writing through it
    /// falls under the rules of this module.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The part of `len` bytes from `offset`, or `None` if it does not lie inside.
    pub fn part(&self, offset: usize, len: usize) -> Option<Self> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len) && offset % 8 == 0;
        // SAFETY: `offset` lies inside the mapping, so the pointer stays in it; the contract of `new` carries over.
        inside.then(|| unsafe { Self::new(self.base.add(offset), len) })
    }

    /// Pointer to `len` bytes at `offset` if they lie inside.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let inside = len <= self.len && offset <= self.len - len;
        debug_assert!(inside, "offset {offset:#x} + {len:#x} outside {:#x}", self.len);
        // SAFETY: `offset <= self.len`, inside or one past the mapping.
        inside.then(|| unsafe { self.base.add(offset) })
    }

    #[inline]
    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        debug_assert!(offset % 4 == 0, "offset {offset:#x} of a word");
        // SAFETY: inside the mapping and, with `base` a multiple of eight, aligned. An `AtomicU32` may be written by
        // anyone at any time.
        self.at(offset & !3, 4).map(|at| unsafe { at.cast::<AtomicU32>().as_ref() })
    }
}

impl SharedMemory for Region<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn load(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline]
    fn load_acquire(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn store_release(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    #[inline]
    fn publish(&self, offset: usize, value: u32) {
        let Some(word) = self.word(offset) else { return };
        if cfg!(target_arch = "x86_64") {
            // One locked instruction is both the store and the barrier there.
            word.swap(value, Ordering::SeqCst);
            compiler_fence(Ordering::SeqCst);
        } else {
            word.store(value, Ordering::Release);
            fence(Ordering::SeqCst);
        }
    }

    #[inline]
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        let Some(word) = self.word(offset) else { return Err(!old) };
        if cfg!(target_arch = "x86_64") {
            // A locked instruction is a full barrier, whether or not it replaced the word.
            return word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        let result = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        result
    }

    #[inline]
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        match self.at(offset, into.len()) {
            // SAFETY: the source lies inside the mapping; `into` is private memory of that length.
            Some(from) => unsafe { copy_out(from.as_ptr(), into.as_mut_ptr(), into.len()) },
            None => into.fill(0),
        }
    }

    #[inline]
    fn copy_in(&self, offset: usize, from: &[u8]) {
        if let Some(into) = self.at(offset, from.len()) {
            // SAFETY: the target lies inside the mapping; `from` is private memory of that length.
            unsafe { copy_in(from.as_ptr(), into.as_ptr(), from.len()) }
        }
    }

    #[inline]
    fn read<T: Wire>(&self, offset: usize) -> T {
        let Some(from) = self.at(offset, size_of::<T>()) else { return zeroed() };
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the source lies inside the mapping; all of `value` is written, and every bit pattern of it is valid.
        unsafe {
            copy_out(from.as_ptr(), value.as_mut_ptr().cast(), size_of::<T>());
            value.assume_init()
        }
    }

    #[inline]
    fn will_write(&self, offset: usize, len: usize) {
        if let Some(at) = self.at(offset, len) {
            prefetch_for_write(at.as_ptr(), len);
        }
    }
}

impl<T: AsRegion> SharedMemory for T {
    #[inline]
    fn len(&self) -> usize {
        self.as_region().len()
    }

    #[inline]
    fn load(&self, offset: usize) -> u32 {
        self.as_region().load(offset)
    }

    #[inline]
    fn load_acquire(&self, offset: usize) -> u32 {
        self.as_region().load_acquire(offset)
    }

    #[inline]
    fn store(&self, offset: usize, value: u32) {
        self.as_region().store(offset, value);
    }

    #[inline]
    fn store_release(&self, offset: usize, value: u32) {
        self.as_region().store_release(offset, value);
    }

    #[inline]
    fn publish(&self, offset: usize, value: u32) {
        self.as_region().publish(offset, value);
    }

    #[inline]
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        self.as_region().compare_exchange(offset, old, new)
    }

    #[inline]
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.as_region().copy_out(offset, into);
    }

    #[inline]
    fn copy_in(&self, offset: usize, from: &[u8]) {
        self.as_region().copy_in(offset, from);
    }

    #[inline]
    fn read<W: Wire>(&self, offset: usize) -> W {
        self.as_region().read(offset)
    }

    #[inline]
    fn will_write(&self, offset: usize, len: usize) {
        self.as_region().will_write(offset, len);
    }
}
