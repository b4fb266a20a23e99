// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The network protocol (`io/netif.h`): packets from a frontend (tx), to a frontend (rx), and the control ring.
//!
//! A packet is a chain of slots: the first, then descriptors of extra info, then the rest of its fragments. Flags say
//! whether more follows, so a chain has no length that could be checked beforehand. [`TxItem::gather`] and
//! [`RxItem::gather`] take a chain from a ring to its end and yield it checked: every fragment within its page, and
//! no more of them than a packet may have. They tell apart what costs the peer one packet and what costs it the
//! connection, as stock Linux does.
//!
//! ```text
//! tx:  slot 0 (size of the packet) │ extra … │ slot 1 (size of the fragment) │ slot 2 …
//! rx:  slot 0 (size of the fragment) │ extra … │ slot 1 │ slot 2 …
//! ```
//!
//! ```
//! use ring_proto::netif::{Extras, Fragment, TxItem, TxPacket};
//! use ring_proto::xen::GrantRef;
//!
//! let header = Fragment::new(1, GrantRef(8), 4000, 96).expect("in its page");
//! let data = Fragment::new(2, GrantRef(9), 0, 1400).expect("in its page");
//! let packet = TxPacket::new(&[header, data], Extras::default()).expect("not too long");
//!
//! let mut slots = packet.requests();
//! let gathered = TxItem::gather(20, || Ok(slots.next())).expect("an honest frontend");
//! assert_eq!(gathered, Some(TxItem::Packet(packet)));
//! ```

mod ctrl;
mod extra;
mod rx;
#[cfg(test)]
mod tests;
mod tx;
mod wire;

pub use ctrl::{
    Algorithm, BadCtrlRequest, BadCtrlResponse, CtrlCall, CtrlRequest, CtrlResponse, CtrlStatus,
    CtrlType, Grefs,
};
pub use extra::{Extra, ExtraError, Extras, Gso, GsoType, Hash, HashType, Multicast, Xdp};
pub use rx::{RxError, RxFragment, RxItem, RxPacket};
pub use tx::{
    BadTxResponse, Fragment, TxError, TxItem, TxPacket, TxProblem, TxResponse, TxSlots, TxStatus,
};
pub use wire::{
    RawCtrlRequest, RawCtrlResponse, RawExtra, RawGref, RawRxRequest, RawRxResponse, RawTxRequest,
    RawTxResponse,
};

use crate::ring;

/// A frontend's end of a tx ring.
pub type TxFrontRing<M> = ring::FrontRing<M, RawTxRequest, RawTxResponse>;
/// A backend's end of a tx ring.
pub type TxBackRing<M> = ring::BackRing<M, RawTxRequest, RawTxResponse>;
/// A frontend's end of an rx ring.
pub type RxFrontRing<M> = ring::FrontRing<M, RawRxRequest, RawRxResponse>;
/// A backend's end of an rx ring.
pub type RxBackRing<M> = ring::BackRing<M, RawRxRequest, RawRxResponse>;
/// A frontend's end of a control ring.
pub type CtrlFrontRing<M> = ring::FrontRing<M, RawCtrlRequest, RawCtrlResponse>;
/// A backend's end of a control ring.
pub type CtrlBackRing<M> = ring::BackRing<M, RawCtrlRequest, RawCtrlResponse>;

/// Slots of a packet that every backend has to accept (`XEN_NETIF_NR_SLOTS_MIN`).
pub const NR_SLOTS_MIN: usize = 18;

/// Most fragments of a packet. Stock backends accept 18 slots after the first, and old frontends send as many.
pub const MAX_FRAGMENTS: usize = NR_SLOTS_MIN + 1;

/// Largest packet in bytes (`XEN_NETIF_MAX_TX_SIZE`).
pub const MAX_TX_SIZE: usize = 0xffff;

/// Least bytes of a packet: an Ethernet header.
pub const ETH_HLEN: u16 = 14;

/// Bits of a tx slot's `flags` (`NETTXF_*`).
pub mod tx_flags {
    /// The checksum has still to be filled in.
    pub const CSUM_BLANK: u16 = 1;
    /// The sender vouches for the data.
    pub const DATA_VALIDATED: u16 = 2;
    /// Another fragment follows.
    pub const MORE_DATA: u16 = 4;
    /// Extra info follows.
    pub const EXTRA_INFO: u16 = 8;
}

/// Bits of an rx slot's `flags` (`NETRXF_*`).
pub mod rx_flags {
    /// The sender vouches for the data.
    pub const DATA_VALIDATED: u16 = 1;
    /// The checksum has still to be filled in.
    pub const CSUM_BLANK: u16 = 2;
    /// Another fragment follows.
    pub const MORE_DATA: u16 = 4;
    /// Extra info follows.
    pub const EXTRA_INFO: u16 = 8;
    /// An old way to say the segment size; this crate neither sends nor accepts it.
    pub const GSO_PREFIX: u16 = 16;
}

/// `flag`, if it shall be set.
const fn flag(set: bool, flag: u16) -> u16 {
    if set {
        flag
    } else {
        0
    }
}
