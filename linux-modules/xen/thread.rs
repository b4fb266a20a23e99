// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that sleep until somebody has something for them.
//!
//! C headers: `include/linux/kthread.h`, `include/linux/sched.h`.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::{Arc, SetOnce};

/// A reference to a task.
struct Task(NonNull<bindings::task_struct>);

// SAFETY: References to a task may be held and put by anyone.
unsafe impl Send for Task {}
// SAFETY: A task may be woken by anyone.
unsafe impl Sync for Task {}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: Whoever made `self` got a reference for it.
        unsafe { sys::causeway_put_task(self.0.as_ptr()) };
    }
}

/// Where a thread sleeps, and is woken. A wake-up while it is awake is not lost: the next sleep ends at once.
pub struct Parker {
    woken: AtomicU32,
    task: SetOnce<Task>,
}

impl Parker {
    /// One that no thread has yet.
    pub fn new() -> Self {
        Self { woken: AtomicU32::new(0), task: SetOnce::new() }
    }

    /// Wakes the thread. In any context.
    #[inline]
    pub fn wake(&self) {
        if self.woken.swap(1, Ordering::AcqRel) != 0 {
            return;
        }
        if let Some(task) = self.task.as_ref() {
            // SAFETY: `task` is a reference to it.
            unsafe { bindings::wake_up_process(task.0.as_ptr()) };
        }
    }

    /// Forgets wake-ups so far: what they were about, the thread is about to look at. Returns whether there was one.
    #[inline]
    pub fn clear(&self) -> bool {
        self.woken.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether the caller is the thread that sleeps here. An interrupt of it is not.
    #[inline]
    pub fn is_own(&self) -> bool {
        // SAFETY: `task` is a reference to it.
        self.task.as_ref().is_some_and(|task| unsafe { sys::causeway_runs(task.0.as_ptr()) })
    }

    /// Sleeps until woken, or until a moment of [`now`]. To be called by the thread itself.
    pub fn park(&self, until: Option<u64>) {
        // A moment that the kernel's signed clock does not know never comes.
        let until = until.filter(|&until| until <= i64::MAX as u64);
        // SAFETY: The word lives as long as `self`.
        unsafe { sys::causeway_park(self.woken.as_ptr(), until.unwrap_or(u64::MAX)) };
    }
}

impl Default for Parker {
    fn default() -> Self {
        Self::new()
    }
}

/// Nanoseconds of the monotonic clock.
#[inline]
pub fn now() -> u64 {
    // SAFETY: May be called by anyone at any time.
    unsafe { bindings::ktime_get() as u64 }
}

/// What a thread does.
pub trait Body: Send + 'static {
    /// Where it sleeps.
    fn parker(&self) -> &Arc<Parker>;

    /// All of it. The thread ends when this returns; who is to make it return is told by its own means.
    fn run(self);
}

/// A thread. Dropping it waits for the thread's end.
pub struct Thread {
    task: Task,
    /// What the thread was given, for as long as it has not begun.
    body: NonNull<c_void>,
    /// Drops that.
    drop_body: unsafe fn(NonNull<c_void>),
}

// SAFETY: A body may be dropped by any thread, and is not reached through a shared reference.
unsafe impl Send for Thread {}
// SAFETY: As above.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread. `name` is what `ps` shows, of which it keeps 15 bytes.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn start<B: Body>(name: &CStr, body: B) -> Result<Self> {
        let parker = body.parker().clone();
        let body = NonNull::from(KBox::leak(KBox::new(body, GFP_KERNEL)?)).cast();
        // SAFETY: `main` is given the box that it expects; the name is a C string.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(Self::main::<B>),
                body.as_ptr(),
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        let task = match task.and_then(|task| NonNull::new(task).ok_or(ENOMEM)) {
            Ok(task) => task,
            Err(error) => {
                // SAFETY: No thread got it.
                unsafe { Self::drop_body::<B>(body) };
                return Err(error);
            }
        };
        // SAFETY: The thread was made, and stays until it was stopped.
        unsafe {
            sys::causeway_get_task(task.as_ptr());
            sys::causeway_get_task(task.as_ptr());
        }
        // It is set once: a parker belongs to one body.
        parker.task.populate(Task(task));
        let thread = Self { task: Task(task), body, drop_body: Self::drop_body::<B> };
        // SAFETY: As above.
        unsafe { bindings::wake_up_process(task.as_ptr()) };
        Ok(thread)
    }

    /// # Safety
    ///
    /// To be called by the kernel, as the thread that [`start`](Self::start) made with this box.
    unsafe extern "C" fn main<B: Body>(body: *mut c_void) -> core::ffi::c_int {
        // SAFETY: By the contract of this function.
        let body = unsafe { KBox::from_raw(body.cast::<B>()) };
        KBox::into_inner(body).run();
        // It may not be gone before `kthread_stop` was called for it, which then returns what this returns.
        // SAFETY: This is a kernel thread.
        unsafe { sys::causeway_await_stop() };
        0
    }
}

impl Thread {
    /// # Safety
    ///
    /// `body` is a box of this type, which nobody else has.
    unsafe fn drop_body<B: Body>(body: NonNull<c_void>) {
        // SAFETY: By the contract of this function.
        drop(unsafe { KBox::from_raw(body.cast::<B>().as_ptr()) });
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The thread does not end before this.
        let result = unsafe { bindings::kthread_stop(self.task.0.as_ptr()) };
        // A thread that is stopped before it ran for the first time never calls its function: a peer that comes and
        // goes fast enough makes that happen (XSA-350), and what the body holds has to be given back all the same.
        if result == -(bindings::EINTR as i32) {
            // SAFETY: `main`, which takes the body, was not called: it would have returned 0. `drop_body` is that of
            // the body's type.
            unsafe { (self.drop_body)(self.body) };
        }
    }
}

/// The kernel's coarse clock, which costs nothing to read: its ticks since boot, [`HZ`] of them a second.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: May be called by anyone at any time.
    unsafe { sys::causeway_ticks() }
}

/// Ticks a second. `bindings::HZ` is that of user space, of which the header for the kernel makes another, and bindgen
/// takes the first that it sees.
pub const HZ: u64 = bindings::CONFIG_HZ as u64;

/// Lets others run, if they have waited long enough. For a thread that goes on and on.
#[inline]
pub fn yield_if_needed() {
    // SAFETY: The callers of this are threads, in code that may sleep.
    unsafe { sys::causeway_cond_resched() };
}

/// How many CPUs can run threads now.
pub fn online_cpus() -> u32 {
    // SAFETY: Reads a number.
    unsafe { sys::causeway_online_cpus() }
}
