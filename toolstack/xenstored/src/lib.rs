// SPDX-License-Identifier: MIT OR Apache-2.0

//! The xenstore: a small tree of values that domains share to find each other, with transactions, watches and
//! permissions, served over the stock wire protocol.
//!
//! [`Server`] is all there is to use. A program of domain 0 connects to its socket as it would to any xenstored's (the
//! stock tools do, with `XENSTORED_PATH`); whoever starts a domain gets it a connection with [`Server::connect`].
//!
//! ```
//! use ring_proto::xen::DomId;
//! use std::os::unix::net::UnixListener;
//!
//! # fn main() -> std::io::Result<()> {
//! let dir = tempfile::tempdir()?;
//! let server = xenstored::Server::start(UnixListener::bind(dir.path().join("xenstored.sock"))?)?;
//! let connection_of_domain_1 = server.connect(DomId(1))?;
//! server.introduce(DomId(1))?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it is made
//!
//! The logic knows nothing of what carries its messages. From the outside in:
//!
//! | module | what it does |
//! |---|---|
//! | `server` | sockets and the thread; the only module that meets the system |
//! | `connection` | bytes to messages and back, within bounds |
//! | `request` | payload of a request to payload of its reply |
//! | `store` | the state: tree, clients, who is told what |
//! | `transaction` | a snapshot, what was done to it, and whether it can become real |
//! | `operation` | read, write, make, remove: permissions and quota |
//! | `tree` | the nodes, shared between snapshots |
//! | `watch`, `permissions`, `quota`, `path`, `client` | the terms of the above |
//!
//! Every client is hostile. What one domain can make the store keep is bounded by its [`Quota`] and by the bounds of
//! its connections; it never makes the store wait.
#![forbid(unsafe_code)]

mod client;
mod connection;
mod operation;
mod path;
mod permissions;
mod quota;
mod request;
mod server;
mod store;
mod transaction;
mod tree;
mod watch;

pub use quota::Quota;
pub use server::Server;
