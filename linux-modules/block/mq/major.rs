// SPDX-License-Identifier: GPL-2.0

//! Numbers of block devices.

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CStr;

/// A major number registered under a name; dropping it gives the number up.
pub struct Major {
    number: u32,
    name: &'static CStr,
}

impl Major {
    /// Registers it.
    ///
    /// # Errors
    ///
    /// When another driver has it.
    pub fn register(number: u32, name: &'static CStr) -> Result<Self> {
        // SAFETY: the name is static.
        to_result(unsafe { bindings::__register_blkdev(number, name.as_char_ptr(), None) })?;
        Ok(Self { number, name })
    }

    /// The number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Major {
    fn drop(&mut self) {
        // SAFETY: it was registered with this name in `register`.
        unsafe { bindings::unregister_blkdev(self.number, self.name.as_char_ptr()) };
    }
}
