// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frontends that break every rule, to try backends with: Causeway's, in user space and in the kernel, and stock ones.
//!
//! Each attack has a name and is made of a seed, so that what went wrong once can be done again. After each one the
//! disk has to serve a frontend that keeps the rules.

pub mod attacks;
pub mod front;
pub mod random;
