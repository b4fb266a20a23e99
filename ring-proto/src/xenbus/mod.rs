// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! How two ends of a device find each other in xenstore (`io/xenbus.h`), as pure logic.
//!
//! A device has two directories: one that its frontend owns (`/local/domain/F/device/vbd/D`) and one that its backend
//! owns (`/local/domain/B/backend/vbd/F/D`). Each end writes its own and reads the other's. The key `state` says how
//! far its owner is; everything else that the ends have to agree on is published before the state that promises it.
//!
//! ```text
//! frontend                         backend
//! Initialising                     Initialising
//!                                  offers features, goes to InitWait
//! reads them, allocates rings,
//! publishes them, goes to Initialised
//!                                  reads them, maps the rings, publishes
//!                                  the device, goes to Connected
//! reads the device, goes to Connected
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`state`] | the states and which moves are legal |
//! | [`handshake`] | what each end has to do next, given its own state and its peer's |
//! | [`directory`] | what has to be implemented to read and write xenstore: two small traits |
//! | [`key`] | how a key is described, and how its value is read and checked |
//! | [`keys`] | the keys that every device has |
//! | [`vbd`] | every key of a virtual block device, and what both ends make of them |
//! | [`vif`] | the same of a virtual network interface |
//!
//! Nothing here waits, watches or stores: a driver or daemon reads the two states, asks [`handshake`] for the next
//! step, does the work, writes its state and says so.

pub mod directory;
pub mod handshake;
pub mod key;
pub mod keys;
pub mod state;
pub mod vbd;
pub mod vif;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use directory::{Error, KeyError, KeyPath, ReadDirectory, Reason, WriteDirectory};
pub use handshake::{Backend, BackendWork, Frontend, FrontendWork, PeerError, Step};
pub use key::{Absent, Key, Kind, Place, Source, Writer};
pub use state::{End, IllegalMove, State};
