// SPDX-License-Identifier: GPL-2.0

//! What a driver shows in debugfs, to root: a folder of the driver, and in it a file of text for each device.
//!
//! The files are no interface: what is in them may be another text tomorrow. They do without debugfs: where a kernel has
//! none, or no memory for a file, nothing is shown and nothing fails.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use core::fmt;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::Arc;

/// What is shown as a file.
pub trait View: Send + Sync + 'static {
    /// Writes the text. It may be asked for twice for one reading.
    ///
    /// # Errors
    ///
    /// When `out` takes no more.
    fn view(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Where a driver has its folder: a static.
pub struct Folder(AtomicPtr<bindings::dentry>);

/// The folder is there as long as this lives.
pub struct Open(&'static Folder);

impl Folder {
    /// A place without a folder.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Makes the folder, in debugfs' root.
    pub fn open(&'static self, name: &CStr) -> Open {
        // SAFETY: The name is a C string.
        let folder = unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), null_mut()) };
        self.0.store(folder, Ordering::Release);
        Open(self)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let folder = self.0 .0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: It is that of `open`, or an error, which is ignored.
        unsafe { bindings::debugfs_remove(folder) };
    }
}

/// A file that shows a [`View`]. It is gone when this is dropped, which waits for whoever reads it: to be dropped under no
/// lock that [`View::view`] takes, and before the folder.
pub struct File<V: View> {
    file: *mut bindings::dentry,
    _inner: Pin<KBox<Inner<V>>>,
}

#[repr(C)]
struct Inner<V> {
    // First, so that a pointer to one is a pointer to the other.
    view: sys::causeway_view,
    value: Arc<V>,
}

// SAFETY: A dentry may be removed from any thread, and the value may be shared.
unsafe impl<V: View> Send for File<V> {}
// SAFETY: As above; a shared reference allows nothing.
unsafe impl<V: View> Sync for File<V> {}

impl<V: View> File<V> {
    /// Makes the file.
    ///
    /// # Errors
    ///
    /// When there is no memory for what it shows.
    pub fn new(folder: &'static Folder, name: &CStr, value: Arc<V>) -> Result<Self> {
        let view = sys::causeway_view { show: Some(Self::show) };
        let inner = KBox::pin(Inner { view, value }, GFP_KERNEL)?;
        let folder = folder.0.load(Ordering::Acquire);
        let file = if folder.is_null() {
            // In debugfs' root it would be nobody's.
            null_mut()
        } else {
            // SAFETY: The folder is there, or an error that is given back. `inner` stays where it is until `drop` has
            // removed the file, and nobody writes to it.
            unsafe {
                sys::causeway_debugfs_file(
                    name.as_char_ptr(),
                    folder,
                    core::ptr::from_ref(&*inner).cast_mut().cast(),
                )
            }
        };
        Ok(Self { file, _inner: inner })
    }

    extern "C" fn show(file: *mut bindings::seq_file, _unused: *mut c_void) -> c_int {
        // SAFETY: The kernel gives a file that this thread has for itself, and `private` is what `new` gave: `drop` waits
        // for this function.
        let (file, inner) =
            unsafe { (SeqFile::from_raw(file), &*(*file).private.cast::<Inner<V>>()) };
        file.call_printf(format_args!("{}", Shown(&*inner.value)));
        0
    }
}

impl<V: View> Drop for File<V> {
    fn drop(&mut self) {
        // SAFETY: It is that of `new`; an error and null are ignored. This waits for whoever reads it.
        unsafe { bindings::debugfs_remove(self.file) };
    }
}

struct Shown<'a, V>(&'a V);

impl<V: View> fmt::Display for Shown<'_, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.view(out)
    }
}
