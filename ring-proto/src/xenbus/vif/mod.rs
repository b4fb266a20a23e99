// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Virtual network interfaces: what both ends publish and read (`io/netif.h`).
//!
//! 1. The backend reads [`BackendConfig`] from its own directory, writes [`BackendFeatures`], and goes to `InitWait`.
//! 2. The frontend reads them and its own [`FrontendConfig`], makes of them and of what it wants itself
//!    [`FrontendSettings`], allocates that many pairs of rings, writes them as a [`Connection`], and goes straight to
//!    `Connected`.
//! 3. The backend reads the [`Connection`], maps the rings, and goes to `Connected`.
//!
//! Three things may change while both are connected. [`keys::CARRIER`] and, if the backend offered it,
//! [`keys::REQUEST_MULTICAST_CONTROL`] are watched by the other end. A new [`keys::XDP_HEADROOM`] is announced with
//! `Reconfiguring` and in force when the backend is `Reconfigured`. Hashes and staging grants are agreed on over the
//! control ring, not in xenstore.

mod config;
mod connection;
mod features;
pub mod keys;

pub use config::{BackendConfig, FrontendConfig, Mac, Rate};
pub use connection::{Channels, Connection, Control, FrontendSettings, Queue};
pub use features::{BackendFeatures, Offloads};

/// Most queues of one device.
pub const MAX_QUEUES: usize = 16;

/// Most bytes before a received packet that a frontend can ask for (`XEN_NETIF_MAX_XDP_HEADROOM`).
pub const MAX_XDP_HEADROOM: u16 = 0x7fff;

#[cfg(test)]
mod tests;
