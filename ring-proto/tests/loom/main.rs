// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Every interleaving of both ends, under the memory model of C11: `RUSTFLAGS="--cfg loom" cargo test --release --test
//! loom`.
//!
//! The engines run over [`memory::Model`], a shared memory whose index words are loom's atomics and whose slots are
//! loom's cells: a slot read while it is written, or before the write is visible, fails. Sleep and doorbell are a flag
//! under a mutex: a wake-up that is lost leaves a thread asleep for ever, which loom reports as a deadlock.
//!
//! Each model runs as the engine is, and must hold; then once for every barrier of the engine with that one removed,
//! and must fail. `LOOM_MAX_PREEMPTIONS` deepens the search.
#![cfg(loom)]

mod memory;
mod ring;
mod stream;
mod vchan;
