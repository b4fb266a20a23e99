// SPDX-License-Identifier: GPL-2.0

//! A frontend's pages as those of bios.

use core::ptr::NonNull;

use kernel::bindings;
use xen::map::MappedPage;

use crate::bio::Page;

// SAFETY: The value owns its page, which stays mapped, and can be read, until the value is dropped. Whether it may be
// written is for whoever maps it to see to: a device that writes a page that the frontend granted for reading fails.
unsafe impl Page for MappedPage {
    #[inline]
    fn page(&self) -> NonNull<bindings::page> {
        self.as_ptr()
    }
}
