// SPDX-License-Identifier: GPL-2.0

//! What is done for a disk beside the handshake, by threads that may sleep, and how that ends.
//!
//! The carer is the one who fails what a backend does not answer, so it never waits for a request itself: whoever has
//! to wait is helped by it.

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{delay::fsleep, Delta};
use xen::work::{self, Worker};
use xen::workqueue::WorkQueue;

use super::{Vbd, PATIENCE, RETRY, TRIM};
use block::NoIo;

/// Where carers work.
pub(crate) static CARE: WorkQueue = WorkQueue::new();

impl work::Work for Vbd {
    /// Sees to what happened in interrupts, and to what has to be done from time to time.
    fn work(&self) {
        let _scope = NoIo::begin();
        let mut control = self.control.lock();
        let Some(alarm) = control.alarm.clone() else { return };
        // First: what happens from now on has its say later, and sooner than this.
        if !control.dead {
            alarm.after(TRIM);
        }
        control.hear(self);
        for queue in control.queues() {
            queue.poll();
            queue.trim();
        }
        control.lose_patience(self);
        let stuck = control.release();
        let held = control.free_remains();
        let unset = control.adapt(self);
        let waiting = control.dead && !control.is_idle();
        if stuck || held || unset || waiting {
            alarm.after(RETRY);
        }
        let disk = control.take_dead();
        drop(control);
        if let Some(disk) = disk {
            disk.mark_dead();
        }
    }
}

/// Shows a disk to everybody. Its partitions are read meanwhile, which takes as long as its backend likes, so nobody
/// else waits for it.
pub(crate) struct Adder(Arc<Vbd>);

impl work::Work for Adder {
    fn work(&self) {
        let vbd = &self.0;
        let disk = {
            let control = vbd.control.lock();
            let Some(disk) = control.disk.clone().filter(|_| !control.dead) else { return };
            disk
        };
        let result = disk.add(vbd.device.as_ref());
        let mut control = vbd.control.lock();
        match result {
            Ok(()) => {
                control.added = true;
                if let (true, Some(alarm)) = (control.dead, &control.alarm) {
                    alarm.now();
                }
            }
            Err(error) => {
                vbd.device.fatal(error, format_args!("adding the disk"));
                control.fail();
                control.enter_closing();
            }
        }
    }
}

/// A disk, and those who work for it. They end with it, in an order in which each is helped by those who are left.
pub(crate) struct Cared {
    vbd: Arc<Vbd>,
    adder: Option<Worker<Adder>>,
    carer: Option<Worker<Vbd>>,
}

impl Cared {
    /// # Errors
    ///
    /// When there is no memory.
    pub(crate) fn new(vbd: Arc<Vbd>) -> Result<Self> {
        let adder = Worker::new(Arc::new(Adder(vbd.clone()), GFP_KERNEL)?, None)?;
        // Requests wait for it, and memory may wait for requests.
        let carer = Worker::new(vbd.clone(), Some(&CARE))?;
        {
            let mut control = vbd.control.lock();
            control.alarm = Some(carer.request().clone());
            control.adder = Some(adder.request().clone());
        }
        Ok(Self { vbd, adder: Some(adder), carer: Some(carer) })
    }

    pub(crate) fn vbd(&self) -> &Arc<Vbd> {
        &self.vbd
    }
}

impl Drop for Cared {
    fn drop(&mut self) {
        self.vbd.remove();
        // Nobody but this looks after stuck requests from now on.
        self.carer = None;
        for _ in 0..PATIENCE {
            if !self.vbd.control.lock().release() {
                // All requests have ended: nobody waits for any.
                self.adder = None;
                let disk = self.vbd.control.lock().take_dead();
                if let Some(disk) = disk {
                    disk.mark_dead();
                }
                return;
            }
            fsleep(Delta::from_millis(RETRY.into()));
        }
        // The pages of these requests belong to others, who would use them for something else once they have ended. The
        // adder may wait for one of them.
        core::mem::forget(self.adder.take());
        let (disk, minors) = self.vbd.control.lock().give_up();
        if let Some(disk) = disk {
            self.vbd.device.error(
                EBUSY,
                format_args!("the backend does not let go of memory: the disk stays"),
            );
            disk.abandon();
        }
        // Another disk cannot have the numbers of one that stays.
        if let Some(minors) = minors {
            minors.keep();
        }
    }
}
