// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over the kernel's Xen support.
//!
//! A driver of a paravirtual device needs four things of Xen, and each has a module here:
//!
//! | module | what it wraps |
//! |---|---|
//! | [`xenbus`] | the bus: a driver's callbacks, the device's two states, its directories in xenstore, watches |
//! | [`event`] | event channels: the doorbell between the two ends |
//! | [`grant`] | a frontend's side of memory: pages granted to its backend |
//! | [`map`], [`copy`] | a backend's side of memory: a frontend's pages mapped, or copied |
//!
//! [`sysfs`], [`debugfs`], [`param`] and [`place`] are what drivers need besides and the `kernel` crate has not.
//!
//! There is no driver logic here and no protocol: what a key or a request means stands in `ring_proto`.
//!
//! # What the types hold
//!
//! * A page is granted as long as a value says so, and is not freed nor given back before the peer let go of it.
//! * A foreign page is mapped as long as its [`map::MappedPage`] lives. It is unmapped once, and only when nothing in
//!   this kernel refers to it. A page whose unmapping failed is never used again.
//! * A numbered thing that a peer named ([`Port`], [`GrantRef`]) is an allegation until Xen took it.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod copy;
pub mod debugfs;
pub mod event;
pub mod grant;
pub mod map;
pub mod param;
pub mod place;
pub mod sysfs;
pub mod thread;
pub mod work;
pub mod workqueue;
pub mod xenbus;

pub use ring_proto::xen::{DomId, GrantRef, Port};

/// What the log's lines of this crate begin with.
const __LOG_PREFIX: &[u8] = b"causeway\0";

/// Whether this kernel runs in a Xen domain.
pub fn in_domain() -> bool {
    // SAFETY: The function reads a variable that is set before modules can be loaded.
    unsafe { sys::causeway_xen_domain() }
}

/// Whether the domain has page tables of its own: HVM and PVH.
pub fn is_hvm() -> bool {
    // SAFETY: As in `in_domain`.
    unsafe { sys::causeway_xen_hvm_domain() }
}

/// Whether disks are to be used through a frontend. In an HVM domain this may be switched off (`xen_emul_unplug`).
pub fn has_pv_disk_devices() -> bool {
    // SAFETY: As in `in_domain`.
    unsafe { sys::xen_has_pv_disk_devices() }
}

/// Whether the emulated disks of an HVM domain are still there beside those of frontends.
pub fn has_pv_and_legacy_disk_devices() -> bool {
    // SAFETY: As in `in_domain`.
    unsafe { sys::xen_has_pv_and_legacy_disk_devices() }
}
