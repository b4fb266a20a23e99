// SPDX-License-Identifier: MIT OR Apache-2.0

//! Marks in the stream of instructions and ticks of the processor, for the lab's QEMU plugin (`tests/lab/plugin/count.c`).
//!
//! A mark is a `nop` with a number in its operand. It does nothing, on any machine; the plugin sees it executed.

use std::arch::asm;

/// Here begins what is measured.
#[inline(never)]
pub fn begin() {
    // SAFETY: a nop.
    unsafe { asm!("nop dword ptr [rax + 0x584b0001]", options(nomem, nostack, preserves_flags)) }
}

/// Here it ends.
#[inline(never)]
pub fn end() {
    // SAFETY: a nop.
    unsafe { asm!("nop dword ptr [rax + 0x584b0002]", options(nomem, nostack, preserves_flags)) }
}

/// The processor's time-stamp counter. In a guest whose clock is Xen's, the system's clock is a system call, which would
/// be a good part of what is measured.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}
