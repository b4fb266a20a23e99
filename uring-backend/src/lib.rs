// SPDX-License-Identifier: MIT OR Apache-2.0

//! The user-space block backend on io_uring.
#![deny(unsafe_code)]

mod grants;
mod helper;
pub mod image;
mod io;
pub mod limits;
mod pages;
mod poll;
mod queue;
mod request;
pub mod stats;
