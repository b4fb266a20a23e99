// SPDX-License-Identifier: MIT OR Apache-2.0

//! The io_uring of a queue, and the memory that the kernel reaches through it. All `unsafe` of the crate is here
//! but the promise of whoever calls [`Engine::add`].
//!
//! What is handed to the kernel stays valid until its completion, by these rules:
//!
//! * Memory that is [added](Engine::add) to a slot stays mapped until the slot is done: the caller's promise. A queue
//!   keeps the mapping of each page until the request that uses it is answered, and drops its engine first.
//! * Memory that fixed buffers are made of belongs to the engine too.
//! * Vectors, and the buffers that events are read into, belong to the [`Engine`] and do not move.
//! * Dropping the engine cancels what can be cancelled and waits for everything else.
#![allow(unsafe_code)]

mod engine;
mod memory;
mod waiter;

pub(crate) use engine::{Completion, Descriptors, Direction, Engine, ImageFile, Source, Token};
pub(crate) use memory::{AlignedPage, PrivatePages, can_secure_discard, discard_range};
pub(crate) use waiter::Waiter;
