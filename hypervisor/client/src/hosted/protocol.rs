// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes over `DIR/hypervisor.sock`, a Unix socket of type `SOCK_SEQPACKET`: one packet is one message.
//!
//! A message of a domain is a [`Request`] and, depending on its kind, a body; the daemon replies with an [`Answer`], a
//! body and descriptors, in the order of the requests. A request with [`QUIET`] gets no answer. The first request is
//! [`kind::JOIN`]. Whoever breaks these rules is disconnected, which ends its domain.
//!
//! | kind | body | body of the answer | descriptors |
//! |---|---|---|---|
//! | `JOIN` | [`Join`] | [`Joined`] | grant pool, grant table |
//! | `HYPERCALL` | Xen's argument structures | the same, filled in | those of an event channel: incoming, outgoing |
//! | `POOL` | [`Pool`] | [`PoolFound`] | the pool |
//! | `STORE` | – | – | a connection to xenstore |
//!
//! A hypercall's guest address is an offset in the body; its argument structures begin at 0. Only `alloc_unbound` and
//! `bind_interdomain` answer with descriptors, and only when they succeed. An [`Answer`] that reports an error has
//! neither body nor descriptors, except that of a hypercall.

use ring_proto::shared::{Wire, bytes_of};
use ring_proto::wire;

/// The version of this protocol that [`Join`] names.
pub const VERSION: u32 = 1;
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Most descriptors in a message.
pub const MAX_FDS: usize = 2;
/// In [`Request::flags`]: no answer is wanted, whatever comes of it.
pub const QUIET: u32 = 1;
/// In [`Join::domid`]: any id that is free.
pub const ANY_DOMID: u32 = u32::MAX;
/// Longest name of a domain, in bytes.
pub const MAX_NAME: usize = 64;

/// Kinds of requests.
pub mod kind {
    /// Become a domain.
    pub const JOIN: u32 = 1;
    /// Make a hypercall.
    pub const HYPERCALL: u32 = 2;
    /// Get the descriptor of the pool that a mapped frame lies in.
    pub const POOL: u32 = 3;
    /// Open a connection to xenstore with this domain's identity.
    pub const STORE: u32 = 4;
}

wire! {
    /// How each message of a domain begins.
    pub struct Request {
        /// One of [`kind`].
        pub kind: u32,
        /// [`QUIET`] or nothing.
        pub flags: u32,
        /// Number of the hypercall (`__HYPERVISOR_*`).
        pub number: u32,
        /// Its first argument: the operation.
        pub command: u32,
        /// Its third argument: how many structures the body holds.
        pub count: u32,
        /// Nothing.
        pub pad: u32,
    }
}

wire! {
    /// How each answer begins.
    pub struct Answer {
        /// What the request yielded, as the register in which a hypercall returns has it: what Xen returns, else 0; a
        /// negated `Errno` when refused.
        pub result: u64,
    }
}

wire! {
    /// Body of [`kind::JOIN`]. The name fills the rest.
    pub struct Join {
        /// [`VERSION`].
        pub version: u32,
        /// The id wanted, or [`ANY_DOMID`].
        pub domid: u32,
        /// Size of the grant pool in pages of 4096 bytes.
        pub pool_pages: u32,
        /// Bytes of `name` in use.
        pub name_len: u32,
        /// The domain's name, UTF-8.
        pub name: [u8; MAX_NAME],
    }
}

wire! {
    /// What a domain has got.
    pub struct Joined {
        /// Its id.
        pub domid: u32,
        /// Frames of the grant table (version 1), all of them present.
        pub grant_frames: u32,
        /// Guest frame of the first page of the pool; the others follow.
        pub pool_gfn: u64,
    }
}

wire! {
    /// Body of [`kind::POOL`].
    pub struct Pool {
        /// Machine frame of a page that the domain has mapped.
        pub mfn: u64,
        /// 1 to get it for writing; the domain must have mapped the page so.
        pub writable: u32,
        /// Nothing.
        pub pad: u32,
    }
}

wire! {
    /// Which pool it is.
    pub struct PoolFound {
        /// Machine frame of its first page; the others follow. Never used again for another pool.
        pub base_mfn: u64,
        /// How many pages it has.
        pub pages: u64,
    }
}

/// The bytes of a message: `head`, then `body`.
pub fn message<T: Wire>(head: &T, body: &[u8]) -> Vec<u8> {
    message_of(head, body)
}

/// The bytes of a message: `head`, then an array of structures.
pub fn message_of<T: Wire, U: Wire>(head: &T, items: &[U]) -> Vec<u8> {
    let mut message = Vec::with_capacity(size_of::<T>() + size_of_val(items));
    message.extend_from_slice(bytes_of(head));
    for item in items {
        message.extend_from_slice(bytes_of(item));
    }
    message
}

/// The structures that `bytes` is an array of; a remainder is left out.
pub fn array<T: Wire>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).filter_map(ring_proto::shared::from_bytes)
}
