// SPDX-License-Identifier: MIT OR Apache-2.0

//! The user-space block backend on io_uring.
#![deny(unsafe_code)]

pub mod image;
mod io;
pub mod limits;
pub mod stats;
