// SPDX-License-Identifier: MIT OR Apache-2.0

//! The block frontend in user space.
//!
//! [`Disk::connect`] finds a virtual disk's backend through xenstore, negotiates with it, and hands out one [`Queue`] for
//! each hardware queue. A queue belongs to one thread and shares nothing with the others, so that no lock stands on the
//! way of data:
//!
//! ```text
//!  Disk ── control thread: xenstore, negotiation, reconnection, resize
//!   ├─ Queue 0 ── ring, event channel, granted buffers ── your thread
//!   └─ Queue 1 ── …
//! ```
//!
//! # Principles
//!
//! 1. **No answer is trusted.** One that was not asked for, came twice or names another operation ends the disk, and
//!    everything outstanding fails with the reason.
//! 2. **Nothing that was acknowledged is lost, and nothing submitted is forgotten.** When the backend goes and comes
//!    back, unanswered operations are sent anew, in their order, from the same buffers.
//! 3. **The data path is memory.** Buffers are granted once; a batch costs one publication and at most one doorbell.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | [`load`] | the load generator, with verification |
//! | [`nbd`] | an NBD server, so that unmodified programs use the disk |

mod connection;
mod disk;
mod error;
mod flight;
pub mod load;
pub mod nbd;
mod options;
mod pool;
mod queue;
mod shared;
mod statistics;

pub use disk::{Disk, Settings};
pub use error::{Breach, Error};
pub use options::Options;
pub use pool::{Buffer, Span};
pub use queue::{Completion, Operation, Queue};
pub use ring_proto::blkif::SECTOR_SIZE;
pub use statistics::Statistics;
