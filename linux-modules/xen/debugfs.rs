// SPDX-License-Identifier: GPL-2.0

//! What a driver shows in debugfs, to root: a folder of the driver, and in it a file of text for each device.
//!
//! The files are no interface: what is in them may be another text tomorrow. They do without debugfs: where a kernel has
//! none, or no memory for a file, nothing is shown and nothing fails.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use core::fmt;

use kernel::bindings;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::Arc;

use crate::place::{Filled, Place};

/// What is shown as a file.
pub trait View: Send + Sync + 'static {
    /// Writes the text. One reading may ask for it more than once, until there is room for all of it.
    ///
    /// # Errors
    ///
    /// When `out` takes no more.
    fn view(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A folder or a file, or an error in its place, which the kernel's functions pass over.
struct Entry(*mut bindings::dentry);

// SAFETY: An entry may be removed from any thread.
unsafe impl Send for Entry {}
// SAFETY: As above; files may be made in a folder by several threads at once.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: Whoever made `self` gave what the kernel returned, and nobody else removes it: a folder outlives its
        // files. This waits for whoever reads.
        unsafe { sys::causeway_debugfs_remove(self.0) };
    }
}

/// Where a driver has its folder: a static.
pub struct Folder(Place<Entry>);

/// Files can be made in the folder as long as this lives. The folder goes with it and with the last of them.
pub struct Open {
    _folder: Filled<Entry>,
}

impl Folder {
    /// A place without a folder.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(Place::new())
    }

    /// Makes the folder, in debugfs' root.
    ///
    /// # Errors
    ///
    /// When there is one already, or no memory.
    pub fn open(&'static self, name: &CStr) -> Result<Open> {
        // SAFETY: The name is a C string.
        let folder = Entry(unsafe { sys::causeway_debugfs_folder(name.as_char_ptr()) });
        Ok(Open { _folder: self.0.fill(Arc::new(folder, GFP_KERNEL)?)? })
    }
}

/// A file that shows a [`View`]. It is gone when this is dropped, which waits for whoever reads it: to be dropped under no
/// lock that [`View::view`] takes.
pub struct File<V: View> {
    // Dropped in this order.
    _file: Option<Entry>,
    _folder: Option<Arc<Entry>>,
    _inner: Option<Pin<KBox<Inner<V>>>>,
}

#[repr(C)]
struct Inner<V> {
    // First, so that a pointer to one is a pointer to the other.
    view: sys::causeway_view,
    value: Arc<V>,
}

impl<V: View> File<V> {
    /// Makes the file.
    pub fn new(folder: &'static Folder, name: &CStr, value: Arc<V>) -> Self {
        let view = sys::causeway_view { show: Some(Self::show) };
        let inner = KBox::pin(Inner { view, value }, GFP_KERNEL).ok();
        let folder = folder.0.get();
        let file = folder.as_ref().zip(inner.as_ref()).map(|(folder, inner)| {
            let view = core::ptr::from_ref(&**inner).cast_mut().cast();
            // SAFETY: The folder is there. `inner` stays where it is until the file was removed, and nobody writes to it.
            Entry(unsafe { sys::causeway_debugfs_file(name.as_char_ptr(), folder.0, view) })
        });
        Self { _file: file, _folder: folder, _inner: inner }
    }

    extern "C" fn show(file: *mut bindings::seq_file, _unused: *mut c_void) -> c_int {
        // SAFETY: The kernel gives a file that this thread has for itself, and `private` is what `new` gave, which lives
        // until the file was removed: that waits for this function.
        let (file, inner) =
            unsafe { (SeqFile::from_raw(file), &*(*file).private.cast::<Inner<V>>()) };
        file.call_printf(format_args!("{}", Shown(&*inner.value)));
        0
    }
}

struct Shown<'a, V>(&'a V);

impl<V: View> fmt::Display for Shown<'_, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.view(out)
    }
}
