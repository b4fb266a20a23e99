// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The page that a 64-bit domain shares with the hypervisor (`shared_info` in `xen.h`), as offsets in bytes: each part
//! of it is reached by itself.

/// Virtual CPUs that have their information in the page itself (`XEN_LEGACY_MAX_VCPUS`).
pub const LEGACY_MAX_VCPUS: u32 = 32;
/// Size of the information about a virtual CPU (`vcpu_info`). The first one begins the page.
pub const VCPU_INFO_SIZE: usize = 64;
/// In `vcpu_info`: a byte, not zero when the virtual CPU has to look for events.
pub const EVTCHN_UPCALL_PENDING: usize = 0;
/// In `vcpu_info`: 64 bits, each for 64 ports of which one is pending.
pub const EVTCHN_PENDING_SEL: usize = 8;
/// A bit for each port: an event is pending.
pub const EVTCHN_PENDING: usize = 2048;
/// A bit for each port: it must not be delivered.
pub const EVTCHN_MASK: usize = 2560;
