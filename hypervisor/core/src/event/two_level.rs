// SPDX-License-Identifier: MIT OR Apache-2.0

//! Delivery through bits of the shared information page: one pending and one mask bit for each port, and in each
//! virtual CPU's information a bit for each 64 ports.

use ring_proto::xen::Port;
use ring_proto::xen::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, EVTCHN_PENDING_SEL};

use super::delivery::mark_pending;
use crate::machine::{Machine, Mfn};

/// The word and the bit of a port in an array of bits.
fn bit(array: usize, index: u32) -> (usize, u32) {
    (array + (index / 32 * 4) as usize, 1 << (index % 32))
}

/// Where the information about a virtual CPU stands.
pub(crate) type VcpuInfo = (Mfn, usize);

/// Sets a port pending. Returns whether its virtual CPU has to be interrupted.
pub(crate) fn set_pending<M: Machine>(machine: &M, page: Mfn, port: Port, vcpu: VcpuInfo) -> bool {
    let (offset, mask) = bit(EVTCHN_PENDING, port.0);
    if machine.fetch_or(page, offset, mask) & mask != 0 {
        return false;
    }
    let (offset, mask) = bit(EVTCHN_MASK, port.0);
    machine.load(page, offset) & mask == 0 && select(machine, port, vcpu)
}

/// Unmasks a port. Returns whether its virtual CPU has to be interrupted, since an event waited.
pub(crate) fn unmask<M: Machine>(machine: &M, page: Mfn, port: Port, vcpu: VcpuInfo) -> bool {
    let (offset, mask) = bit(EVTCHN_MASK, port.0);
    if machine.fetch_and(page, offset, !mask) & mask == 0 {
        return false;
    }
    is_pending(machine, page, port) && select(machine, port, vcpu)
}

pub(crate) fn is_pending<M: Machine>(machine: &M, page: Mfn, port: Port) -> bool {
    let (offset, mask) = bit(EVTCHN_PENDING, port.0);
    machine.load(page, offset) & mask != 0
}

pub(crate) fn clear_pending<M: Machine>(machine: &M, page: Mfn, port: Port) {
    let (offset, mask) = bit(EVTCHN_PENDING, port.0);
    machine.fetch_and(page, offset, !mask);
}

/// Tells a virtual CPU among which ports to look.
fn select<M: Machine>(machine: &M, port: Port, vcpu: VcpuInfo) -> bool {
    let (offset, mask) = bit(vcpu.1 + EVTCHN_PENDING_SEL, port.0 / 64);
    machine.fetch_or(vcpu.0, offset, mask) & mask == 0 && mark_pending(machine, vcpu)
}
