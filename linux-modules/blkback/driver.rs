// SPDX-License-Identifier: GPL-2.0

//! What the bus calls.

use kernel::device::Core;
use kernel::prelude::*;
use kernel::sync::Arc;
use ring_proto::xenbus::{End, State};
use xen::xenbus::{self, Device, Next, Watch};

use crate::vbd::{OwnDirectory, Vbd};

/// The driver of block devices' backends.
pub(crate) struct Driver;

/// What the bus keeps for the driver with a device.
pub(crate) struct Bound {
    /// First: it ends before the rest.
    _watch: Watch<OwnDirectory>,
    vbd: Arc<Vbd>,
}

impl xenbus::Driver for Driver {
    type Data<'bound> = Bound;

    const END: End = End::Backend;
    const NAME: &'static CStr = c"causeway-vbd";
    const DEVICE_TYPE: &'static CStr = c"vbd";
    const ALLOW_REBIND: bool = true;

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let bound = || {
            let vbd = Vbd::new((&**dev).into(), dev.otherend()?)?;
            let own = OwnDirectory(vbd.clone());
            let path = vbd.device.nodename();
            let watch = Watch::new(dev, path, Arc::new(own, GFP_KERNEL)?)?;
            vbd.changed();
            Ok(Bound { _watch: watch, vbd })
        };
        bound()
    }

    fn otherend_changed<'bound>(
        _dev: &'bound Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
        _state: State,
    ) -> Next {
        this.vbd.changed();
        Next::Stay
    }

    fn unbind<'bound>(_dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.vbd.unbind();
    }

    fn reclaim_memory<'bound>(_dev: &'bound Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.vbd.squeeze();
    }
}
