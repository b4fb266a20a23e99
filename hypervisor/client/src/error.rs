// SPDX-License-Identifier: MIT OR Apache-2.0

use ring_proto::xen::{DomId, Errno};

/// Why the hypervisor, or the way to it, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hypervisor refused.
    #[error("{operation} for domain {peer}: {errno} ({})", errno.name())]
    Refused {
        /// What was asked, naming the reference, port or path.
        operation: String,
        /// The other domain.
        peer: DomId,
        /// The hypervisor's reason.
        errno: Errno,
    },
    /// The store refused.
    #[error("xenstore: {operation}: {errno} ({})", errno.name())]
    Store {
        /// What was asked, naming the path.
        operation: String,
        /// The store's reason.
        errno: Errno,
    },
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, naming the file or socket.
        operation: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The hypervisor's end of the connection is closed.
    #[error("the hypervisor at {0} is gone")]
    Gone(String),
}
