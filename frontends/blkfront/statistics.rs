// SPDX-License-Identifier: GPL-2.0

//! What a disk has done, in the device's folder `statistics` in sysfs.

use core::fmt::{self, Write};

use kernel::prelude::*;
use xen::sysfs::Attributes;

use crate::vbd::Vbd;

macro_rules! statistics {
    ($($(#[$meta:meta])* $name:ident $file:literal,)*) => {
        /// Counted for each queue, under its lock, and shown as the sum.
        #[derive(Clone, Copy, Default)]
        pub(crate) struct Statistics {
            $($(#[$meta])* pub(crate) $name: u64,)*
        }

        impl Statistics {
            /// Adds those of another queue.
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }

            fn get(&self, index: usize) -> Option<u64> {
                [$(self.$name),*].get(index).copied()
            }
        }

        const FILES: &[&CStr] = &[$($file),*];
    };
}

statistics! {
    /// Requests to the backend.
    requests c"requests",
    /// Requests of them whose segments lay in pages of their own.
    indirect c"indirect",
    /// Times that requests were shown to the backend.
    publications c"publications",
    /// Times of these that it wanted the doorbell.
    doorbells c"doorbells",
    /// Events from the backend.
    events c"events",
    /// Events of them that came without an answer.
    spurious c"spurious",
    /// Requests that were refused because slots, pages or grants were short.
    refused c"refused",
    /// Requests that were asked for anew.
    anew c"anew",
    /// Pages that the backend has grants of, beside rings and the pages of requests.
    pages c"pages",
}

impl Attributes for Vbd {
    const GROUP: Option<&'static CStr> = Some(c"statistics");
    const NAMES: &'static [&'static CStr] = FILES;

    fn show(&self, index: usize, out: &mut dyn Write) -> fmt::Result {
        match self.statistics().get(index) {
            Some(value) => writeln!(out, "{value}"),
            None => Err(fmt::Error),
        }
    }
}
