// SPDX-License-Identifier: GPL-2.0

//! Work that is done later by a thread of the kernel, and never after its owner is gone.
//!
//! The `kernel` crate's work items keep themselves alive and cannot be waited for, so a module could be gone before its
//! work is.

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

use crate::workqueue::{Raw as _, WorkQueue};

/// What there is to be done.
pub trait Work: Send + Sync + 'static {
    /// Does it. May sleep. Never runs twice at the same time for one [`Worker`].
    fn work(&self);
}

/// Asks for the work to be done. It may outlive the [`Worker`]: then it asks for nothing.
#[repr(C)]
#[pin_data]
pub struct Request<W: Work> {
    // First, so that a pointer to it is one to the whole.
    #[pin]
    raw: Opaque<bindings::delayed_work>,
    queue: Option<&'static WorkQueue>,
    work: Arc<W>,
}

// SAFETY: A work item may be queued from any thread; what it calls is `Send` and `Sync`.
unsafe impl<W: Work> Send for Request<W> {}
// SAFETY: As above.
unsafe impl<W: Work> Sync for Request<W> {}

impl<W: Work> Request<W> {
    /// Has it done soon, once, however often it was asked for before it began. In any context.
    pub fn now(&self) {
        self.after(0);
    }

    /// Has it done in so many milliseconds, instead of any time asked for before. In any context.
    pub fn after(&self, milliseconds: u32) {
        let ask = |queue| {
            // SAFETY: It was initialised by `Worker::new`; once its worker is gone, it is disabled. The queue is one, or
            // null.
            unsafe { sys::causeway_queue_work(queue, self.raw.get(), milliseconds) }
        };
        match self.queue {
            Some(queue) => drop(queue.with(|queue| ask(queue.as_raw()))),
            None => ask(core::ptr::null_mut()),
        }
    }
}

/// The owner of some work. When it is dropped, the work is not running, and does not begin any more. That may sleep, and
/// must not happen in the work itself.
pub struct Worker<W: Work>(Arc<Request<W>>);

impl<W: Work> Worker<W> {
    /// Work that nobody has asked for yet. It is done by a thread of `queue`, which there always is; or by one of the
    /// system's, which may have to be made when memory is short.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn new(work: Arc<W>, queue: Option<&'static WorkQueue>) -> Result<Self> {
        let raw = Opaque::ffi_init(|raw| {
            // SAFETY: `raw` is memory for a work item, which does not move any more.
            unsafe { sys::causeway_init_work(raw, Some(run::<W>)) }
        });
        Ok(Self(Arc::pin_init(pin_init!(Request { raw <- raw, queue, work }), GFP_KERNEL)?))
    }

    /// To ask for it with.
    pub fn request(&self) -> &Arc<Request<W>> {
        &self.0
    }
}

impl<W: Work> Drop for Worker<W> {
    fn drop(&mut self) {
        // SAFETY: It was initialised by `new`. Afterwards it is idle for ever.
        unsafe { bindings::disable_delayed_work_sync(self.0.raw.get()) };
    }
}

/// # Safety
///
/// Called for the work item in a `Request<W>`, which its worker keeps.
unsafe extern "C" fn run<W: Work>(work: *mut bindings::work_struct) {
    // SAFETY: The work item is the first field of a delayed one, and that of `Request`.
    let request = unsafe { &*work.cast::<Request<W>>() };
    request.work.work();
}
