// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The terms and structures of the hypervisor's public interface (`xen/include/public`).

mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod hypercall;
pub mod shared_info;

pub use errno::Errno;

/// Id of a domain (`domid_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// The first domain.
    pub const DOM0: Self = Self(0);
    /// The calling domain (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
    /// Ids from here on are not domains (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
}

impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of an entry in a domain's grant table (`grant_ref_t`). From a peer it is an allegation, until mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef(pub u32);

impl GrantRef {
    /// No grant (`GRANT_INVALID_REF`): reference 0 is the hypervisor's.
    pub const INVALID: Self = Self(0);
}

impl core::fmt::Display for GrantRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of an event channel in one domain (`evtchn_port_t`). Port 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl core::fmt::Display for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
