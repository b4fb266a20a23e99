// SPDX-License-Identifier: GPL-2.0

//! Drivers of one end of a device type.

use core::marker::PhantomData;
use core::mem::offset_of;

use kernel::device::{self, Core, CoreInternal};
use kernel::error::{from_result, to_result};
use kernel::types::{ForeignOwnable, Opaque};
use kernel::{bindings, driver, prelude::*};
use ring_proto::xenbus::{End, State};

use super::device::state_of;
use super::Device;

/// What is to be done with a device after a callback in the xenwatch thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Nothing.
    Stay,
    /// Take it off the bus: the driver is unbound from it, and it is freed when the last reference to it is gone.
    /// Nothing happens when it is off the bus already.
    ///
    /// A backend's driver does so when the toolstack wants the device gone and its connection is closed; a device whose
    /// own directory goes is taken off by the bus itself.
    Unregister,
}

/// The driver of one end of a device type.
///
/// # Threads
///
/// [`otherend_changed`](Self::otherend_changed) and every [`Watch`](super::Watch) of the whole system run one after
/// the other in one thread, xenwatch. A driver that waits there for I/O stops the hot plug of everybody.
///
/// The bus removes its watch before it calls [`unbind`](Self::unbind) and [`resume`](Self::resume), so none of these runs
/// at the same time as `otherend_changed`.
pub trait Driver {
    /// The type of the driver's private data of one device.
    ///
    /// It is dropped at the end of the bus's `remove`, before this end's `Closed` is written, so that whoever waits for
    /// that state finds everything released. Its fields are dropped in their order: what calls into the others
    /// (watches, sysfs attributes, event channels) comes first.
    type Data<'bound>: Send + Sync + 'bound;

    /// Which end the driver is.
    const END: End;

    /// Name of the driver in sysfs. The bus matches by [`DEVICE_TYPE`](Self::DEVICE_TYPE) alone, so this one need only
    /// be different from that of other drivers of the bus.
    const NAME: &'static CStr;

    /// Type of the devices, `vbd` for disks. At most 31 bytes.
    const DEVICE_TYPE: &'static CStr;

    /// Whether unbinding leaves this end's state as it is, for a driver that will be bound later. Otherwise the bus
    /// writes `Closed`.
    const ALLOW_REBIND: bool = false;

    /// Whether boot goes on before such a device of a frontend is connected.
    const NOT_ESSENTIAL: bool = false;

    /// Called when a device of this type appears, with the other end's details already read.
    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// The other end's state was written. It is [`State::Unknown`] when what stands there is no state, or nothing
    /// stands there any more, as in a directory that is gone. Events coalesce: states may be missed, and come again.
    fn otherend_changed<'bound>(
        dev: &'bound Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
        state: State,
    ) -> Next;

    /// Called before the private data is dropped, for what needs the device.
    fn unbind<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }

    /// A frontend's domain was restored, perhaps on another host: its grants, event channels and backend are gone. The
    /// other end's details are those of the new one, and [`Device::state`] begins at `Initialising`.
    fn resume<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) -> Result {
        let _ = (dev, this);
        Ok(())
    }

    /// Whether a frontend's connected device can be used, for whoever waits for it at boot.
    fn is_ready<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) -> bool {
        let _ = (dev, this);
        true
    }

    /// The backend's domain is short of memory.
    fn reclaim_memory<'bound>(dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }
}

/// Registers a [`Driver`] as long as it lives.
pub type Registration<T> = driver::Registration<Adapter<T>>;

/// Connects a [`Driver`] with the bus.
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `sys::xenbus_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct xenbus_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = sys::xenbus_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(sys::xenbus_driver, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is valid if a preceding call to `register` has
// been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        drv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let raw = drv.get();

        // SAFETY: Nobody else knows the structure before it is registered.
        unsafe {
            (*raw).name = T::NAME.as_char_ptr();
            (*raw).ids = Self::IDS.as_ptr();
            (*raw).allow_rebind = T::ALLOW_REBIND;
            (*raw).not_essential = T::NOT_ESSENTIAL;
            (*raw).probe = Some(Self::probe_callback);
            (*raw).otherend_changed = Some(Self::otherend_changed_callback);
            (*raw).remove = Some(Self::remove_callback);
            match T::END {
                End::Frontend => {
                    (*raw).resume = Some(Self::resume_callback);
                    (*raw).is_ready = Some(Self::is_ready_callback);
                }
                End::Backend => (*raw).reclaim_memory = Some(Self::reclaim_memory_callback),
            }
        }

        let register = match T::END {
            End::Frontend => sys::__xenbus_register_frontend,
            End::Backend => sys::__xenbus_register_backend,
        };
        // SAFETY: `raw` is a valid `struct xenbus_driver` that stays where it is until it is unregistered, by the
        // safety requirements of this function. The names are static.
        to_result(unsafe { register(raw, module.as_ptr(), name.as_char_ptr()) })
    }

    unsafe fn unregister(drv: &Opaque<Self::DriverType>) {
        // SAFETY: By the safety requirements of this function, it is registered.
        unsafe { sys::xenbus_unregister_driver(drv.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    /// The device types that the driver takes: one, and the empty one that ends the list.
    const IDS: &'static [sys::xenbus_device_id; 2] =
        &[Self::id(T::DEVICE_TYPE), sys::xenbus_device_id { devicetype: [0; 32] }];

    const fn id(name: &CStr) -> sys::xenbus_device_id {
        let bytes = name.to_bytes();
        assert!(!bytes.is_empty() && bytes.len() < 32, "a device type has 1 to 31 bytes");
        let mut devicetype = [0; 32];
        let mut at = 0;
        while at < bytes.len() {
            devicetype[at] = bytes[at];
            at += 1;
        }
        sys::xenbus_device_id { devicetype }
    }

    /// The device of a callback.
    ///
    /// # Safety
    ///
    /// `raw` is what the bus gave to a callback that lasts as long as `'a`.
    unsafe fn device<'a>(raw: *mut sys::xenbus_device) -> &'a Device<CoreInternal<'a>> {
        // SAFETY: `Device` is a transparent wrapper of `struct xenbus_device`, which the bus keeps for the callback.
        unsafe { &*raw.cast() }
    }

    /// The private data of a device, unless it is unbound.
    ///
    /// # Safety
    ///
    /// The data stays while the returned value is used: the caller is a callback that excludes `probe` and `remove`.
    unsafe fn data<'a>(dev: &'a Device<CoreInternal<'a>>) -> Option<Pin<&'a T::Data<'a>>> {
        let dev: &device::Device<CoreInternal<'a>> = dev.as_ref();
        // SAFETY: The device is valid, and only `probe` and `remove` change the pointer.
        if unsafe { bindings::dev_get_drvdata(raw(dev)) }.is_null() {
            return None;
        }
        // SAFETY: The pointer is there, and it was stored by `probe_callback`, with this type.
        Some(unsafe { dev.drvdata_borrow::<T::Data<'a>>() })
    }

    extern "C" fn probe_callback(
        dev: *mut sys::xenbus_device,
        _id: *const sys::xenbus_device_id,
    ) -> c_int {
        // SAFETY: The bus calls this with a valid device, which stays for the callback.
        let dev = unsafe { Self::device(dev) };
        from_result(|| {
            let data = T::probe(dev);
            dev.as_ref().set_drvdata(data)?;
            Ok(0)
        })
    }

    extern "C" fn otherend_changed_callback(
        dev: *mut sys::xenbus_device,
        number: sys::xenbus_state,
    ) {
        let ptr = dev;
        // SAFETY: The bus calls this with a valid device, which stays until it is unregistered in this same thread.
        let dev = unsafe { Self::device(dev) };
        let state = state_of(number).unwrap_or(State::Unknown);
        // SAFETY: The watch behind this callback is there only between `probe` and `remove`.
        let Some(data) = (unsafe { Self::data(dev) }) else { return };
        if T::otherend_changed(dev, data, state) == Next::Unregister {
            // SAFETY: This is the xenwatch thread. `dev` and `data` are not used any more.
            unsafe { unregister(ptr) };
        }
    }

    extern "C" fn remove_callback(dev: *mut sys::xenbus_device) {
        // SAFETY: The bus calls this with a valid device, which stays for the callback.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: Nothing but the end of this function changes the data.
        let Some(data) = (unsafe { Self::data(dev) }) else { return };
        T::unbind(dev, data);

        let dev: &device::Device<CoreInternal<'_>> = dev.as_ref();
        // SAFETY: The device is valid. The pointer is the one that `set_drvdata` stored, and nobody finds it any more
        // once it is taken off: the driver core's own release of it finds nothing.
        drop(unsafe {
            let data = bindings::dev_get_drvdata(raw(dev));
            bindings::dev_set_drvdata(raw(dev), core::ptr::null_mut());
            Pin::<KBox<T::Data<'_>>>::from_foreign(data.cast())
        });
    }

    extern "C" fn resume_callback(dev: *mut sys::xenbus_device) -> c_int {
        // SAFETY: The bus calls this with a valid device, which stays for the callback.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The power management of devices holds the device's lock, as `probe` and `remove` do. (The domain of
        // xenstored resumes its devices by a work item without the lock, but that domain cannot be saved.)
        match unsafe { Self::data(dev) } {
            Some(data) => from_result(|| T::resume(dev, data).map(|()| 0)),
            None => 0,
        }
    }

    extern "C" fn is_ready_callback(dev: *mut sys::xenbus_device) -> c_int {
        let ptr = dev;
        // SAFETY: The bus calls this with a valid device, which stays for the callback.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: `struct xenbus_device` embeds a `struct device`. The bus asks without its lock, so it is taken here,
        // or else the data could go: while `probe` or `remove` has it, the device is not ready.
        if !unsafe { sys::causeway_device_trylock(&raw mut (*ptr).dev) } {
            return 0;
        }
        // SAFETY: The device's lock is held.
        let ready = unsafe { Self::data(dev) }.is_some_and(|data| T::is_ready(dev, data));
        // SAFETY: It was locked above.
        unsafe { sys::causeway_device_unlock(&raw mut (*ptr).dev) };
        ready.into()
    }

    extern "C" fn reclaim_memory_callback(dev: *mut sys::xenbus_device) {
        // SAFETY: The bus calls this with a valid device, which stays for the callback.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: The bus holds the device's `reclaim_sem`, as it does for `probe` and `remove`.
        if let Some(data) = unsafe { Self::data(dev) } {
            T::reclaim_memory(dev, data);
        }
    }
}

/// The C structure of a device.
fn raw<Ctx: device::DeviceContext>(dev: &device::Device<Ctx>) -> *mut bindings::device {
    // `Device` is a transparent wrapper of it, and may be changed by C code behind a shared reference.
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// Takes a device off the bus, if it is on it and nobody binds or unbinds it at this moment.
///
/// Who unbinds a device holds its lock, and waits for the xenwatch thread to end the watches. So that thread must not
/// wait for the lock: the device stays on the bus, without a driver, until its directory goes.
///
/// # Safety
///
/// Called in the xenwatch thread (the only one that takes devices off), with a device that someone holds a reference
/// of, and as the last use of anything that the bound driver owns.
pub(super) unsafe fn unregister(dev: *mut sys::xenbus_device) {
    // SAFETY: The device is valid by the requirements of this function. Off the bus it stays off, and nobody else
    // takes it off at the same time.
    unsafe {
        let dev = &raw mut (*dev).dev;
        if !sys::causeway_device_trylock(dev) {
            return;
        }
        sys::causeway_device_unlock(dev);
        if sys::causeway_device_is_registered(dev) {
            bindings::device_unregister(dev);
        }
    }
}

/// Declares a kernel module that exposes a single driver of the bus.
///
/// # Examples
///
/// ```ignore
/// xen::module_xenbus_driver! {
///     type: MyDriver,
///     name: "Module name",
///     authors: ["Author name"],
///     description: "Description",
///     license: "GPL",
/// }
/// ```
#[macro_export]
macro_rules! module_xenbus_driver {
    ($($f:tt)*) => {
        ::kernel::module_driver!(<T>, $crate::xenbus::Adapter<T>, { $($f)* });
    };
}
