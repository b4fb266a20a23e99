// SPDX-License-Identifier: GPL-2.0

//! Block devices with several hardware queues (blk-mq), for a driver that keeps its requests itself.
//!
//! The `kernel` crate's own `block::mq` counts references to requests, so that a request can be found again by its tag.
//! Here a [`Request`] is owned by one place at a time, as a box is: the block layer moves it into
//! [`Operations::queue_rq`], the driver keeps it where it likes, and moves it back by [`Request::end`] or a [`Batch`].
//! There is no way to end it twice or to touch it afterwards, and nothing is counted on the way.
//!
//! ```text
//! Major ── register the number
//! TagSet ── queues and tags, owns the driver's data of the disk
//!   └─ Disk ── the gendisk: limits, capacity, life
//!        └─ queue_rq(Request) ──▶ driver ──▶ Batch / Request::end
//! ```
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

mod batch;
mod cursor;
mod disk;
mod limits;
mod major;
mod operations;
mod request;
mod tag_set;

pub use batch::Batch;
pub use cursor::{Cursor, Segment};
pub use disk::{Disk, Numbers};
pub use limits::{Discard, Limits};
pub use major::Major;
pub use operations::{Operations, Refused};
pub use request::{Operation, Request, Status};
pub use tag_set::{online_queues, TagSet};
