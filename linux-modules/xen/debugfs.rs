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
use kernel::sync::{rcu, Arc, ArcBorrow};

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
pub struct Folder(AtomicPtr<Entry>);

/// Files can be made in the folder as long as this lives. The folder goes with it and with the last of them.
pub struct Open(&'static Folder);

impl Folder {
    /// A place without a folder.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Makes the folder, in debugfs' root.
    ///
    /// # Errors
    ///
    /// When there is one already, or no memory.
    pub fn open(&'static self, name: &CStr) -> Result<Open> {
        // SAFETY: The name is a C string.
        let folder = Entry(unsafe { sys::causeway_debugfs_folder(name.as_char_ptr()) });
        let folder = Arc::into_raw(Arc::new(folder, GFP_KERNEL)?).cast_mut();
        if self.0.compare_exchange(null_mut(), folder, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            // SAFETY: It was made above, and nobody knows it.
            drop(unsafe { Arc::from_raw(folder) });
            return Err(EBUSY);
        }
        Ok(Open(self))
    }

    /// The folder, if it is [open](Self::open).
    fn get(&self) -> Option<Arc<Entry>> {
        let _reader = rcu::read_lock();
        let folder = self.0.load(Ordering::Acquire);
        if folder.is_null() {
            return None;
        }
        // SAFETY: It came from an `Arc`, which `Open` keeps until all readers are gone.
        Some(unsafe { ArcBorrow::from_raw(folder) }.into())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let folder = self.0 .0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: It is that of `open`, and nobody finds it any more once all readers are gone.
        unsafe {
            bindings::synchronize_rcu();
            drop(Arc::from_raw(folder));
        }
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
        let folder = folder.get();
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
