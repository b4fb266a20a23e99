// SPDX-License-Identifier: GPL-2.0

//! The gendisk.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::bindings;
use kernel::device::Device;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::sync::Arc;

use super::{Limits, Operations, TagSet};

/// Largest capacity in units of 512 bytes (`BLK_DEV_MAX_SECTORS`).
const MAX_SECTORS: u64 = (i64::MAX >> 9) as u64;

/// The numbers of a disk's device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Number of the driver.
    pub major: u32,
    /// Number of the whole disk.
    pub first_minor: u32,
    /// How many numbers there are, for the disk and its partitions. With 1, there are no partitions.
    pub minors: u32,
}

/// What outlives [`Disk`] until the last user of the gendisk is gone.
struct Attached<T: Operations> {
    table: bindings::block_device_operations,
    tag_set: Arc<TagSet<T>>,
}

/// A disk. Dropping it takes it away from its users, and waits until the driver ended all of its requests.
///
/// # Invariants
///
/// `disk` is a gendisk of this driver, `private_data` of which is an [`Attached`] that lives as long as it.
pub struct Disk<T: Operations> {
    disk: *mut bindings::gendisk,
    tag_set: Arc<TagSet<T>>,
    added: AtomicBool,
}

// SAFETY: a gendisk is bound to no thread.
unsafe impl<T: Operations> Send for Disk<T> {}
// SAFETY: what is done through a shared reference is guarded by the block layer's own locks.
unsafe impl<T: Operations> Sync for Disk<T> {}

impl<T: Operations> Disk<T> {
    /// Makes a disk that nobody sees before [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// When memory is short, or a number is not possible.
    pub fn new(
        tag_set: Arc<TagSet<T>>,
        module: &'static ThisModule,
        name: &[u8],
        numbers: Numbers,
        limits: &Limits,
    ) -> Result<Self> {
        limits.check()?;
        let mut raw_limits: bindings::queue_limits = pin_init::zeroed();
        limits.apply(&mut raw_limits);
        let table = bindings::block_device_operations {
            ioctl: Some(ioctl::<T>),
            compat_ioctl: Some(ioctl::<T>),
            getgeo: Some(getgeo),
            free_disk: Some(free_disk::<T>),
            owner: module.as_ptr(),
            ..pin_init::zeroed()
        };
        let attached = Attached { table, tag_set: tag_set.clone() };
        let attached = KBox::new(attached, GFP_KERNEL)?;
        // SAFETY: the tag set is allocated, and outlives the disk by the reference in `Self` and `Attached`.
        let disk = from_err_ptr(unsafe {
            bindings::__blk_mq_alloc_disk(
                tag_set.as_ptr(),
                &mut raw_limits,
                null_mut(),
                static_lock_class!().as_ptr(),
            )
        })?;
        let attached = KBox::into_raw(attached);
        // SAFETY: the disk was just made and is not shown to anybody, and `attached` lives as long as it.
        let raw_name = unsafe {
            (*disk).fops = &raw const (*attached).table;
            (*disk).private_data = attached.cast();
            &mut (*disk).disk_name
        };
        // INVARIANT: as set up above.
        let this = Self { disk, tag_set, added: AtomicBool::new(false) };
        let room = raw_name.len().saturating_sub(1);
        if name.is_empty() || name.len() > room {
            return Err(EINVAL);
        }
        for (into, from) in raw_name.iter_mut().zip(name) {
            *into = *from;
        }
        // SAFETY: as above.
        unsafe {
            (*disk).major = numbers.major as c_int;
            (*disk).first_minor = numbers.first_minor as c_int;
            (*disk).minors = numbers.minors as c_int;
        }
        Ok(this)
    }

    /// The medium can be taken out. Only before [`add`](Self::add).
    pub fn set_removable(&mut self) {
        if !*self.added.get_mut() {
            // SAFETY: nobody sees the disk yet.
            unsafe { (*self.disk).flags |= bindings::GENHD_FL_REMOVABLE as i32 };
        }
    }

    /// Shows the disk to everybody, as a child of `parent`. Its partitions are read within this call, so requests must
    /// be served already.
    ///
    /// # Errors
    ///
    /// When its name or numbers are taken, or memory is short.
    pub fn add(&self, parent: &Device) -> Result {
        if self.added.swap(true, Ordering::Relaxed) {
            return Err(EBUSY);
        }
        // A `Device` is the C structure, and nothing but it.
        let parent = core::ptr::from_ref(parent).cast_mut().cast::<bindings::device>();
        // SAFETY: the disk is complete, and the parent is a device that is registered.
        let result = to_result(unsafe { bindings::device_add_disk(parent, self.disk, null_mut()) });
        if result.is_err() {
            self.added.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Sets the capacity in units of 512 bytes before the disk is added.
    ///
    /// # Errors
    ///
    /// `EINVAL` when no disk is so large.
    pub fn set_capacity(&mut self, sectors: u64) -> Result {
        if sectors > MAX_SECTORS {
            return Err(EINVAL);
        }
        // SAFETY: by the invariant it is a gendisk.
        unsafe { bindings::set_capacity(self.disk, sectors) };
        Ok(())
    }

    /// Changes the capacity and tells everybody, if it is another. Returns whether it was. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` when no disk is so large.
    pub fn resize(&self, sectors: u64) -> Result<bool> {
        if sectors > MAX_SECTORS {
            return Err(EINVAL);
        }
        if self.capacity() == sectors {
            return Ok(false);
        }
        // SAFETY: by the invariant it is a gendisk.
        unsafe { bindings::set_capacity_and_notify(self.disk, sectors) };
        Ok(true)
    }

    /// Its size in units of 512 bytes.
    pub fn capacity(&self) -> u64 {
        // SAFETY: by the invariant it is a gendisk, which has its first block device all its life.
        unsafe { (*(*self.disk).part0).bd_nr_sectors }
    }

    /// Whether writes are refused.
    pub fn set_read_only(&self, read_only: bool) {
        // SAFETY: by the invariant it is a gendisk.
        unsafe { bindings::set_disk_ro(self.disk, read_only) };
    }

    /// Fails all that is submitted from now on, and tells a file system on it. Requests that the driver has stay its own,
    /// and this may wait for them.
    pub fn mark_dead(&self) {
        // SAFETY: by the invariant it is a gendisk.
        unsafe { bindings::blk_mark_disk_dead(self.disk) };
    }

    /// Lets no more calls of [`Operations::queue_rq`] begin, and waits for those that are running.
    pub fn quiesce(&self) {
        // SAFETY: by the invariant it is a gendisk, whose queue lives as long.
        unsafe { bindings::blk_mq_quiesce_queue((*self.disk).queue) };
    }

    /// The opposite of [`quiesce`](Self::quiesce), which was called before.
    pub fn unquiesce(&self) {
        // SAFETY: as above.
        unsafe { bindings::blk_mq_unquiesce_queue((*self.disk).queue) };
    }

    /// Changes what the disk can do, at best between [`quiesce`](Self::quiesce) and [`unquiesce`](Self::unquiesce):
    /// requests that were made before keep to the limits of before. Returns whether it could: an administrator who
    /// changes the limits by sysfs meanwhile waits until all requests have ended, so nobody who has to see to that may
    /// wait for the administrator.
    ///
    /// # Errors
    ///
    /// When the block layer cannot have it so.
    pub fn try_set_limits(&self, limits: &Limits) -> Result<bool> {
        limits.check()?;
        // SAFETY: the queue lives as long as the disk; the lock is given back exactly if it was taken.
        unsafe {
            let queue = (*self.disk).queue;
            let mut raw: bindings::queue_limits = pin_init::zeroed();
            if !sys::causeway_queue_limits_try_update(queue, &mut raw) {
                return Ok(false);
            }
            limits.apply(&mut raw);
            to_result(bindings::queue_limits_commit_update(queue, &mut raw))?;
        }
        Ok(true)
    }

    /// Offers discard (and secure erase) no more. In any context.
    pub fn disable_discard(&self) {
        // SAFETY: the queue lives as long as the disk.
        unsafe { sys::causeway_disable_discard((*self.disk).queue) };
    }

    /// Leaves the disk as it is, for ever, and its module with it: the only way out when a request cannot end.
    pub fn abandon(self: Arc<Self>) {
        // SAFETY: by the invariant `fops` is the table of this disk, with the module that made it, which is still
        // there as it calls this.
        unsafe { bindings::__module_get((*(*self.disk).fops).owner) };
        core::mem::forget(self);
    }

    /// The queues and tags.
    pub fn tag_set(&self) -> &Arc<TagSet<T>> {
        &self.tag_set
    }
}

impl<T: Operations> Drop for Disk<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is a gendisk. One that was added is deleted once, and the reference that it was
        // made with is put once. `free_disk` frees `Attached`, unless the disk was never added.
        unsafe {
            let attached = (*self.disk).private_data.cast::<Attached<T>>();
            if *self.added.get_mut() {
                bindings::del_gendisk(self.disk);
                bindings::put_disk(self.disk);
            } else {
                bindings::put_disk(self.disk);
                drop(KBox::from_raw(attached));
            }
        }
    }
}

/// # Safety
///
/// Called by the block layer when nobody uses `disk`, made by [`Disk::new`] and added, any more.
unsafe extern "C" fn free_disk<T: Operations>(disk: *mut bindings::gendisk) {
    // SAFETY: `private_data` came of `KBox::into_raw`, and the table in it is used no more after this function.
    drop(unsafe { KBox::from_raw((*disk).private_data.cast::<Attached<T>>()) });
}

/// # Safety
///
/// Called by the block layer for an open device of [`Disk`].
unsafe extern "C" fn ioctl<T: Operations>(
    device: *mut bindings::block_device,
    _mode: bindings::blk_mode_t,
    command: kernel::ffi::c_uint,
    argument: kernel::ffi::c_ulong,
) -> kernel::ffi::c_int {
    // SAFETY: an open device has its disk, the `private_data` of which lives as long.
    let attached = unsafe { &*(*(*device).bd_disk).private_data.cast::<Attached<T>>() };
    match attached.tag_set.data().ioctl(command, argument) {
        Ok(value) => value,
        Err(error) => error.to_errno(),
    }
}

/// The geometry that old programs ask for, consistent with the size.
///
/// # Safety
///
/// Called by the block layer with a disk and a structure to fill in.
unsafe extern "C" fn getgeo(
    disk: *mut bindings::gendisk,
    geometry: *mut bindings::hd_geometry,
) -> kernel::ffi::c_int {
    const HEADS: u8 = 255;
    const SECTORS: u8 = 63;
    // SAFETY: by the contract of this function.
    unsafe {
        let sectors = (*(*disk).part0).bd_nr_sectors;
        let cylinders = sectors / (u64::from(HEADS) * u64::from(SECTORS));
        let cylinders = u16::try_from(cylinders).unwrap_or(u16::MAX);
        sys::causeway_set_geometry(geometry, HEADS, SECTORS, cylinders);
    }
    0
}
