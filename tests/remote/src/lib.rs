// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands of Dom0 that run in a DomU, through xenstore: no driver under test is on that way, and no shell, which is
//! dear in an emulated machine.
//!
//! Below `data/lab` in the DomU's directory:
//!
//! | node | written by | |
//! |---|---|---|
//! | `ready` | the DomU | it takes commands |
//! | `command/N` | Dom0 | a command for `bash` |
//! | `output/N/I` | the DomU | what it printed, piece by piece |
//! | `done/N` | the DomU | its exit code, and how many pieces there are |

pub mod ask;
pub mod serve;

/// The directory of all this.
pub const DIRECTORY: &str = "data/lab";

/// Longest piece of output in bytes: an unprivileged domain may write values of 2048.
pub const PIECE: usize = 2000;
