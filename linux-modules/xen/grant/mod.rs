// SPDX-License-Identifier: GPL-2.0

//! A frontend's side of memory: pages granted to its backend.
//!
//! What is granted can be read, or written too, by the peer at any moment, and mapped for as long as it likes. So a page
//! that the peer still maps is never freed nor used for something else: where that would happen it is left to the
//! kernel, which tries again until the peer lets go.
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

mod lent;
mod page;
mod pool;
mod ring;

pub use crate::map::Access;
pub use lent::{Lend, Lent, Terms};
pub use page::GrantedPage;
pub use pool::GrantPool;
pub use ring::GrantedRing;
