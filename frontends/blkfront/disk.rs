// SPDX-License-Identifier: GPL-2.0

//! The disk as the block layer sees it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use block::mq::{Limits, Operations, Refused, Request};
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};
use kernel::uaccess::{UserPtr, UserSlice};
use ring_proto::xenbus::vbd::{Discard, Geometry};

use crate::link::{Agreement, Flush};
use crate::queue::Queue;

/// All queues of a disk. There are as many as at its first connection; a later backend may serve fewer rings, and then
/// several hardware queues share one.
pub(crate) struct Set {
    queues: KVec<Arc<Queue>>,
    /// How many of them have a ring.
    rings: AtomicU32,
    cdrom: AtomicBool,
}

impl Set {
    pub(crate) fn new(count: u32) -> Result<Arc<Self>> {
        let mut queues = KVec::new();
        for _ in 0..count {
            queues.push(Queue::new()?, GFP_KERNEL)?;
        }
        let set = Self { queues, rings: AtomicU32::new(count), cdrom: AtomicBool::new(false) };
        Ok(Arc::new(set, GFP_KERNEL)?)
    }

    pub(crate) fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    /// Only the first so many queues have a ring. While no request is submitted.
    pub(crate) fn use_rings(&self, count: u32) {
        self.rings.store(count.max(1), Ordering::Relaxed);
    }

    pub(crate) fn set_cdrom(&self, cdrom: bool) {
        self.cdrom.store(cdrom, Ordering::Relaxed);
    }
}

/// What the block layer calls.
pub(crate) struct Queues(pub(crate) Arc<Set>);

/// What one hardware queue is.
pub(crate) struct HardwareQueue {
    index: u32,
    set: Arc<Set>,
}

impl HardwareQueue {
    #[inline]
    fn queue(&self) -> Option<&Queue> {
        let rings = self.set.rings.load(Ordering::Relaxed);
        let ring = if self.index < rings { self.index } else { self.index % rings.max(1) };
        self.set.queues.get(ring as usize).map(|queue| &**queue)
    }
}

/// `CDROMMULTISESSION`: where the last session of a CD begins.
const MULTISESSION: u32 = 0x5310;
/// Bytes of its answer.
const MULTISESSION_LEN: usize = 8;
/// `CDROM_GET_CAPABILITY`: what a CD-ROM drive can do.
const GET_CAPABILITY: u32 = 0x5331;

impl Operations for Queues {
    type Queue = HardwareQueue;

    fn queue(&self, index: u32) -> Option<Arc<HardwareQueue>> {
        Arc::new(HardwareQueue { index, set: self.0.clone() }, GFP_KERNEL).ok()
    }

    #[inline]
    fn queue_rq(
        queue: ArcBorrow<'_, HardwareQueue>,
        request: Request<Self>,
        last: bool,
    ) -> Result<(), Refused<Self>> {
        match queue.queue() {
            Some(queue) => queue.submit(request, last),
            None => Err(Refused(request)),
        }
    }

    fn commit_rqs(queue: ArcBorrow<'_, HardwareQueue>) {
        if let Some(queue) = queue.queue() {
            queue.commit();
        }
    }

    /// As Linux' own frontend: programs ask every disk whether it is a CD.
    fn ioctl(&self, command: u32, argument: usize) -> Result<i32> {
        match command {
            MULTISESSION => {
                let answer = UserSlice::new(UserPtr::from_addr(argument), MULTISESSION_LEN);
                answer.writer().write_slice(&[0; MULTISESSION_LEN])?;
                Ok(0)
            }
            GET_CAPABILITY if self.0.cdrom.load(Ordering::Relaxed) => Ok(0),
            _ => Err(EINVAL),
        }
    }
}

/// What the block layer may ask of a disk.
pub(crate) fn limits(geometry: &Geometry, agreement: &Agreement) -> Limits {
    let logical = geometry.sector_size;
    // What the block layer needs as a power of two, and a backend may have otherwise, is left at the logical block.
    let physical = geometry.physical_sector_size;
    let physical = if physical.is_power_of_two() { physical } else { logical };
    Limits {
        logical_block: logical,
        physical_block: physical,
        segments: agreement.segments,
        write_cache: agreement.flush.is_some(),
        fua: agreement.flush == Some(Flush::Barrier),
        discard: geometry.discard.map(|discard| discards(&discard, logical)),
    }
}

fn discards(discard: &Discard, logical: u32) -> block::mq::Discard {
    let Discard { granularity, alignment, secure } = *discard;
    let legal = granularity.is_power_of_two() && granularity >= logical;
    let granularity = if legal { granularity } else { logical };
    block::mq::Discard {
        granularity,
        alignment: alignment.checked_rem(granularity).unwrap_or(0),
        secure,
    }
}
