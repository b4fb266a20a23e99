// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `cargo xtask lab bench` makes of its machines' files.
//!
//! A machine leaves, beside its logs, `N.runs` and `N.counts`: for each run of the load, in the same order, a line of
//! `FRONT BACK CELL key=value…` and a line of JSON from the plugin `tests/lab/plugin/count.c`. [`counts`] reads both,
//! [`compare`] makes measurements of them, [`profile`] shows where the instructions were executed.

pub mod compare;
pub mod counts;
pub mod memory;
pub mod profile;
