// SPDX-License-Identifier: GPL-2.0

//! The block backend: serves block devices of this domain to frontends of others.
//!
//! ```text
//!           xenstore                                          frontend's rings           disk
//!              │                                                     │                    │
//!   bus, watches ─▶ vbd: one work item ── starts and stops ──▶ queue: take ─▶ stage ─▶ submit
//!                   (handshake, disk, size, limits)            (one thread each)     ◀─ answer
//! ```
//!
//! # Principles
//!
//! 1. **A request costs one hand-off**, from its event to its queue's thread. Its end costs none.
//! 2. **A queue owns all that it touches.** Nothing is allocated for a request. The only lock on the data path is that
//!    of the ring, held for the copying of slots: requests are taken by the thread, answers given wherever bios end.
//! 3. **Who has a page, has it.** A mapped page is moved into a bio, and from there back: into the table of those that
//!    stay mapped, or into the batch of those to be unmapped. There is no count to get wrong.
//! 4. **The frontend is hostile.** What it writes is copied once and judged by `ring_proto`. A broken ring ends that
//!    device's connection and nothing else.
//! 5. **Nothing waits in xenwatch**, the one thread of all devices' watches.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | `driver` | what the bus calls |
//! | `vbd` | a device: its handshake, and the work that follows |
//! | `allowance` | what a frontend may make this domain do for nothing |
//! | `unfinished` | devices that are gone, and have not ended |
//! | `connection` | the start and end of its queues |
//! | `disk` | the block device that is served, its geometry and limits |
//! | `queue` | the data path |
//! | `statistics`, `attributes`, `params` | what can be read, and what can be set |
#![forbid(unsafe_code)]

mod allowance;
mod attributes;
mod connection;
mod disk;
mod driver;
mod params;
mod queue;
mod statistics;
mod unfinished;
mod vbd;

use core::sync::atomic::Ordering;

use kernel::driver::Registration;
use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta};
use xen::xenbus::Adapter;

module! {
    type: Module,
    name: "causeway_blkback",
    authors: ["Causeway"],
    description: "Block backend of Xen's split-driver model",
    license: "GPL",
    alias: ["xen-backend:vbd"],
}

/// Fields are dropped in order: first no device is found any more, then the last of them ends, then their work.
#[pin_data]
struct Module {
    #[pin]
    registration: Registration<Adapter<driver::Driver>>,
    devices: Devices,
    work: xen::workqueue::Open,
    views: xen::debugfs::Open,
}

/// Waits for the end of all devices: of those that the driver let go of, some may not have finished what they took.
struct Devices;

impl Drop for Devices {
    fn drop(&mut self) {
        while vbd::DEVICES.load(Ordering::Acquire) > 0 {
            fsleep(Delta::from_millis(2));
        }
    }
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: { if !xen::in_domain() { return Err(ENODEV); } params::settle(); },
            work: vbd::WORK.open(c"causeway-blkback")?,
            views: attributes::VIEWS.open(c"causeway-blkback")?,
            devices: Devices,
            registration <- Registration::new(c"causeway-vbd", module),
        })
    }
}
