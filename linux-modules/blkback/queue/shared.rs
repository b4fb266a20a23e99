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

/// With so many requests under way besides, a doorbell may wait for their answers. With fewer, waking the thread for it
/// would cost more than it saves.
const MANY: u32 = 4;

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
    /// The thread sleeps, or has just been woken.
    sleeps: AtomicBool,
    /// The frontend asked for the doorbell, and it was not rung yet.
    owed: AtomicBool,
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
                sleeps: AtomicBool::new(false),
                owed: AtomicBool::new(false),
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

    /// Answers a request whose bio has ended. In any context.
    ///
    /// If the frontend asked for the doorbell at this answer, the doorbell may wait for the answers that follow soon: of
    /// what the thread itself ends while it submits, until all is submitted; with others under way while the thread
    /// sleeps, until it runs, or until the last of them is done. So the frontend is not woken for each.
    pub(super) fn answer(&self, tag: Tag, status: Status, large: bool) {
        let (asked, others) = {
            let mut ring = self.ring.lock();
            let Some(ring) = &mut *ring else { return };
            // Each request that was taken is answered once, so there is room.
            let _ = ring.push(tag, status);
            (ring.publish(), ring.unanswered())
        };
        if asked {
            // In this order: the thread has its own look at it, or is seen to sleep below.
            self.owed.swap(true, Ordering::SeqCst);
        } else if !self.owed.load(Ordering::Relaxed) {
            return;
        }
        if self.parker.is_own() {
            if large {
                self.ring_owed();
            }
        } else if !self.sleeps.load(Ordering::Relaxed) || others < if asked { MANY } else { 1 } {
            // A thread that does not sleep in its parker may sleep in the disk's queue, and not come to ring.
            self.ring_owed();
        } else if asked {
            self.parker.wake();
        }
    }

    /// Shows the frontend these answers. The doorbell is [owed](Self::ring_owed) then, if it asked for that.
    pub(super) fn show(&self, answers: &mut KVec<(Tag, Status)>) {
        let asked = {
            let mut ring = self.ring.lock();
            let Some(ring) = &mut *ring else { return };
            for (tag, status) in answers.drain_all() {
                // As above.
                let _ = ring.push(tag, status);
            }
            ring.publish()
        };
        if asked {
            self.owed.store(true, Ordering::Release);
        }
    }

    /// Rings the doorbell that the frontend asked for, if nobody has.
    pub(super) fn ring_owed(&self) {
        if self.owed.load(Ordering::Relaxed) && self.owed.swap(false, Ordering::AcqRel) {
            self.line.notify();
        }
    }

    /// Sleeps until woken, or until a moment. By the thread, which looks at what is owed afterwards.
    pub(super) fn sleep(&self, until: Option<u64>) {
        self.ring_owed();
        self.sleeps.store(true, Ordering::Relaxed);
        self.parker.park(until);
        self.sleeps.store(false, Ordering::Relaxed);
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
        let told =
            self.squeezed.load(Ordering::Relaxed) && self.squeezed.swap(false, Ordering::Acquire);
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
