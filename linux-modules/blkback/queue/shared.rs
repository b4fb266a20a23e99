// SPDX-License-Identifier: GPL-2.0

//! What a queue's thread, its interrupt, the ends of its bios and the control of its device share.

use core::fmt::{self, Formatter};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use block::finished::Finished;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use ring_proto::blkif::{BackRing, Status, Tag};
use xen::event::{Eoi, Handler, Line};
use xen::map::MappedRing;
use xen::thread::{ticks, Parker, HZ};

use super::job::Job;
use crate::params;
use crate::statistics::Statistics;

/// See above.
#[pin_data]
pub(crate) struct Shared {
    /// The thread takes requests from it, and whoever ends one answers into it, each for a moment. `None` when the
    /// queue has ended.
    #[pin]
    pub(super) ring: SpinLockIrq<Option<BackRing<MappedRing>>>,
    pub(super) line: Arc<Line>,
    pub(super) parker: Arc<Parker>,
    /// Bios that are done, and not used again yet.
    pub(super) finished: Finished<Job>,
    /// The thread can do nothing before a bio is done.
    pub(super) waits: AtomicBool,
    /// The thread is giving requests to the disk, and looks at `held` afterwards.
    submitting: AtomicBool,
    /// There are answers in the ring that the frontend may not have been shown. The thread's own.
    held: AtomicBool,
    /// The queue is to finish what it took, and end.
    stop: AtomicBool,
    /// Its frontend does not wait for the end of what can be left undone.
    left: AtomicBool,
    /// The disk's limits are others than when the next request began to wait.
    relook: AtomicBool,
    /// It has ended.
    pub(super) ended: AtomicBool,
    /// It did so because the frontend broke the ring.
    pub(super) broken: AtomicBool,
    /// It is to look at what it could give back.
    pub(super) tidy: AtomicBool,
    /// It is to give its free pages back.
    squeezed: AtomicBool,
    /// No free pages are to be kept before this tick.
    squeeze_until: AtomicU64,
    pub(crate) statistics: Statistics,
}

impl Shared {
    pub(crate) fn new(
        ring: BackRing<MappedRing>,
        line: Arc<Line>,
        parker: Arc<Parker>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                ring <- new_spinlock_irq!(Some(ring), "blkback ring"),
                line,
                parker,
                finished: Finished::new(),
                waits: AtomicBool::new(false),
                submitting: AtomicBool::new(false),
                held: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                left: AtomicBool::new(false),
                relook: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                broken: AtomicBool::new(false),
                tidy: AtomicBool::new(false),
                squeezed: AtomicBool::new(false),
                squeeze_until: AtomicU64::new(0),
                statistics: Statistics::default(),
            }),
            GFP_KERNEL,
        )
    }

    /// Answers a request. In any context. What the thread itself ends while it gives this or other requests to the disk
    /// it will [`show`](Self::show) together, unless this one is not to wait for that.
    pub(super) fn answer(&self, tag: Tag, status: Status, at_once: bool) {
        let hold = !at_once && self.submitting.load(Ordering::Relaxed) && self.parker.is_own();
        let notify = {
            let mut ring = self.ring.lock();
            let Some(ring) = &mut *ring else { return };
            // Each request that was taken is answered once, so there is room.
            let _ = ring.push(tag, status);
            !hold && ring.publish()
        };
        if hold {
            self.held.store(true, Ordering::Relaxed);
        } else if notify {
            self.line.notify();
        }
    }

    /// The thread begins, or has ended, to give requests to the disk. It [shows](Self::show) what was held then.
    pub(super) fn submitting(&self, begins: bool) {
        self.submitting.store(begins, Ordering::Relaxed);
    }

    /// Shows the frontend these answers and those held, and rings if it asked for that. By the thread.
    pub(super) fn show(&self, answers: &mut KVec<(Tag, Status)>) {
        let held = self.held.load(Ordering::Relaxed);
        if answers.is_empty() && !held {
            return;
        }
        self.held.store(false, Ordering::Relaxed);
        let notify = {
            let mut ring = self.ring.lock();
            let Some(ring) = &mut *ring else { return };
            for (tag, status) in answers.drain_all() {
                // As above.
                let _ = ring.push(tag, status);
            }
            ring.publish()
        };
        if notify {
            self.line.notify();
        }
    }

    /// How it stands, in a line.
    pub(crate) fn view(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let ring = self.ring.lock().as_ref().map(BackRing::view);
        match ring {
            Some(ring) => write!(out, "{ring}")?,
            None => out.write_str("ended")?,
        }
        match self.line.port() {
            Some(port) => write!(out, ", port {port}")?,
            None => out.write_str(", no port")?,
        }
        for (set, what) in [
            (&self.waits, "waits for the disk"),
            (&self.stop, "is to end"),
            (&self.broken, "the frontend broke the ring"),
        ] {
            if set.load(Ordering::Relaxed) {
                write!(out, ", {what}")?;
            }
        }
        out.write_str("\n")
    }

    /// Tells the queue to end. If its frontend has left, what remains of long discards is not done.
    pub(crate) fn stop(&self, left: bool) {
        self.left.fetch_or(left, Ordering::Relaxed);
        self.stop.store(true, Ordering::Release);
        self.parker.wake();
    }

    pub(super) fn left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether the queue has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it ended because the frontend broke the ring.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Makes the queue give back what it has not used for long.
    pub(crate) fn tidy(&self) {
        self.tidy.store(true, Ordering::Relaxed);
        self.parker.wake();
    }

    /// Makes the queue give its free pages back, and keep none for a while.
    pub(crate) fn squeeze(&self) {
        let time = u64::from(params::buffer_squeeze_duration_ms()).saturating_mul(HZ) / 1000;
        self.squeeze_until.store(ticks().saturating_add(time), Ordering::Relaxed);
        self.squeezed.store(true, Ordering::Release);
        self.parker.wake();
    }

    /// Whether the queue is to keep no free pages at this tick. True once, however late, after it was told.
    pub(super) fn take_squeeze(&self, now: u64) -> bool {
        let told = self.squeezed.load(Ordering::Relaxed) && self.squeezed.swap(false, Ordering::Acquire);
        told || now < self.squeeze_until.load(Ordering::Relaxed)
    }

    /// Makes the queue look at the disk's limits again.
    pub(crate) fn relook(&self) {
        self.relook.store(true, Ordering::Release);
        self.parker.wake();
    }

    /// Whether it is to, once.
    pub(super) fn take_relook(&self) -> bool {
        self.relook.load(Ordering::Relaxed) && self.relook.swap(false, Ordering::Acquire)
    }
}

impl Handler for Shared {
    fn event(&self, eoi: Eoi<'_>) {
        eoi.defer();
        self.parker.wake();
    }
}
