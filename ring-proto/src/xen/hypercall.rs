// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Numbers of the hypercalls (`__HYPERVISOR_*` in `xen.h`) that a PVH guest or the toolstack can make.

/// Memory of a domain.
pub const MEMORY_OP: u32 = 12;
/// Several hypercalls at once.
pub const MULTICALL: u32 = 13;
/// The one-shot timer of a virtual CPU.
pub const SET_TIMER_OP: u32 = 15;
/// Version and features.
pub const XEN_VERSION: u32 = 17;
/// The hypervisor's console.
pub const CONSOLE_IO: u32 = 18;
/// Grant tables.
pub const GRANT_TABLE_OP: u32 = 20;
/// Assistance for a guest's memory management.
pub const VM_ASSIST: u32 = 21;
/// Virtual CPUs.
pub const VCPU_OP: u32 = 24;
/// Security modules.
pub const XSM_OP: u32 = 27;
/// Scheduling, and the end of a domain.
pub const SCHED_OP: u32 = 29;
/// Event channels.
pub const EVENT_CHANNEL_OP: u32 = 32;
/// Physical devices.
pub const PHYSDEV_OP: u32 = 33;
/// Parameters of hardware-virtualised domains.
pub const HVM_OP: u32 = 34;
/// The machine, for the toolstack.
pub const SYSCTL: u32 = 35;
/// Domains, for the toolstack.
pub const DOMCTL: u32 = 36;
