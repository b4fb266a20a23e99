// SPDX-License-Identifier: GPL-2.0

//! Memory without I/O.

use core::marker::PhantomData;

/// While it lives, this thread allocates memory without writing any back to disks: for whoever has to have memory
/// before a disk works again.
pub struct NoIo {
    flags: u32,
    // It is a property of the thread.
    not_send: PhantomData<*mut ()>,
}

impl NoIo {
    /// Begins it. Scopes may lie within each other, and end in the order of values on the stack.
    pub fn begin() -> Self {
        // SAFETY: it changes a flag of this thread.
        Self { flags: unsafe { sys::causeway_noio_save() }, not_send: PhantomData }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: `flags` came of `begin`, in this thread.
        unsafe { sys::causeway_noio_restore(self.flags) };
    }
}
