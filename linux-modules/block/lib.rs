// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over those parts of the kernel's block layer that the `kernel` crate does not cover.
//!
//! | module | what it holds |
//! |---|---|
//! | [`bdev`] | opening and measuring a block device |
//! | [`bio`] | asking it for something |
//! | `granted` | a frontend's pages as those of bios |
//! | [`finished`] | bios that come back |
//! | [`mq`] | being a disk: queues, requests, limits |
//! | [`NoIo`] | memory for whoever has to have it before a disk works |
//! | [`plug`] | submitting many in one go |

pub mod bdev;
pub mod bio;
pub mod finished;
mod granted;
pub mod mq;
mod noio;
pub mod plug;

pub use noio::NoIo;
