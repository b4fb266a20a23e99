// SPDX-License-Identifier: GPL-2.0

//! Watches of paths in xenstore.

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::driver::unregister;
use super::{Device, Next};

/// What to do when something at or below a watched path changed.
pub trait WatchHandler: Send + Sync + 'static {
    /// Called in the xenwatch thread, once right after the watch was made and then after changes. Several changes may
    /// be told as one: read what is there now.
    fn changed(&self) -> Next;
}

/// A watch of a path. It ends when this is dropped, which waits for a call of its handler that is under way, except in
/// the xenwatch thread itself. So hold no lock over the drop that the handler takes.
pub struct Watch<H: WatchHandler> {
    inner: Pin<KBox<Inner<H>>>,
}

/// # Invariants
///
/// While it is registered, it does not move and `watch.node` is `path`.
#[repr(C)]
struct Inner<H> {
    // First, so that a pointer to one is a pointer to the other.
    watch: Opaque<sys::xenbus_watch>,
    path: CString,
    device: ARef<Device>,
    handler: Arc<H>,
}

// SAFETY: The C structure is used by C code, under its own locks, from any thread.
unsafe impl<H: WatchHandler> Send for Inner<H> {}
// SAFETY: As above; nothing else is changed after it was made.
unsafe impl<H: WatchHandler> Sync for Inner<H> {}

impl<H: WatchHandler> Watch<H> {
    /// Watches `path` for the driver of `device`.
    ///
    /// # Errors
    ///
    /// When there is no memory, or xenstore does not take the watch: then `device` is `Closing`.
    pub fn new(device: &Device, path: &CStr, handler: Arc<H>) -> Result<Self> {
        let inner = KBox::pin(
            Inner {
                watch: Opaque::zeroed(),
                path: CString::try_from(path)?,
                device: device.into(),
                handler,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: `watch` and the path live, and stay where they are, until `drop` has unregistered the watch.
        to_result(unsafe {
            sys::xenbus_watch_path(
                device.as_raw(),
                inner.path.as_char_ptr(),
                inner.watch.get(),
                Some(will_handle),
                Some(callback::<H>),
            )
        })?;
        Ok(Self { inner })
    }
}

impl<H: WatchHandler> Drop for Watch<H> {
    fn drop(&mut self) {
        // SAFETY: It was registered by `new`.
        unsafe { sys::unregister_xenbus_watch(self.inner.watch.get()) };
    }
}

/// Whether an event is queued: not while another is. Else who can write below the path could fill this domain's memory
/// with events that wait (XSA-349).
extern "C" fn will_handle(
    watch: *mut sys::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) -> bool {
    // SAFETY: The watch is registered, and others may write this word.
    unsafe { (&raw const (*watch).nr_pending).read_volatile() == 0 }
}

extern "C" fn callback<H: WatchHandler>(
    watch: *mut sys::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) {
    // SAFETY: The watch is the first field of an `Inner<H>`, which lives: it is registered, and whoever unregisters it
    // waits for this function or is called by it.
    let inner = unsafe { &*watch.cast::<Inner<H>>() };
    // The handler may drop the `Watch`, and `inner` with it.
    let (handler, device) = (inner.handler.clone(), inner.device.clone());
    if handler.changed() == Next::Unregister {
        // SAFETY: This is the xenwatch thread, and `device` is a reference.
        unsafe { unregister(device.as_raw()) };
    }
}
