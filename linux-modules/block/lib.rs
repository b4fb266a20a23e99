// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over those parts of the kernel's block layer that the `kernel` crate does not cover.
