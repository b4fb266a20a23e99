// SPDX-License-Identifier: GPL-2.0

//! The queues of a disk and their tags.

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::operations::Table;
use super::Operations;

/// Hardware queues with so many tags each, and the driver's data of the disk.
///
/// # Invariants
///
/// `inner` is an allocated tag set, whose `driver_data` points into `data`.
#[pin_data(PinnedDrop)]
pub struct TagSet<T: Operations> {
    #[pin]
    inner: Opaque<bindings::blk_mq_tag_set>,
    data: Arc<T>,
}

// SAFETY: blk-mq guards the tag set by its own locks; the data is `Send` and `Sync`.
unsafe impl<T: Operations> Send for TagSet<T> {}
// SAFETY: as above.
unsafe impl<T: Operations> Sync for TagSet<T> {}

impl<T: Operations> TagSet<T> {
    /// `queues` hardware queues of `depth` tags. No I/O scheduler is attached unless the administrator wants one: the
    /// other end has the disk, and schedules.
    ///
    /// # Errors
    ///
    /// When memory is short, or a number is 0 or too large.
    pub fn new(data: Arc<T>, queues: u32, depth: u32) -> Result<Arc<Self>> {
        let pointer = core::ptr::from_ref::<T>(&data).cast_mut().cast();
        let set = bindings::blk_mq_tag_set {
            ops: Table::<T>::get(),
            nr_hw_queues: queues,
            queue_depth: depth,
            numa_node: bindings::NUMA_NO_NODE,
            nr_maps: 1,
            flags: bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT,
            driver_data: pointer,
            ..pin_init::zeroed()
        };
        let inner = Opaque::try_ffi_init(|inner: *mut bindings::blk_mq_tag_set| {
            // SAFETY: `inner` is memory for a tag set, which is filled in as blk-mq wants it and not moved any more.
            to_result(unsafe {
                inner.write(set);
                bindings::blk_mq_alloc_tag_set(inner)
            })
        });
        Arc::pin_init(try_pin_init!(Self { inner <- inner, data }), GFP_KERNEL)
    }

    /// The driver's data.
    pub fn data(&self) -> &Arc<T> {
        &self.data
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::blk_mq_tag_set {
        self.inner.get()
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for TagSet<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: by the invariant it is allocated; a disk that used it holds a reference, so there is none any more.
        unsafe { bindings::blk_mq_free_tag_set(self.inner.get()) };
    }
}

/// How many hardware queues there are CPUs for, of at most `max`.
pub fn online_queues(max: u32) -> u32 {
    // SAFETY: it counts CPUs.
    unsafe { bindings::blk_mq_num_online_queues(max) }.max(1)
}
