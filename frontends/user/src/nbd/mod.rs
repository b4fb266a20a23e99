// SPDX-License-Identifier: MIT OR Apache-2.0

//! An NBD server over a [`Disk`](crate::Disk), so that unmodified programs use it: `qemu-img`, `nbdcopy`,
//! `fio --ioengine=nbd`, the kernel's own client.
//!
//! Each queue of the disk has one thread, which serves a share of the connections: it waits for their sockets and for
//! the ring at once, and takes and sends as many requests and replies at a time as there are.
//!
//! ```text
//! accept ──▶ thread 0 ── sockets 0, 2, … ⇄ queue 0
//!        └─▶ thread 1 ── sockets 1, 3, … ⇄ queue 1
//! ```
//!
//! Clients are not trusted: memory is bounded for each connection and each queue, and a request that does not fit the
//! disk is answered with an error. Fixed newstyle handshake and simple replies; no TLS, so only a Unix socket or a
//! loopback address is listened on.

mod connection;
mod engine;
mod handshake;
mod server;
mod wire;
mod worker;

pub use server::{Listen, Options, Server};
