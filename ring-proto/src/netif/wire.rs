// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The bytes of a slot. Nothing in them has been checked.

use crate::shared::{bytes_of, from_bytes};
use crate::wire;

wire! {
    /// A fragment to send (`struct netif_tx_request`).
    pub struct RawTxRequest {
        /// Grant of the page.
        pub gref: u32,
        /// Where in the page the fragment begins.
        pub offset: u16,
        /// [`tx_flags`](super::tx_flags).
        pub flags: u16,
        /// The frontend's own value.
        pub id: u16,
        /// Bytes of the packet in its first slot, of the fragment in all others.
        pub size: u16,
    }
}

wire! {
    /// The answer to a fragment (`struct netif_tx_response`).
    pub struct RawTxResponse {
        /// That of the request.
        pub id: u16,
        /// What became of it (an `int16_t` there).
        pub status: u16,
    }
}

wire! {
    /// Room for a fragment to receive (`struct netif_rx_request`).
    pub struct RawRxRequest {
        /// The frontend's own value.
        pub id: u16,
        /// Not used.
        pub pad: u16,
        /// Grant of the page.
        pub gref: u32,
    }
}

wire! {
    /// A fragment received (`struct netif_rx_response`).
    pub struct RawRxResponse {
        /// That of the request.
        pub id: u16,
        /// Where in the page the fragment begins.
        pub offset: u16,
        /// [`rx_flags`](super::rx_flags).
        pub flags: u16,
        /// Bytes of the fragment, or a negative status (an `int16_t` there).
        pub status: u16,
    }
}

wire! {
    /// Extra info about a packet, in place of a slot of either ring (`struct netif_extra_info`).
    pub struct RawExtra {
        /// Number of the kind.
        pub kind: u8,
        /// Bit 0: more extra info follows.
        pub flags: u8,
        /// As the kind has it.
        pub data: [u8; 6],
    }
}

wire! {
    /// A control request (`struct xen_netif_ctrl_request`).
    pub struct RawCtrlRequest {
        /// The frontend's own value.
        pub id: u16,
        /// Number of the type.
        pub kind: u16,
        /// As the type has it.
        pub data: [u32; 3],
    }
}

wire! {
    /// A control response (`struct xen_netif_ctrl_response`).
    pub struct RawCtrlResponse {
        /// That of the request.
        pub id: u16,
        /// That of the request.
        pub kind: u16,
        /// What became of it.
        pub status: u32,
        /// As the type has it.
        pub data: u32,
    }
}

wire! {
    /// An entry of the list of staging grants to map or unmap (`struct xen_netif_gref`).
    pub struct RawGref {
        /// The grant.
        pub gref: u32,
        /// [`READONLY`](RawGref::READONLY) or zero.
        pub flags: u16,
        /// What became of it: written by the backend when it unmaps.
        pub status: u16,
    }
}

impl RawGref {
    /// The page is only to be read (`XEN_NETIF_CTRLF_GREF_readonly`).
    pub const READONLY: u16 = 1;
}

impl RawTxRequest {
    /// The slot seen as extra info.
    #[inline]
    pub fn as_extra(&self) -> RawExtra {
        from_bytes(bytes_of(self)).unwrap_or_default()
    }
}

impl From<RawExtra> for RawTxRequest {
    #[inline]
    fn from(extra: RawExtra) -> Self {
        let [a, b, c, d, e, f] = extra.data;
        Self {
            gref: u32::from_ne_bytes([extra.kind, extra.flags, a, b]),
            offset: u16::from_ne_bytes([c, d]),
            flags: u16::from_ne_bytes([e, f]),
            id: 0,
            size: 0,
        }
    }
}

impl RawRxResponse {
    /// The slot seen as extra info.
    #[inline]
    pub fn as_extra(&self) -> RawExtra {
        from_bytes(bytes_of(self)).unwrap_or_default()
    }
}

impl From<RawExtra> for RawRxResponse {
    #[inline]
    fn from(extra: RawExtra) -> Self {
        from_bytes(bytes_of(&extra)).unwrap_or_default()
    }
}
