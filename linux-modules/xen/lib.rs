// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over the kernel's Xen support.

pub mod thread;

/// Whether this kernel runs in a Xen domain.
pub fn in_domain() -> bool {
    // SAFETY: The function reads a variable that is set before modules can be loaded.
    unsafe { sys::causeway_xen_domain() }
}
