// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much of the store one domain may use.

use ring_proto::xen::{DomId, Errno};

/// Limits of each domain but the privileged one. The defaults are those of Xen's own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Bytes of a node: its value, and the names of its children with a NUL each.
    pub node_size: usize,
    /// Entries in a node's list of permissions.
    pub permissions: usize,
    /// Watches, on all of its connections.
    pub watches: usize,
    /// Transactions open at once, on all of its connections.
    pub transactions: usize,
    /// Nodes that one transaction looks at or changes.
    pub transaction_nodes: usize,
    /// Connections at once.
    pub connections: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            permissions: 5,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            connections: 64,
        }
    }
}

/// Whether `domid` may use `amount` where there is `limit`.
///
/// # Errors
///
/// `ENOSPC` when it may not.
pub(crate) fn within(domid: DomId, amount: usize, limit: usize) -> Result<(), Errno> {
    if domid == DomId::DOM0 || amount <= limit { Ok(()) } else { Err(Errno::ENOSPC) }
}
