// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frontends and backends that break every rule, to try the other end with: Causeway's, in user space and in the
//! kernel, and stock ones.
//!
//! Each attack has a name and is made of a seed, so that what went wrong once can be done again. After each one on a
//! backend ([`attacks`]) its disk has to serve a frontend that keeps the rules, and what it answers meanwhile is judged
//! ([`rules`]); after each one on a frontend ([`lies`]) it has to use another disk. One backend is [`honest`]: it shows what
//! a frontend asks for.

mod again;
pub mod attacks;
pub mod back;
pub mod front;
pub mod honest;
pub mod lies;
pub mod peer;
pub mod random;
pub mod rules;
