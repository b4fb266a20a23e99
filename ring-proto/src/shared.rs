// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Memory that a peer may read and write at any moment.
//!
//! The rules, stated once:
//!
//! * A value is read **once**, into private memory, and judged there. Nothing is read twice in the hope that it stayed.
//! * No reference into shared memory exists, ever: it is reached through [`SharedMemory`], by offset.
//! * Each access is one that the compiler can neither split, repeat nor drop.
//! * An offset outside the memory reads as zero and writes nothing. The engines never use one (a debug build says so),
//!   and a release build must not fault because of a mistake here.
//!
//! All `unsafe` of the crate is in this file.
#![allow(unsafe_code)]

use core::mem::{size_of, MaybeUninit};
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, AtomicU32, AtomicU64, AtomicU8, Ordering};

/// Size of a page of the ring protocols in bytes, on every architecture (`XEN_PAGE_SIZE`).
pub const PAGE_SIZE: usize = 4096;

/// A structure that may lie in shared memory: `repr(C)`, without padding, every bit pattern of it a value.
///
/// Declare one with [`wire!`](crate::wire), which proves the first two at compile time.
///
/// # Safety
///
/// The type has no padding, no invalid bit pattern, no reference, and no interior mutability.
pub unsafe trait Wire: Copy + 'static {}

// SAFETY: integers have neither padding nor invalid bit patterns.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above.
unsafe impl Wire for u64 {}
// SAFETY: as above.
unsafe impl Wire for i16 {}
// SAFETY: an array adds no padding to its elements.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

/// The value whose bytes are all zero.
#[inline]
pub const fn zeroed<T: Wire>() -> T {
    // SAFETY: every bit pattern of a `Wire` type is a value.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// The bytes of a structure, as they would lie in shared memory.
#[inline]
pub fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: a `Wire` type has no padding, so all its bytes are initialised; the borrow keeps it alive.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The bytes of a structure, to be filled in.
#[inline]
pub fn bytes_of_mut<T: Wire>(value: &mut T) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and any bytes written are a value again.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// The structure that begins `bytes`, or `None` when they are too few. `bytes` needs no alignment.
#[inline]
pub fn from_bytes<T: Wire>(bytes: &[u8]) -> Option<T> {
    let head = bytes.get(..size_of::<T>())?;
    let mut value = zeroed::<T>();
    bytes_of_mut(&mut value).copy_from_slice(head);
    Some(value)
}

/// Declares a structure of the wire: `#[repr(C)]`, all fields [`Wire`], no padding (else it does not compile).
///
/// ```
/// ring_proto::wire! {
///     /// One answer.
///     pub struct Response {
///         /// Id of the request.
///         pub id: u64,
///         /// What became of it.
///         pub status: u32,
///         /// Must be zero.
///         pub reserved: u32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! wire {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),* }

        const _: () = {
            const fn is_wire<T: $crate::shared::Wire>() -> usize { ::core::mem::size_of::<T>() }
            assert!(::core::mem::size_of::<$name>() == 0 $(+ is_wire::<$ty>())*, "the structure has padding");
        };

        // SAFETY: every field is `Wire` and the assertion above excludes padding.
        #[allow(unsafe_code)]
        unsafe impl $crate::shared::Wire for $name {}

        impl Default for $name {
            fn default() -> Self { $crate::shared::zeroed() }
        }
    };
}

/// Memory shared with a peer.
///
/// Implemented by [`Region`] and [`Pages`] for real memory, and by models of it in tests. Offsets are in bytes; those
/// of the `u32` operations are multiples of four.
pub trait SharedMemory {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether it has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a word, with no order towards other accesses.
    fn load(&self, offset: usize) -> u32;

    /// Reads a word; what the peer wrote before it released that value is visible afterwards.
    fn load_acquire(&self, offset: usize) -> u32;

    /// Writes a word, with no order towards other accesses.
    fn store(&self, offset: usize, value: u32);

    /// Writes a word; a peer that acquires it sees all that was written before.
    fn store_release(&self, offset: usize, value: u32);

    /// [`store_release`](Self::store_release), then a full barrier: no later access is done before the peer can see
    /// the word. This is one half of the bargain "I publish, then look whether you sleep; you say that you sleep, then
    /// look whether I published".
    fn publish(&self, offset: usize, value: u32);

    /// Replaces a word if it is `old`, as one step and a full barrier. Returns what was there: `Ok` if replaced.
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32>;

    /// Copies from shared memory, without order.
    fn copy_out(&self, offset: usize, into: &mut [u8]);

    /// Copies to shared memory, without order.
    fn copy_in(&self, offset: usize, from: &[u8]);

    /// Copies a structure out, without order.
    #[inline]
    fn read<T: Wire>(&self, offset: usize) -> T
    where
        Self: Sized,
    {
        let mut value = zeroed::<T>();
        self.copy_out(offset, bytes_of_mut(&mut value));
        value
    }

    /// Copies a structure in, without order.
    #[inline]
    fn write<T: Wire>(&self, offset: usize, value: &T)
    where
        Self: Sized,
    {
        self.copy_in(offset, bytes_of(value));
    }
}

/// One contiguous mapping of shared memory. It does not own the mapping: see [`Region::new`].
#[derive(Clone, Copy, Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: all access goes through atomics or byte copies that tolerate concurrent writers, by the contract of `new`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Shared memory of `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// As long as the value (or a copy) is used, `base..base + len` is mapped for reading and writing (or only for
    /// reading, if nothing is ever written through it), `base` is a multiple of eight, and no Rust reference to any
    /// byte of it exists.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
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

impl SharedMemory for Region {
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
            core::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    #[inline]
    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        match self.word(offset) {
            Some(word) => word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst),
            None => Err(!old),
        }
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
}

/// Up to `N` pages that need not be adjacent, as one memory: byte `n` is byte `n % 4096` of page `n / 4096`.
#[derive(Clone, Copy, Debug)]
pub struct Pages<const N: usize> {
    page: [Region; N],
    count: usize,
}

impl<const N: usize> Pages<N> {
    /// The memory made of these pages in their order, or `None` if there are none, more than `N`, or one is not
    /// exactly a page long.
    pub fn new(pages: &[Region]) -> Option<Self> {
        let first = *pages.first()?;
        if pages.len() > N || pages.iter().any(|page| page.len() != PAGE_SIZE) {
            return None;
        }
        let mut page = [first; N];
        page.get_mut(..pages.len())?.copy_from_slice(pages);
        Some(Self { page, count: pages.len() })
    }

    #[inline]
    fn page(&self, offset: usize) -> Option<&Region> {
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

impl<const N: usize> SharedMemory for Pages<N> {
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
}

/// Splits a buffer where memory that begins at `offset` crosses into another page.
#[inline]
fn pieces_mut(buffer: &mut [u8], offset: usize) -> impl Iterator<Item = &mut [u8]> {
    let head_len = buffer.len().min(PAGE_SIZE - offset % PAGE_SIZE);
    let (head, rest) = buffer.split_at_mut(head_len);
    core::iter::once(head).chain(rest.chunks_mut(PAGE_SIZE))
}

/// Copies longer than this go through one string instruction where the machine has it.
const LONG_COPY: usize = 256;

/// Copies `len` bytes out of shared memory, in words where the alignment of `from` allows.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `into` is private memory.
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "each cast stands behind a check of the address")]
unsafe fn copy_out(from: *const u8, into: *mut u8, len: usize) {
    if len >= LONG_COPY && long_copy(from, into, len) {
        return;
    }
    let mut done = 0;
    // SAFETY: `done + width <= len` before each access; `from + done` is a multiple of the width, since `done` grows
    // in steps of it; relaxed atomic loads tolerate concurrent writers; `into` takes unaligned writes.
    unsafe {
        if from.addr() % 8 == 0 {
            while len - done >= 8 {
                let word = (*from.add(done).cast::<AtomicU64>()).load(Ordering::Relaxed);
                into.add(done).cast::<u64>().write_unaligned(word);
                done += 8;
            }
        }
        if from.addr() % 4 == 0 {
            while len - done >= 4 {
                let word = (*from.add(done).cast::<AtomicU32>()).load(Ordering::Relaxed);
                into.add(done).cast::<u32>().write_unaligned(word);
                done += 4;
            }
        }
        while done < len {
            *into.add(done) = (*from.add(done).cast::<AtomicU8>()).load(Ordering::Relaxed);
            done += 1;
        }
    }
}

/// Copies `len` bytes into shared memory, in words where the alignment of `into` allows.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `from` is private memory.
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "each cast stands behind a check of the address")]
unsafe fn copy_in(from: *const u8, into: *mut u8, len: usize) {
    if len >= LONG_COPY && long_copy(from, into, len) {
        return;
    }
    let mut done = 0;
    // SAFETY: as in `copy_out`, the other way round.
    unsafe {
        if into.addr() % 8 == 0 {
            while len - done >= 8 {
                let word = from.add(done).cast::<u64>().read_unaligned();
                (*into.add(done).cast::<AtomicU64>()).store(word, Ordering::Relaxed);
                done += 8;
            }
        }
        if into.addr() % 4 == 0 {
            while len - done >= 4 {
                let word = from.add(done).cast::<u32>().read_unaligned();
                (*into.add(done).cast::<AtomicU32>()).store(word, Ordering::Relaxed);
                done += 4;
            }
        }
        while done < len {
            (*into.add(done).cast::<AtomicU8>()).store(*from.add(done), Ordering::Relaxed);
            done += 1;
        }
    }
}

/// Copies with `rep movsb`, which the compiler cannot look into, so that a concurrent writer is no data race in its
/// eyes. Returns whether this build has it.
#[inline]
fn long_copy(from: *const u8, into: *mut u8, len: usize) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: the callers own `len` readable bytes at `from` and `len` writable ones at `into`; the ABI keeps the
        // direction flag clear.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rsi") from => _, inout("rdi") into => _,
                options(nostack, preserves_flags)
            );
        }
        true
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        let _ = (from, into, len);
        false
    }
}
