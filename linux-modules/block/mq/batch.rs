// SPDX-License-Identifier: GPL-2.0

//! Requests that end together.

use core::marker::PhantomData;

use kernel::bindings;

use super::{Operations, Request, Status};

/// Ends requests, those that can be ended together with one round through the tags. They have ended when the batch is
/// dropped, at the latest; what [`Request::end`] says of locks holds for both.
pub struct Batch<T> {
    batch: bindings::io_comp_batch,
    // A batch belongs to whoever fills it, on the stack.
    not_send: PhantomData<(*mut (), T)>,
}

impl<T: Operations> Batch<T> {
    /// An empty batch.
    pub fn new() -> Self {
        Self { batch: pin_init::zeroed(), not_send: PhantomData }
    }

    /// Ends a request, now or with the batch.
    #[inline]
    pub fn end(&mut self, request: Request<T>, status: Status) {
        let rq = request.into_raw();
        // SAFETY: the request is the driver's to end, and its owner is gone. One that was not added to the batch was
        // not touched.
        unsafe {
            if !sys::causeway_add_to_batch(rq, &mut self.batch, status != Status::OK) {
                bindings::blk_mq_end_request(rq, status.raw());
            }
        }
    }

    /// Ends those that are left.
    pub fn flush(&mut self) {
        if self.batch.complete.is_some() {
            // SAFETY: the batch holds requests that `end` added and that were not ended yet.
            unsafe { bindings::blk_mq_end_request_batch(&mut self.batch) };
            self.batch = pin_init::zeroed();
        }
    }
}

impl<T: Operations> Default for Batch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Batch<T> {
    fn drop(&mut self) {
        if self.batch.complete.is_some() {
            // SAFETY: as in `flush`.
            unsafe { bindings::blk_mq_end_request_batch(&mut self.batch) };
        }
    }
}
