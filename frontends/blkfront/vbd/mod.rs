// SPDX-License-Identifier: GPL-2.0

//! A virtual disk: its part of the handshake, and its life.
//!
//! What has to be done next, `ring_proto::xenbus::Frontend` says, and it is done here. A backend that goes is waited
//! for: the disk is quiesced, and what was not answered is asked for anew when there is a backend again. Only when the
//! toolstack wants the disk gone (`online` is 0), or the backend cannot be trusted, the disk is dead.
//!
//! All of this happens in xenwatch, the one thread for the hot plug of all devices, so nothing here waits for a request:
//! the thread that would bring its backend back is this one.

mod care;
mod control;

use core::convert::Infallible;
use core::fmt;

use block::NoIo;
use kernel::device::Core;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::{delay::fsleep, Delta};
use ring_proto::xenbus::vbd::{DiskNumber, FrontendConfig};
use ring_proto::xenbus::{self, keys, Frontend, FrontendWork, ReadDirectory, State};
use xen::debugfs::View;
use xen::xenbus::Device;

use crate::minors::{Minors, Registry};
use crate::statistics::Statistics;

pub(crate) use care::{Cared, CARE};
use control::{Control, ATTEMPTS};

/// How often pages that are not used are given back, in milliseconds.
const TRIM: u32 = 10_000;

/// How often it is looked whether a backend has let go of pages, in milliseconds.
const RETRY: u32 = 100;

/// How long a disk that is removed waits until its backend lets go of memory, in looks.
const PATIENCE: u32 = 50;

/// See the module.
#[pin_data]
pub(crate) struct Vbd {
    device: ARef<Device>,
    config: FrontendConfig,
    registry: Arc<Registry>,
    #[pin]
    control: Mutex<Control>,
}

/// Why a step of the handshake failed.
type Failure = xen::xenbus::Failure<Infallible>;

impl Vbd {
    /// A disk that the toolstack has made.
    pub(crate) fn new(device: &Device, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let own = device.directory()?;
        let config = FrontendConfig::read(&mut &own).map_err(|error| match error {
            xenbus::Error::Store(error) => error,
            xenbus::Error::Key(error) => {
                device.fatal(EINVAL, format_args!("{error}"));
                EINVAL
            }
        })?;
        // What is still emulated may be in use as that: the same disk twice would ruin it.
        if xen::is_hvm()
            && xen::has_pv_and_legacy_disk_devices()
            && !DiskNumber::is_own(config.virtual_device)
        {
            return Err(ENODEV);
        }
        let control = Control::new(device.state());
        let device = device.into();
        let vbd = pin_init!(Self { device, config, registry, control <- new_mutex!(control) });
        Arc::pin_init(vbd, GFP_KERNEL)
    }

    /// Whether the disk can be used.
    pub(crate) fn is_ready(&self) -> bool {
        self.control.lock().added
    }

    /// What all queues have done.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for queue in self.control.lock().queues() {
            sum.add(&queue.statistics());
        }
        sum
    }

    /// Does what the states of both ends ask for.
    pub(crate) fn follow(&self, device: &Device<Core<'_>>, mut backend: State) {
        let _scope = NoIo::begin();
        let mut control = self.control.lock();
        // Each round goes to another state, and no chain of them is longer: a connection that fails for a while is three.
        for _ in 0..State::ALL.len() + 3 * ATTEMPTS as usize {
            let keep = !control.dead && (backend == State::Unknown || is_wanted(device));
            if !keep && !control.dead {
                control.retire();
            }
            let step = match control.frontend.next(backend, keep) {
                Ok(step) => step,
                Err(error) => {
                    control.close_after(self, error.into());
                    continue;
                }
            };
            let result = match step.work {
                FrontendWork::Wait | FrontendWork::Restart => Ok(()),
                FrontendWork::Run => control.resize(device),
                FrontendWork::Publish => control.publish(self, device),
                FrontendWork::Connect => control.connect(self, device),
                FrontendWork::Disconnect => {
                    if keep {
                        control.suspend(self);
                    } else {
                        control.retire();
                    }
                    Ok(())
                }
                FrontendWork::Release | FrontendWork::Done => {
                    // Nobody is left to answer.
                    if control.dead && matches!(backend, State::Unknown | State::Closed) {
                        control.fail();
                    }
                    Ok(())
                }
            };
            if let Err(failure) = result {
                let pause = control.close_after(self, failure);
                drop(control);
                fsleep(pause);
                control = self.control.lock();
                backend = device.otherend_state();
                continue;
            }
            if step.to == control.frontend.state() {
                return;
            }
            if control.frontend.enter(step.to).is_err() {
                return;
            }
            match step.to {
                State::Closed => self.device.frontend_closed(),
                // When it was not written, this end's directory is gone, or the bus goes to `Closing` by itself.
                to => drop(self.device.switch_state(to)),
            }
            backend = device.otherend_state();
        }
    }

    /// The domain was restored: all grants and channels are void, and there is another backend.
    pub(crate) fn resume(&self, device: &Device<Core<'_>>) {
        {
            let _scope = NoIo::begin();
            let mut control = self.control.lock();
            if control.dead {
                control.fail();
            } else {
                control.suspend(self);
            }
            control.frontend = Frontend::found(State::Initialising);
        }
        self.follow(device, device.otherend_state());
    }

    /// The driver is unbound from a disk that its backend may be connected to. The backend is told, and for a while it is
    /// waited for: what it has mapped when this end frees it, the kernel frees later, and only ten pages a second.
    pub(crate) fn leave(&self, device: &Device<Core<'_>>) {
        self.control.lock().retire();
        if self.device.switch_state(State::Closed).is_err() {
            return;
        }
        for _ in 0..PATIENCE {
            if !matches!(device.otherend_state(), State::Connected | State::Closing) {
                return;
            }
            fsleep(Delta::from_millis(RETRY.into()));
        }
    }

    /// The device goes away. Whatever was not answered fails, and nobody is asked for work any more.
    fn remove(&self) {
        let mut control = self.control.lock();
        control.fail();
        control.alarm = None;
        control.adder = None;
    }

    /// Takes the disk's numbers.
    fn number(&self) -> Result<Minors> {
        let number = DiskNumber::of(self.config.virtual_device).ok_or(ENODEV)?;
        self.registry.take(number)
    }
}

impl View for Vbd {
    fn view(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = self.control.lock();
        for (number, queue) in control.queues().iter().enumerate() {
            write!(out, "queue {number}: ")?;
            queue.view(out)?;
        }
        Ok(())
    }
}

/// Whether the toolstack wants the device: a toolstack that does not say so does.
fn is_wanted(device: &Device<Core<'_>>) -> bool {
    let Ok(backend) = device.otherend() else { return true };
    let mut value = [0; 2];
    match (&mut &backend).read(keys::ONLINE.name, &mut value) {
        Ok(Some(_)) => value == *b"1\0",
        _ => true,
    }
}
