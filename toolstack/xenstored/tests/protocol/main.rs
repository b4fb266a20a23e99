// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server, message by message.

mod hostile;
mod model;
mod quota;
mod wire;
