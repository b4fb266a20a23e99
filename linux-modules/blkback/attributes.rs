// SPDX-License-Identifier: GPL-2.0

//! What sysfs shows of a device, in the files that Linux's driver has; and, in debugfs, how its queues stand.

use core::fmt;

use block::bdev::DeviceNumber;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use xen::debugfs::{self, Folder, View};
use xen::sysfs::{AttributeGroup, Attributes};
use xen::xenbus::Device;

use crate::queue::Shared;
use crate::statistics::{Counter, Statistics};

/// The queues of a device whose statistics are shown, which come and go.
#[pin_data]
pub(crate) struct Counted {
    #[pin]
    queues: Mutex<KVec<Arc<Shared>>>,
}

impl Counted {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { queues <- new_mutex!(KVec::new(), "blkback statistics") }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn add(&self, queue: Arc<Shared>) -> Result {
        Ok(self.queues.lock().push(queue, GFP_KERNEL)?)
    }

    pub(crate) fn clear(&self) {
        self.queues.lock().clear();
    }

    fn sum(&self, of: impl Fn(&Statistics) -> &Counter) -> u64 {
        let add = |sum: u64, queue: &Arc<Shared>| sum.wrapping_add(of(&queue.statistics).get());
        self.queues.lock().iter().fold(0, add)
    }
}

impl Attributes for Counted {
    const GROUP: Option<&'static CStr> = Some(c"statistics");

    const NAMES: &'static [&'static CStr] = &[
        c"oo_req",
        c"rd_req",
        c"wr_req",
        c"f_req",
        c"ds_req",
        c"rd_sect",
        c"wr_sect",
        // Those that follow are not Linux's.
        c"refused",
        c"throttled",
        c"persistent_grants",
        c"mapped_grants",
        c"free_pages",
    ];

    fn show(&self, index: usize, out: &mut dyn fmt::Write) -> fmt::Result {
        let sum = match index {
            0 => self.sum(|queue| &queue.oo_req),
            1 => self.sum(|queue| &queue.rd_req),
            2 => self.sum(|queue| &queue.wr_req),
            3 => self.sum(|queue| &queue.f_req),
            4 => self.sum(|queue| &queue.ds_req),
            5 => self.sum(|queue| &queue.rd_sect),
            6 => self.sum(|queue| &queue.wr_sect),
            7 => self.sum(|queue| &queue.refused),
            8 => self.sum(|queue| &queue.throttled),
            9 => self.sum(|queue| &queue.persistent),
            10 => self.sum(|queue| &queue.mapped),
            11 => self.sum(|queue| &queue.free),
            _ => return Err(fmt::Error),
        };
        writeln!(out, "{sum}")
    }
}

impl View for Counted {
    fn view(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, queue) in self.queues.lock().iter().enumerate() {
            write!(out, "queue {number}: ")?;
            queue.view(out)?;
        }
        Ok(())
    }
}

/// Where debugfs has a file for each device.
pub(crate) static VIEWS: Folder = Folder::new();

/// Which block device it is, and how it may be used.
pub(crate) struct Opened {
    pub(crate) number: DeviceNumber,
    pub(crate) read_only: bool,
}

impl Attributes for Opened {
    const GROUP: Option<&'static CStr> = None;

    const NAMES: &'static [&'static CStr] = &[c"physical_device", c"mode"];

    fn show(&self, index: usize, out: &mut dyn fmt::Write) -> fmt::Result {
        match index {
            0 => writeln!(out, "{:x}:{:x}", self.number.major(), self.number.minor()),
            1 => writeln!(out, "{}", if self.read_only { 'r' } else { 'w' }),
            _ => Err(fmt::Error),
        }
    }
}

/// The files of a device.
pub(crate) struct Files {
    _opened: AttributeGroup<Opened>,
    _counted: AttributeGroup<Counted>,
    _queues: debugfs::File<Counted>,
}

impl Files {
    pub(crate) fn new(device: &Device, opened: Opened, counted: Arc<Counted>) -> Result<Self> {
        Ok(Self {
            _opened: AttributeGroup::new(device, Arc::new(opened, GFP_KERNEL)?)?,
            _counted: AttributeGroup::new(device, counted.clone())?,
            _queues: debugfs::File::new(&VIEWS, device.as_ref().name(), counted),
        })
    }
}
