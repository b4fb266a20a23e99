// SPDX-License-Identifier: GPL-2.0

//! What a driver does, and the table of functions by which the block layer calls it.

use core::marker::PhantomData;

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};
use kernel::types::ForeignOwnable;

use super::Request;

/// A request that the driver cannot take now. The block layer offers it again, soon after another request of the queue
/// ended, or after some milliseconds if there is none.
pub struct Refused<T: Operations>(pub Request<T>);

/// A driver, implemented by its data of one disk.
pub trait Operations: Send + Sync + Sized + 'static {
    /// The driver's data of one hardware queue.
    type Queue: Send + Sync + 'static;

    /// The data of the hardware queue with this number. `None` fails the making of the disk.
    fn queue(&self, index: u32) -> Option<Arc<Self::Queue>>;

    /// Takes a request. If `last` is false, more follow at once, or [`commit_rqs`](Self::commit_rqs).
    ///
    /// Must not sleep. A driver that wants to fail the request ends it and returns `Ok`.
    fn queue_rq(
        queue: ArcBorrow<'_, Self::Queue>,
        request: Request<Self>,
        last: bool,
    ) -> Result<(), Refused<Self>>;

    /// What was taken with `last` being false has to go now: nothing follows after all.
    fn commit_rqs(queue: ArcBorrow<'_, Self::Queue>);

    /// Control operations of the device node. `argument` is a value or an address in user space.
    fn ioctl(&self, _command: u32, _argument: usize) -> Result<i32> {
        Err(ENOTTY)
    }
}

/// The table for [`Operations`] `T`.
pub(super) struct Table<T>(PhantomData<T>);

impl<T: Operations> Table<T> {
    /// # Safety
    ///
    /// Called by blk-mq: `hctx` is initialised by [`init_hctx`](Self::init_hctx), `data` is readable, and its request
    /// belongs to the driver from now on.
    unsafe extern "C" fn queue_rq(
        hctx: *mut bindings::blk_mq_hw_ctx,
        data: *const bindings::blk_mq_queue_data,
    ) -> bindings::blk_status_t {
        // SAFETY: `data` is readable by the contract of this function.
        let (rq, last) = unsafe { ((*data).rq, (*data).last) };
        // SAFETY: `hctx` is initialised, so `driver_data` came of `Arc::into_foreign` and lives as long as it.
        let queue = unsafe { Arc::<T::Queue>::borrow((*hctx).driver_data) };
        // SAFETY: the request was just given to the driver, which has not begun with it.
        unsafe { bindings::blk_mq_start_request(rq) };
        // SAFETY: it belongs to the driver, and this is the only owner that is made of it.
        let request = unsafe { Request::from_raw(rq) };
        match T::queue_rq(queue, request, last) {
            Ok(()) => bindings::BLK_STS_OK as bindings::blk_status_t,
            Err(Refused(request)) if request.as_ptr() == rq => {
                // It goes back to the block layer by the status.
                core::mem::forget(request);
                sys::CAUSEWAY_STS_RESOURCE as bindings::blk_status_t
            }
            // Another request than was offered: the one offered is kept somewhere, and this one ends by being dropped.
            Err(Refused(_)) => bindings::BLK_STS_OK as bindings::blk_status_t,
        }
    }

    /// # Safety
    ///
    /// Called by blk-mq with an initialised `hctx`.
    unsafe extern "C" fn commit_rqs(hctx: *mut bindings::blk_mq_hw_ctx) {
        // SAFETY: as in `queue_rq`.
        let queue = unsafe { Arc::<T::Queue>::borrow((*hctx).driver_data) };
        T::commit_rqs(queue);
    }

    /// # Safety
    ///
    /// Called by blk-mq for a tag set whose `driver_data` is the `T` that [`TagSet`](super::TagSet) owns.
    unsafe extern "C" fn init_hctx(
        hctx: *mut bindings::blk_mq_hw_ctx,
        data: *mut kernel::ffi::c_void,
        index: kernel::ffi::c_uint,
    ) -> kernel::ffi::c_int {
        // SAFETY: `data` is the tag set's `driver_data`, alive as long as the tag set.
        let data = unsafe { &*data.cast::<T>() };
        match data.queue(index) {
            Some(queue) => {
                // SAFETY: `hctx` is being set up and nobody else uses it.
                unsafe { (*hctx).driver_data = queue.into_foreign() };
                0
            }
            None => EINVAL.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by blk-mq once for each `hctx` that [`init_hctx`](Self::init_hctx) initialised.
    unsafe extern "C" fn exit_hctx(
        hctx: *mut bindings::blk_mq_hw_ctx,
        _index: kernel::ffi::c_uint,
    ) {
        // SAFETY: it came of `into_foreign` in `init_hctx`, and no request of this queue is under way any more.
        drop(unsafe { Arc::<T::Queue>::from_foreign((*hctx).driver_data) });
    }

    const TABLE: bindings::blk_mq_ops = bindings::blk_mq_ops {
        queue_rq: Some(Self::queue_rq),
        commit_rqs: Some(Self::commit_rqs),
        init_hctx: Some(Self::init_hctx),
        exit_hctx: Some(Self::exit_hctx),
        ..pin_init::zeroed()
    };

    pub(super) const fn get() -> &'static bindings::blk_mq_ops {
        &Self::TABLE
    }
}
