// SPDX-License-Identifier: GPL-2.0

//! Which minor numbers are in use.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use ring_proto::xenbus::vbd::DiskNumber;

/// The minor numbers of all disks of the driver.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    taken: Mutex<KVec<DiskNumber>>,
}

impl Registry {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(pin_init!(Self { taken <- new_mutex!(KVec::new()) }), GFP_KERNEL)
    }

    /// Takes the numbers of a disk. The toolstack chose them, and may have chosen them twice: two names, such as
    /// `hda` and `sda`, are the same disk here.
    ///
    /// # Errors
    ///
    /// `EBUSY` when another disk has one of them.
    pub(crate) fn take(self: &Arc<Self>, number: DiskNumber) -> Result<Minors> {
        let mut taken = self.taken.lock();
        if taken.iter().any(|other| overlap(other, &number)) {
            return Err(EBUSY);
        }
        taken.push(number, GFP_KERNEL)?;
        Ok(Minors { registry: self.clone(), number })
    }
}

fn overlap(one: &DiskNumber, other: &DiskNumber) -> bool {
    let end = |number: &DiskNumber| number.first_minor().saturating_add(number.minors());
    one.first_minor() < end(other) && other.first_minor() < end(one)
}

/// Numbers that are taken as long as it lives.
pub(crate) struct Minors {
    registry: Arc<Registry>,
    number: DiskNumber,
}

impl Minors {
    pub(crate) fn number(&self) -> DiskNumber {
        self.number
    }

    /// Never gives them back: the disk that has them stays.
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Minors {
    fn drop(&mut self) {
        let mut taken = self.registry.taken.lock();
        if let Some(at) = taken.iter().position(|other| *other == self.number) {
            let _ = taken.remove(at);
        }
    }
}
