// SPDX-License-Identifier: GPL-2.0

//! Attributes of a device in sysfs.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use core::fmt::{self, Write};

use kernel::error::to_result;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::types::Opaque;
use kernel::{bindings, page::PAGE_SIZE, prelude::*};

use crate::xenbus::Device;

/// Values that are shown as files, which anybody may read.
pub trait Attributes: Send + Sync + 'static {
    /// Name of the folder below the device's, or `None` for files in the device's own.
    const GROUP: Option<&'static CStr>;

    /// Names of the files.
    const NAMES: &'static [&'static CStr];

    /// Writes the text of a file, the one at `index` in [`NAMES`](Self::NAMES), with its end of line. What is longer
    /// than a page is cut off.
    ///
    /// # Errors
    ///
    /// When it cannot be shown.
    fn show(&self, index: usize, out: &mut dyn Write) -> fmt::Result;
}

/// Files in sysfs that show [`Attributes`]. They are gone when this is dropped, which waits for whoever reads one; so it
/// is to be dropped before the device is gone, and under no lock that [`Attributes::show`] takes.
pub struct AttributeGroup<A: Attributes> {
    inner: Pin<KBox<Inner<A>>>,
}

struct Inner<A> {
    group: Opaque<bindings::attribute_group>,
    /// Pointers to the files, and a null one. The group refers to them.
    files: KVec<*mut bindings::attribute>,
    entries: KVec<Entry<A>>,
    _values: Arc<A>,
    device: ARef<Device>,
}

/// One file.
#[repr(C)]
struct Entry<A> {
    // First, so that a pointer to one is a pointer to the other.
    attribute: Opaque<bindings::device_attribute>,
    values: *const A,
    index: usize,
}

// SAFETY: The C structures are used by C code from any thread, and not changed after they were registered.
unsafe impl<A: Attributes> Send for Inner<A> {}
// SAFETY: As above.
unsafe impl<A: Attributes> Sync for Inner<A> {}

impl<A: Attributes> AttributeGroup<A> {
    /// Makes the files of a device.
    ///
    /// # Errors
    ///
    /// When there is no memory, or there are files of these names.
    pub fn new(device: &Device, values: Arc<A>) -> Result<Self> {
        let count = A::NAMES.len();
        let mut entries = KVec::with_capacity(count, GFP_KERNEL)?;
        for index in 0..count {
            let values = Arc::as_ptr(&values);
            entries.push(Entry { attribute: Opaque::zeroed(), values, index }, GFP_KERNEL)?;
        }
        let mut files = KVec::with_capacity(count.saturating_add(1), GFP_KERNEL)?;
        for (entry, name) in entries.iter().zip(A::NAMES) {
            let attribute = entry.attribute.get();
            // SAFETY: `entries` is not pushed to any more, so that the attribute stays where it is.
            unsafe {
                sys::causeway_attribute_init(attribute, name.as_char_ptr(), Some(Self::show))
            };
            files.push(attribute.cast(), GFP_KERNEL)?;
        }
        files.push(core::ptr::null_mut(), GFP_KERNEL)?;

        let inner = KBox::pin(
            Inner {
                group: Opaque::zeroed(),
                files,
                entries,
                _values: values,
                device: device.into(),
            },
            GFP_KERNEL,
        )?;
        let name = A::GROUP.map_or(core::ptr::null(), |name| name.as_char_ptr());
        // SAFETY: The device is valid. The group, its list and the files stay where they are until `drop` has removed
        // them.
        to_result(unsafe {
            let files = inner.files.as_ptr().cast_mut();
            sys::causeway_attribute_group_init(inner.group.get(), name, files);
            let kobj = &raw mut (*device.as_raw()).dev.kobj;
            bindings::sysfs_create_group(kobj, inner.group.get())
        })?;
        Ok(Self { inner })
    }

    extern "C" fn show(
        _device: *mut bindings::device,
        attribute: *mut bindings::device_attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: The attribute is the first field of an `Entry<A>`, and it and the values live: `drop` waits for this
        // function.
        let (values, index) = unsafe {
            let entry = &*attribute.cast::<Entry<A>>();
            (&*entry.values, entry.index)
        };
        // SAFETY: The kernel gives a page to write the text into, which is zeroed.
        let page = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE) };
        let mut text = Text { page, len: 0 };
        match values.show(index, &mut text) {
            Ok(()) => text.len as isize,
            Err(fmt::Error) => EIO.to_errno() as isize,
        }
    }
}

impl<A: Attributes> Drop for AttributeGroup<A> {
    fn drop(&mut self) {
        debug_assert!(self.inner.entries.len() < self.inner.files.len());
        // SAFETY: `new` has made the files. This waits for whoever reads one.
        unsafe {
            let kobj = &raw mut (*self.inner.device.as_raw()).dev.kobj;
            bindings::sysfs_remove_group(kobj, self.inner.group.get());
        }
    }
}

/// Text that ends where the page does.
struct Text<'a> {
    page: &'a mut [u8],
    len: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.page.iter_mut().skip(self.len).zip(text.bytes()) {
            *to = from;
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }
}
