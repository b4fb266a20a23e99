// SPDX-License-Identifier: GPL-2.0

//! One end of a device.

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::device::{self, Core, DeviceContext};
use kernel::str::CString;
use kernel::sync::aref::AlwaysRefCounted;
use kernel::types::Opaque;
use kernel::{bindings, fmt, prelude::*};
use ring_proto::xen::DomId;
use ring_proto::xenbus::{State, WriteDirectory};

use super::Directory;

/// One end of a device: this domain's.
///
/// # Invariants
///
/// A [`Device`] instance represents a valid `struct xenbus_device` created by the C portion of the kernel.
#[repr(transparent)]
pub struct Device<Ctx: DeviceContext = device::Normal>(
    Opaque<sys::xenbus_device>,
    PhantomData<Ctx>,
);

/// The state with this number, as the bus reads it: any number at all may stand in xenstore.
pub(super) fn state_of(number: sys::xenbus_state) -> Option<State> {
    State::from_raw(number.into())
}

impl Device {
    /// Path of this end's directory.
    pub fn nodename(&self) -> &CStr {
        // SAFETY: The path is set before the device is registered, and freed with the device.
        unsafe { CStr::from_char_ptr((*self.as_raw()).nodename) }
    }

    /// The domain of the other end, as the toolstack wrote it.
    pub fn otherend_id(&self) -> DomId {
        // SAFETY: The device is valid. The bus writes this word at resume, hence one read that is not torn.
        let id = unsafe { (&raw const (*self.as_raw()).otherend_id).read_volatile() };
        // What is no domain's id is granted to nobody.
        u16::try_from(id).map_or(DomId(u16::MAX), DomId)
    }

    /// This end's state, as the bus remembers it.
    pub fn state(&self) -> State {
        // SAFETY: The device is valid. Whoever switches the state writes this word, hence one read that is not torn.
        let state = unsafe { (&raw const (*self.as_raw()).state).read_volatile() };
        state_of(state).unwrap_or(State::Unknown)
    }

    /// Writes this end's state to xenstore, if it is another than before. May sleep.
    ///
    /// Who writes states from several threads has to do so one after the other.
    ///
    /// A frontend goes back to `Initialising` only in the xenwatch thread, that is, in `otherend_changed`: elsewhere the
    /// bus may see the key before it knows that the driver wrote it, and take the device for a new one.
    ///
    /// # Errors
    ///
    /// `EIO` when the state was not written: because xenstore failed (then the state is `Closing` instead), or because
    /// this end's directory is gone.
    pub fn switch_state(&self, to: State) -> Result {
        // SAFETY: The device is valid.
        unsafe { sys::xenbus_switch_state(self.as_raw(), to.raw().into()) };
        if self.state() == to {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Writes the state `Closed` and tells a shutdown that waits for it. For frontends. May sleep.
    pub fn frontend_closed(&self) {
        // SAFETY: The device is valid.
        unsafe { sys::xenbus_frontend_closed(self.as_raw()) };
    }

    /// Whether the toolstack wants a backend's device to stay: the key `online` of its directory. May sleep.
    pub fn is_online(&self) -> bool {
        // SAFETY: The device is valid.
        unsafe { sys::xenbus_dev_is_online(self.as_raw()) != 0 }
    }

    /// Whether this end's directory was removed, or made anew, without a word to the driver.
    pub fn vanished(&self) -> bool {
        // SAFETY: The device is valid. The bus writes this byte.
        unsafe { (&raw const (*self.as_raw()).vanished).read_volatile() }
    }

    /// Logs what went wrong, and writes it to `error/<nodename>/error`. May sleep.
    pub fn error(&self, why: Error, text: fmt::Arguments<'_>) {
        // SAFETY: The device is valid. "%pA" takes a pointer to `fmt::Arguments`.
        unsafe {
            sys::xenbus_dev_error(
                self.as_raw(),
                why.to_errno(),
                c"%pA".as_char_ptr(),
                core::ptr::from_ref(&text).cast::<c_void>(),
            )
        };
    }

    /// The same as [`error`](Self::error) without a line of the log, for what the other end can cause as often as it
    /// likes.
    pub fn error_unlogged(&self, why: Error, text: fmt::Arguments<'_>) {
        let write = || {
            let path = CString::try_from_fmt(fmt!("error/{}", self.nodename().to_str()?))?;
            let mut errors = &Directory::new(&path)?;
            errors.write("error", fmt!("{} {text}", why.to_errno().wrapping_neg()))
        };
        // As for the bus, it is no error that an error cannot be told.
        let _: Result = write();
    }

    /// The same as [`error`](Self::error), and writes the state `Closing`.
    pub fn fatal(&self, why: Error, text: fmt::Arguments<'_>) {
        // SAFETY: The device is valid. "%pA" takes a pointer to `fmt::Arguments`.
        unsafe {
            sys::xenbus_dev_fatal(
                self.as_raw(),
                why.to_errno(),
                c"%pA".as_char_ptr(),
                core::ptr::from_ref(&text).cast::<c_void>(),
            )
        };
    }

    /// This end's directory.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn directory(&self) -> Result<Directory> {
        Directory::new(self.nodename())
    }

    /// Path of a key in this end's directory.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn own(&self, key: &CStr) -> Result<CString> {
        let mut path = KVec::new();
        path.extend_from_slice(self.nodename().to_bytes(), GFP_KERNEL)?;
        path.push(b'/', GFP_KERNEL)?;
        path.extend_from_slice(key.to_bytes_with_nul(), GFP_KERNEL)?;
        let path = CStr::from_bytes_with_nul(&path).map_err(|_| EINVAL)?;
        Ok(CString::try_from(path)?)
    }
}

impl<Ctx: DeviceContext> Device<Ctx> {
    /// The C structure.
    pub(crate) fn as_raw(&self) -> *mut sys::xenbus_device {
        self.0.get()
    }
}

impl Device<Core<'_>> {
    /// The other end's directory.
    ///
    /// Only the bus's callbacks can have it, because the path is another one after a resume.
    ///
    /// # Errors
    ///
    /// When there is no memory, or the other end is unknown.
    pub fn otherend(&self) -> Result<Directory> {
        // SAFETY: The device is valid. The bus replaces the path only outside of a driver's callbacks.
        let path = unsafe { (*self.as_raw()).otherend };
        if path.is_null() {
            return Err(ENOENT);
        }
        // SAFETY: The path ends with a zero byte, and stays for the callback.
        Directory::new(unsafe { CStr::from_char_ptr(path) })
    }

    /// The other end's state, read from xenstore: [`State::Unknown`] when it is none or cannot be read.
    pub fn otherend_state(&self) -> State {
        // SAFETY: As in `otherend`.
        let state = unsafe {
            let path = (*self.as_raw()).otherend;
            if path.is_null() {
                return State::Unknown;
            }
            sys::xenbus_read_driver_state(self.as_raw(), path)
        };
        state_of(state).unwrap_or(State::Unknown)
    }
}

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on `Device`'s generic argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: Instances of `Device` are always reference-counted.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The existence of a shared reference guarantees that the refcount is non-zero.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).dev) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The safety requirements guarantee that the refcount is non-zero.
        unsafe { bindings::put_device(&raw mut (*obj.cast::<sys::xenbus_device>().as_ptr()).dev) }
    }
}

impl<Ctx: DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant, this is a valid `struct xenbus_device`, which embeds a `struct device`.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }
}

// SAFETY: A `Device` is always reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: All methods of `Device` are either thread safe in C or read words that C code may write at the same time.
unsafe impl Sync for Device {}

// SAFETY: As for `Device`: the marker of the context is of no size.
unsafe impl Sync for Device<device::Bound> {}
