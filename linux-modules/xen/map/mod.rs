// SPDX-License-Identifier: GPL-2.0

//! A backend's side of memory: a frontend's pages, mapped.
//!
//! ```text
//! PagePool ─get→ FreePage ─MapBatch→ MappedPage ─UnmapBatch→ FreePage ─put→ PagePool
//! ```
//!
//! A foreign page is mapped in the place of one of this domain's that has no memory of its own, so that to the rest of
//! the kernel it is a page as any other: bios take it. Which of the two a page is, its type says. A page whose unmapping
//! Xen refused is neither any more: it is lost, and said so once.
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

mod batch;
mod page;
mod pool;
mod ring;
mod unmap;

pub use batch::{MapBatch, MapError, Mapped};
pub use page::{Access, FreePage, MappedPage};
pub use pool::PagePool;
pub use ring::MappedRing;
pub use unmap::{Pages, UnmapBatch};

use ring_proto::xen::grant_table::GrantError;

/// What Xen, or the kernel in its place, says of an operation.
pub(crate) fn outcome(status: i16) -> Result<(), GrantError> {
    match status {
        0 => Ok(()),
        status => Err(GrantError::from_raw(status).unwrap_or(GrantError::GeneralError)),
    }
}
