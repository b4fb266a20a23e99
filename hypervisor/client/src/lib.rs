// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a user-space program in a domain reaches its hypervisor.
//!
//! [`Client`] is all that a frontend or backend needs: pages to grant, grants to map, event channels, and a connection
//! to xenstore. It has two implementations: the hosted hypervisor, where a domain is a process, and `/dev/xen/*` of
//! Linux on any hypervisor with the Xen ABI. A program that takes `&dyn Client` runs on both.
//!
//! | module | what it holds |
//! |---|---|
//! | [`hosted`] | a domain of the hosted hypervisor, and the protocol of its socket |
//! | [`dev`] | a domain of any other hypervisor, through the drivers of its Linux |
//! | [`store`] | a connection to xenstore |
//! | [`toolstack`] | plugging devices in and out |
//! | [`mapped`] | memory, mapped until dropped |
//!
//! None of these calls stands on the data path: rings, persistently granted pages and doorbells work without them.

mod connect;
pub mod dev;
mod error;
mod event;
pub mod hosted;
pub mod mapped;
mod memory;
mod status;
pub mod store;
pub mod toolstack;

pub use connect::connect;
pub use error::Error;
pub use event::EventChannel;
pub use memory::{Access, CopyDirection, Grant, GrantCopy, Mapping};

use ring_proto::xen::{DomId, GrantRef, Port};

use store::Store;

/// A domain's way to its hypervisor.
pub trait Client: Send + Sync {
    /// Id of the domain that this program runs in.
    fn domid(&self) -> DomId;

    /// Allocates `pages` zeroed pages, adjacent in this program's memory, and grants each to `peer`.
    ///
    /// # Errors
    ///
    /// When memory or grant entries are used up; the error names the limit.
    fn grant(&self, peer: DomId, pages: usize, access: Access) -> Result<Grant, Error>;

    /// Maps pages that `peer` granted, adjacent in this program's memory and in the order of `refs`.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses a reference; the error names the first one refused, and nothing stays mapped.
    fn map(&self, peer: DomId, refs: &[GrantRef], access: Access) -> Result<Mapping, Error>;

    /// Copies between pages that `peer` granted and this program's memory, all in as few calls as the hypervisor
    /// takes. Each operation gets its own status; a refused one leaves the others alone.
    ///
    /// # Errors
    ///
    /// Only when no operation could be tried at all.
    fn copy(&self, peer: DomId, operations: &mut [GrantCopy<'_>]) -> Result<(), Error>;

    /// Allocates an event channel that `peer` may bind to.
    ///
    /// # Errors
    ///
    /// When the domain's ports are used up.
    fn alloc_unbound(&self, peer: DomId) -> Result<EventChannel, Error>;

    /// Binds to a port that `peer` allocated for this domain.
    ///
    /// # Errors
    ///
    /// When there is no such port or it was allocated for another domain.
    fn bind_interdomain(&self, peer: DomId, port: Port) -> Result<EventChannel, Error>;

    /// Whether the kernel of this domain has a backend for devices of this kind (`vbd`), which takes every one.
    fn kernel_has_backend(&self, _kind: &str) -> bool {
        false
    }

    /// Whether pages of others that are mapped may be given to a device, as direct I/O does.
    ///
    /// Not in a PV domain. When a process is killed there while a device has such a page, Linux' gntdev unmaps it too
    /// late, finds the page table gone, and the page counts as mapped until its owner has gone.
    fn direct_io_on_mappings(&self) -> bool {
        true
    }

    /// Opens a connection to xenstore with this domain's identity.
    ///
    /// # Errors
    ///
    /// When the store refuses another one.
    fn store(&self) -> Result<Store, Error>;
}
