// SPDX-License-Identifier: MIT OR Apache-2.0

//! Micro-benchmarks of Causeway against the stock part it replaces.
//!
//! Every benchmark takes its figures in pairs, ours and the baseline in turn within one run, so that a busy machine
//! slows both alike; [`report`] makes the median, the spread, the table and the JSON of them.

pub mod block;
pub mod lab;
pub mod mark;
pub mod raw;
pub mod report;
pub mod ring;
