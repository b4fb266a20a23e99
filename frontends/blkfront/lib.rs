// SPDX-License-Identifier: GPL-2.0

//! The block frontend: a disk of the block layer whose requests another domain serves.
//!
//! ```text
//!  block layer ── queue_rq ──▶ Queue ── Link ── ring ──▶ backend
//!       ▲                        │ ▲
//!       └── Batch ◀── finish ◀───┘ └── event ◀────────── backend
//!
//!  xenwatch ── Vbd: handshake, connection and reconnection, resize, removal
//! ```
//!
//! # Principles
//!
//! 1. **No answer is trusted.** One that was not asked for, came twice or names another operation ends the disk:
//!    everything fails, and the log says why, once.
//! 2. **Nothing that was acknowledged is lost, and nothing taken is forgotten.** When the backend goes and comes back,
//!    or the domain was moved, what was not answered is asked for anew, in its order.
//! 3. **Memory that a backend can touch is not given back.** A request ends when its pages are granted no more, or were
//!    never granted because its data is copied.
//! 4. **The data path allocates nothing.** A batch of requests is one publication and at most one doorbell; a batch of
//!    answers is one round through the tags.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | [`vbd`] | a disk's part of the handshake, and its life |
//! | [`disk`] | the disk as the block layer sees it |
//! | [`queue`] | one hardware queue: what it was given, what waits, and its answers |
//! | [`link`] | one queue's part of one connection: the ring, and the requests in it |
//! | [`task`] | a request of the block layer, and how far it is |
//! | [`pages`] | pages that the backend has grants of |
//! | [`breach`] | how a backend breaks the protocol |
//! | [`statistics`] | what a disk has done, in sysfs |
//! | [`minors`], [`options`] | minor numbers in use, parameters of the module |
#![forbid(unsafe_code)]

mod breach;
mod disk;
mod link;
mod minors;
mod options;
mod pages;
mod queue;
mod statistics;
mod task;
mod vbd;

use block::mq::Major;
use kernel::device::Core;
use kernel::prelude::*;
use ring_proto::xenbus::vbd::{keys, LINUX_MAJOR};
use ring_proto::xenbus::{End, State};
use xen::debugfs::{self, Folder};
use xen::place::{Filled, Place};
use xen::sysfs::AttributeGroup;
use xen::xenbus::{Device, Driver, Next, Registration};

use minors::Registry;
use vbd::{Cared, Vbd};

module! {
    type: Blkfront,
    name: "causeway_blkfront",
    authors: ["Causeway"],
    description: "Block frontend of Xen's split-driver model",
    license: "GPL",
    alias: ["xen:vbd", "xenblk", "block-major-202-*"],
}

/// Where debugfs has a file for each disk.
static VIEWS: Folder = Folder::new();

/// The numbers of all disks.
static REGISTRY: Place<Registry> = Place::new();

/// The module. Its disks go before the major number does.
#[pin_data]
struct Blkfront {
    #[pin]
    registration: Registration<Frontend>,
    _major: Major,
    _care: xen::workqueue::Open,
    _views: debugfs::Open,
    _registry: Filled<Registry>,
}

impl kernel::InPlaceModule for Blkfront {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: {
                if !xen::in_domain() || !xen::has_pv_disk_devices() {
                    Err(ENODEV)?;
                }
            },
            _registry: REGISTRY.fill(Registry::new()?)?,
            _views: VIEWS.open(c"causeway-blkfront")?,
            _care: vbd::CARE.open(c"causeway-blkfront")?,
            _major: Major::register(LINUX_MAJOR, c"xvd")?,
            registration <- Registration::new(c"causeway_blkfront", module),
        })
    }
}

/// The driver, and its data of one disk: the files go first.
struct Frontend {
    _statistics: AttributeGroup<Vbd>,
    _queues: debugfs::File<Vbd>,
    disk: Cared,
}

impl Frontend {
    fn new(device: &Device<Core<'_>>) -> Result<Self> {
        let own = device.directory()?;
        // The firmware's CD-ROM drive stays the firmware's.
        let kind = keys::DEVICE_TYPE.word(&mut &own).unwrap_or(Some("disk"));
        if xen::is_hvm() && kind == Some("cdrom") {
            return Err(ENODEV);
        }
        let registry = REGISTRY.get().ok_or(ENODEV)?;
        let disk = Cared::new(Vbd::new(device, registry)?)?;
        let statistics = AttributeGroup::new(device, disk.vbd().clone())?;
        let queues = debugfs::File::new(&VIEWS, device.as_ref().name(), disk.vbd().clone());
        Ok(Self { _statistics: statistics, _queues: queues, disk })
    }
}

impl Driver for Frontend {
    type Data<'bound> = Self;

    const END: End = End::Frontend;
    const NAME: &'static CStr = c"causeway-vbd";
    const DEVICE_TYPE: &'static CStr = c"vbd";

    fn probe<'bound>(
        device: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::new(device)
    }

    fn otherend_changed<'bound>(
        device: &'bound Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
        state: State,
    ) -> Next {
        this.disk.vbd().follow(device, state);
        Next::Stay
    }

    fn unbind<'bound>(device: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.disk.vbd().leave(device);
    }

    fn resume<'bound>(device: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) -> Result {
        this.disk.vbd().resume(device);
        Ok(())
    }

    fn is_ready<'bound>(_device: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) -> bool {
        this.disk.vbd().is_ready()
    }
}
