// SPDX-License-Identifier: GPL-2.0

//! A workqueue of a module's own.
//!
//! What a module leaves to the system's workqueues may still run when the module is unloaded. Its own is emptied first.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::workqueue::Queue;

/// The kernel's own form of a workqueue.
pub(crate) trait Raw {
    fn as_raw(&self) -> *mut bindings::workqueue_struct;
}

impl Raw for Queue {
    fn as_raw(&self) -> *mut bindings::workqueue_struct {
        // It is nothing but that.
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Where a module has its workqueue: a static.
pub struct WorkQueue(AtomicPtr<bindings::workqueue_struct>);

/// The workqueue is there as long as this lives. When it is dropped, all work that was queued has been done.
pub struct Open(&'static WorkQueue);

impl WorkQueue {
    /// A place without a workqueue.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Makes it, for work that may sleep for long, on any CPU. It has a thread even when there is no memory to make one.
    ///
    /// # Errors
    ///
    /// When there is one already, or no memory.
    pub fn open(&'static self, name: &CStr) -> Result<Open> {
        // SAFETY: The name is copied by the format.
        let queue = unsafe { sys::causeway_alloc_workqueue(name.as_char_ptr()) };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        if self.0.compare_exchange(null_mut(), queue, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            // SAFETY: It was made above, and nobody knows it.
            unsafe { bindings::destroy_workqueue(queue) };
            return Err(EBUSY);
        }
        Ok(Open(self))
    }

    /// Does something with the workqueue, which must not sleep; `None` when it is not [open](Self::open).
    pub fn with<R>(&self, work: impl FnOnce(&Queue) -> R) -> Option<R> {
        let _reader = rcu::read_lock();
        let queue = self.0.load(Ordering::Acquire);
        if queue.is_null() {
            return None;
        }
        // SAFETY: `Open` waits for readers before it destroys the queue.
        Some(work(unsafe { Queue::from_raw(queue) }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let queue = self.0 .0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: It is that of `open`, and nobody finds it any more once all readers are gone. This waits until all
        // work is done.
        unsafe {
            bindings::synchronize_rcu();
            bindings::destroy_workqueue(queue);
        }
    }
}
