// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Virtual block devices: what both ends publish and read (`io/blkif.h`).
//!
//! 1. The backend reads [`BackendConfig`] from its own directory, writes [`BackendFeatures`], and goes to `InitWait`.
//! 2. The frontend reads them, makes of them and of what it wants itself [`FrontendSettings`], allocates that many
//!    rings of that size, writes them as a [`Connection`], and goes to `Initialised`.
//! 3. The backend reads the [`Connection`], maps the rings, writes the disk's [`Geometry`], and goes to `Connected`.
//! 4. The frontend reads the [`BackendFeatures`] again and the [`Geometry`], and goes to `Connected`.
//!
//! Features are read twice because Linux's backend writes most of them in step 3 only. A disk that changes its size
//! while it is connected gets a new [`Geometry`], and the backend writes `Connected` once more.
//!
//! Sectors are units of 512 bytes everywhere, whatever `sector-size` says: so do all drivers in use.

mod config;
mod connection;
mod features;
mod geometry;
pub mod keys;
mod number;
mod physical_device;

pub use config::{BackendConfig, FrontendConfig, Limit};
pub use connection::{Connection, FrontendSettings, Queue};
pub use features::BackendFeatures;
pub use geometry::{Discard, Geometry};
pub use number::{DiskNumber, LINUX_MAJOR};
pub use physical_device::PhysicalDevice;

use crate::ring::MAX_ORDER;

/// Most queues of one device.
pub const MAX_QUEUES: usize = 16;

/// Most pages of one ring.
pub const MAX_RING_PAGES: usize = 1 << MAX_ORDER;

#[cfg(test)]
mod tests;
