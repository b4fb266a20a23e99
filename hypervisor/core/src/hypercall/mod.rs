// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a hypercall, as a guest makes it, to the operations of this crate, and back to the number it returns.
//!
//! The arguments are registers, some of which are addresses of structures in the guest's memory. How that memory is
//! reached is the embedder's matter ([`GuestMemory`]): page tables on bare metal, a [`Buffer`] that came over a socket
//! in the hosted mode. Each structure is copied in once, judged, and copied out.

mod event;
mod grant;

use ring_proto::shared::{Wire, bytes_of, bytes_of_mut, zeroed};
use ring_proto::xen::{DomId, Errno, hypercall};

use crate::Hypervisor;
use crate::machine::Machine;

/// Memory of the guest that makes a hypercall.
pub trait GuestMemory {
    /// Copies from the guest.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the guest cannot read all of that.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies to the guest.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the guest cannot write all of that.
    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Errno>;
}

/// Guest memory that is just some bytes: an address is an offset.
#[derive(Debug)]
pub struct Buffer<'a>(pub &'a mut [u8]);

impl Buffer<'_> {
    fn range(address: u64, len: usize) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(address).ok()?;
        Some(start..start.checked_add(len)?)
    }
}

impl GuestMemory for Buffer<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        let range = Self::range(address, into.len()).ok_or(Errno::EFAULT)?;
        into.copy_from_slice(self.0.get(range).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Errno> {
        let range = Self::range(address, from.len()).ok_or(Errno::EFAULT)?;
        self.0.get_mut(range).ok_or(Errno::EFAULT)?.copy_from_slice(from);
        Ok(())
    }
}

/// Copies a structure in.
fn read<T: Wire>(memory: &impl GuestMemory, address: u64) -> Result<T, Errno> {
    let mut value = zeroed();
    memory.read(address, bytes_of_mut(&mut value))?;
    Ok(value)
}

/// Copies a structure out.
fn write<T: Wire>(memory: &mut impl GuestMemory, address: u64, value: &T) -> Result<(), Errno> {
    memory.write(address, bytes_of(value))
}

impl<M: Machine> Hypervisor<M> {
    /// Carries out hypercall `number` with the arguments in `registers`, in the order of Xen's calling convention.
    /// Returns what the guest finds in its result register: a negative [`Errno`], or else not less than 0.
    pub fn dispatch(
        &mut self,
        caller: DomId,
        number: u64,
        registers: &[u64; 5],
        memory: &mut impl GuestMemory,
    ) -> i64 {
        if self.live(caller).is_none() {
            return -(Errno::ESRCH as i64);
        }
        let [command, address, count, ..] = *registers;
        // Xen declares these two as 32 bits wide and looks at no more of the register.
        let (command, count) = (command as u32, count as u32);
        let done = match u32::try_from(number) {
            Ok(hypercall::GRANT_TABLE_OP) => {
                self.grant_table_op(caller, command, address, count, memory)
            }
            Ok(hypercall::EVENT_CHANNEL_OP) => {
                self.event_channel_op(caller, command, address, memory)
            }
            _ => Err(Errno::ENOSYS),
        };
        match done {
            Ok(()) => 0,
            Err(errno) => -(errno as i64),
        }
    }
}
