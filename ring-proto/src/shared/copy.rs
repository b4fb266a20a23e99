// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Copies between shared and private memory.
//!
//! On x86-64 each piece is one instruction that the compiler cannot look into: it can neither split nor repeat nor drop
//! it, takes the other side of it for anything that may happen to memory, and needs no alignment. Elsewhere (and under
//! Miri) pieces are relaxed atomics as wide as the address allows.

/// Copies longer than this go through one string instruction where the machine has it.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG_COPY: usize = 256;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
use core::arch::x86_64::__m128i;

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod piece {
    use core::arch::asm;

    /// A load from and a store to shared memory of one width.
    macro_rules! piece {
        ($load:ident, $store:ident, $ty:ty, $class:ident, $instruction:literal, $width:literal) => {
            /// # Safety
            ///
            /// The piece at `from` is readable.
            #[inline(always)]
            pub(super) unsafe fn $load(from: *const u8) -> $ty {
                let value;
                // SAFETY: one load from where the caller says.
                unsafe {
                    asm!(
                        concat!($instruction, " {value", $width, "}, [{from}]"),
                        value = out($class) value, from = in(reg) from,
                        options(nostack, preserves_flags, readonly)
                    );
                }
                value
            }

            /// # Safety
            ///
            /// The piece at `into` is writable.
            #[inline(always)]
            pub(super) unsafe fn $store(into: *mut u8, value: $ty) {
                // SAFETY: one store to where the caller says.
                unsafe {
                    asm!(
                        concat!($instruction, " [{into}], {value", $width, "}"),
                        value = in($class) value, into = in(reg) into,
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }

    #[cfg(target_feature = "sse2")]
    piece!(load_16, store_16, super::__m128i, xmm_reg, "movups", "");
    piece!(load_8, store_8, u64, reg, "mov", "");
    piece!(load_4, store_4, u32, reg, "mov", ":e");
    piece!(load_1, store_1, u8, reg_byte, "mov", "");
}

/// Copies `len` bytes out of shared memory, each read once.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `into` is private memory.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) unsafe fn copy_out(from: *const u8, into: *mut u8, len: usize) {
    let mut done = 0;
    // SAFETY: `done + width <= len` at each access.
    unsafe {
        if len >= LONG_COPY {
            return copy_long(from, into, len);
        }
        #[cfg(target_feature = "sse2")]
        while len - done >= 16 {
            into.add(done).cast::<__m128i>().write_unaligned(piece::load_16(from.add(done)));
            done += 16;
        }
        while len - done >= 8 {
            into.add(done).cast::<u64>().write_unaligned(piece::load_8(from.add(done)));
            done += 8;
        }
        if len - done >= 4 {
            into.add(done).cast::<u32>().write_unaligned(piece::load_4(from.add(done)));
            done += 4;
        }
        while done < len {
            into.add(done).write(piece::load_1(from.add(done)));
            done += 1;
        }
    }
}

/// Copies `len` bytes into shared memory, each written once.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `from` is private memory.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) unsafe fn copy_in(from: *const u8, into: *mut u8, len: usize) {
    let mut done = 0;
    // SAFETY: as in `copy_out`.
    unsafe {
        if len >= LONG_COPY {
            return copy_long(from, into, len);
        }
        #[cfg(target_feature = "sse2")]
        while len - done >= 16 {
            piece::store_16(into.add(done), from.add(done).cast::<__m128i>().read_unaligned());
            done += 16;
        }
        while len - done >= 8 {
            piece::store_8(into.add(done), from.add(done).cast::<u64>().read_unaligned());
            done += 8;
        }
        if len - done >= 4 {
            piece::store_4(into.add(done), from.add(done).cast::<u32>().read_unaligned());
            done += 4;
        }
        while done < len {
            piece::store_1(into.add(done), from.add(done).read());
            done += 1;
        }
    }
}

/// Copies with `rep movsb`.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_long(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: the caller's; the ABI keeps the direction flag clear.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rsi") from => _, inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Asks for the cache lines of `len` bytes, for writing. Nothing happens if they are not mapped.
#[inline(always)]
pub(super) fn prefetch_for_write(at: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in (0..len.saturating_add(at.addr() % 64)).step_by(64) {
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe {
            core::arch::asm!(
                "prefetchw [{}]", in(reg) at.wrapping_add(line),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (at, len);
}

/// Copies `len` bytes out of shared memory, each read once.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `into` is private memory.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "each cast stands behind a check of the address")]
pub(super) unsafe fn copy_out(from: *const u8, into: *mut u8, len: usize) {
    use core::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
    let mut done = 0;
    // SAFETY: `done + width <= len` before each access; `from + done` is a multiple of the width, since `done` grows
    // in steps of it; relaxed atomic loads tolerate concurrent writers; `into` takes unaligned writes.
    unsafe {
        while from.addr() % 8 == 0 && len - done >= 8 {
            let word = (*from.add(done).cast::<AtomicU64>()).load(Relaxed);
            into.add(done).cast::<u64>().write_unaligned(word);
            done += 8;
        }
        while from.addr() % 4 == 0 && len - done >= 4 {
            let word = (*from.add(done).cast::<AtomicU32>()).load(Relaxed);
            into.add(done).cast::<u32>().write_unaligned(word);
            done += 4;
        }
        while done < len {
            into.add(done).write((*from.add(done).cast::<AtomicU8>()).load(Relaxed));
            done += 1;
        }
    }
}

/// Copies `len` bytes into shared memory, each written once.
///
/// # Safety
///
/// `from` is readable and `into` writable for `len` bytes; `from` is private memory.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "each cast stands behind a check of the address")]
pub(super) unsafe fn copy_in(from: *const u8, into: *mut u8, len: usize) {
    use core::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
    let mut done = 0;
    // SAFETY: as in `copy_out`, the other way round.
    unsafe {
        while into.addr() % 8 == 0 && len - done >= 8 {
            let word = from.add(done).cast::<u64>().read_unaligned();
            (*into.add(done).cast::<AtomicU64>()).store(word, Relaxed);
            done += 8;
        }
        while into.addr() % 4 == 0 && len - done >= 4 {
            let word = from.add(done).cast::<u32>().read_unaligned();
            (*into.add(done).cast::<AtomicU32>()).store(word, Relaxed);
            done += 4;
        }
        while done < len {
            (*into.add(done).cast::<AtomicU8>()).store(from.add(done).read(), Relaxed);
            done += 1;
        }
    }
}
