// SPDX-License-Identifier: GPL-2.0

//! Plugging: bios submitted in one go reach the device in one go.

use kernel::bindings;
use kernel::types::Opaque;

/// Does `submit` with the block layer holding back what it submits, so that neighbours can be merged and the device is
/// told once. May sleep.
pub fn plugged<R>(submit: impl FnOnce() -> R) -> R {
    struct Unplug<'a>(&'a Opaque<bindings::blk_plug>);

    impl Drop for Unplug<'_> {
        fn drop(&mut self) {
            // SAFETY: Begun below, by this thread, and it has not moved.
            unsafe { bindings::blk_finish_plug(self.0.get()) };
        }
    }

    let plug = Opaque::uninit();
    // SAFETY: `plug` stays where it is, on the stack of this thread, until `Unplug` has ended it.
    unsafe { bindings::blk_start_plug(plug.get()) };
    let _unplug = Unplug(&plug);
    submit()
}
