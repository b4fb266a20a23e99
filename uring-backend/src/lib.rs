// SPDX-License-Identifier: MIT OR Apache-2.0

//! The user-space block backend on io_uring.
//!
//! It runs as a program in any domain with a [`Client`](hypervisor_client::Client), and serves disk images and block
//! devices to frontends that speak Xen's block protocol: the kernel's xen-blkfront or Causeway's own.
//!
//! ```text
//!              xenstore                                     frontend's ring          image
//!                 │                                               │                    │
//!   control ──▶ device ── starts and drains ──▶ queue: take ─▶ place ─▶ stage … ─▶ answer
//!   (one thread: handshakes, sizes,             (one thread and one io_uring each)
//!    statistics, the end)
//! ```
//!
//! # Principles
//!
//! 1. **A thread waits in one place**, its io_uring: for disk, doorbell, timer and word from the control thread.
//! 2. **One system call a batch.** Disk operations of all requests of a pass, the doorbell of all its answers, and the
//!    wait for what comes next are one `io_uring_enter`.
//! 3. **A queue owns all that it touches.** No lock and no allocation stands on the data path; what queues share of a
//!    disk are a few atomic words.
//! 4. **The frontend is hostile.** Requests are copied out once and judged by `ring-proto`; what is not legal is
//!    answered with an error; a broken ring ends that device's connection and nothing else.
//! 5. **Acknowledged means done.** A write is answered when the kernel has it, a flush when it is on the disk.
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | `allowance` | how much a device may write to the log |
//! | `claim` | which devices in xenstore are this backend's |
//! | `control`, `device` | devices in xenstore, their handshake, the start and end of queues |
//! | `queue` | the event loop: `take` from the ring, `stage` by stage to the answer |
//! | `request`, `pages`, `persistent` | a request's life, and how the frontend's pages are reached |
//! | `journal` | what is under way, for the backend that comes after this one |
//! | `io` | the io_uring and the memory that it reaches; all `unsafe` but the promise that a slot's pages stay |
//! | [`image`] | opening, locking, measuring an image |
//! | [`stats`], [`report`] | what is counted, and how it is shown |
#![deny(unsafe_code)]

mod allowance;
mod claim;
mod control;
mod device;
mod helper;
pub mod image;
mod io;
mod journal;
mod options;
mod pages;
mod persistent;
mod poll;
mod queue;
pub mod report;
mod request;
pub mod stats;
mod stats_socket;
mod stop;

pub use control::{Error, run};
pub use options::Options;
pub use stats_socket::{Format, fetch as fetch_stats};
pub use stop::Stop;
