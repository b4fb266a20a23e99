// SPDX-License-Identifier: GPL-2.0

//! The bus of paravirtual devices.
//!
//! A device has two ends in two domains, each with a directory in xenstore: the *frontend* in the domain that uses it,
//! the *backend* in the one that serves it. Each end writes its state into its own directory, and watches the other's.
//! What the ends say to each other through keys and states is `ring_proto::xenbus`; here is how a driver gets to it.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

mod device;
mod directory;
mod driver;
mod failure;
mod watch;

pub use device::Device;
pub use directory::{transaction, Directory, Transaction, Value, Within};
pub use driver::{Adapter, Driver, Next, Registration};
pub use failure::Failure;
pub use watch::{Watch, WatchHandler};
