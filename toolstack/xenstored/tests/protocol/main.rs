// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server, message by message.

mod hostile;
mod model;
mod quota;
#[cfg(feature = "stock-xenstored")]
mod stock;
mod wire;
