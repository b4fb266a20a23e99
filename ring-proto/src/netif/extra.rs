// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Extra info about a packet.

use super::wire::RawExtra;
use crate::ring::RingError;

/// More extra info follows (`XEN_NETIF_EXTRA_FLAG_MORE`).
const FLAG_MORE: u8 = 1;

/// Protocol of a packet to be cut into segments (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoType {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 2,
}

/// A packet to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Most payload of a segment in bytes, not zero.
    pub size: u16,
    /// The protocol.
    pub kind: GsoType,
    /// What the cutting needs beyond the protocol; no bit of it has a meaning yet.
    pub features: u16,
}

/// What a packet's hash was taken over (`_XEN_NETIF_CTRL_HASH_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashType {
    /// IPv4 addresses.
    Ipv4 = 0,
    /// IPv4 addresses and TCP ports.
    Ipv4Tcp = 1,
    /// IPv6 addresses.
    Ipv6 = 2,
    /// IPv6 addresses and TCP ports.
    Ipv6Tcp = 3,
}

impl HashType {
    /// The type with this number.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Ipv4),
            1 => Some(Self::Ipv4Tcp),
            2 => Some(Self::Ipv6),
            3 => Some(Self::Ipv6Tcp),
            _ => None,
        }
    }

    /// Its bit in a set of types (`XEN_NETIF_CTRL_HASH_TYPE_*`).
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// A packet's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Number of what it was taken over: a [`HashType`], or one that this crate does not know.
    pub kind: u8,
    /// Number of the algorithm.
    pub algorithm: u8,
    /// The hash.
    pub value: u32,
}

/// A change of the list of multicast addresses that the frontend wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multicast {
    /// Add this address.
    Add([u8; 6]),
    /// Remove this address.
    Del([u8; 6]),
}

/// How a packet lies for a program of the express data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Free bytes before the data.
    pub headroom: u16,
}

/// One descriptor of extra info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// How to cut the packet (`XEN_NETIF_EXTRA_TYPE_GSO`).
    Gso(Gso),
    /// A change of the multicast list (`XEN_NETIF_EXTRA_TYPE_MCAST_ADD` and `_DEL`).
    Multicast(Multicast),
    /// The packet's hash (`XEN_NETIF_EXTRA_TYPE_HASH`).
    Hash(Hash),
    /// Headroom (`XEN_NETIF_EXTRA_TYPE_XDP`).
    Xdp(Xdp),
}

/// Extra info that no peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraError {
    /// There is no kind of this number.
    Kind(u8),
    /// The kind of this number came before in the same packet.
    Repeated(u8),
    /// A segment size of zero, or no protocol of this number.
    Gso {
        /// Most payload of a segment.
        size: u16,
        /// Number of the protocol.
        kind: u8,
    },
    /// More was announced than there is.
    Missing,
}

impl core::fmt::Display for ExtraError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "there is no extra info of kind {kind}"),
            Self::Repeated(kind) => write!(f, "extra info of kind {kind} comes twice"),
            Self::Gso { size, kind } => {
                write!(f, "segments of {size} bytes of protocol {kind} cannot be cut")
            }
            Self::Missing => f.write_str("extra info was announced but is missing"),
        }
    }
}

impl core::error::Error for ExtraError {}

impl Extra {
    /// Number of the kind of [`Extra::Gso`].
    pub const GSO: u8 = 1;
    /// Number of the kind of [`Multicast::Add`].
    pub const MCAST_ADD: u8 = 2;
    /// Number of the kind of [`Multicast::Del`].
    pub const MCAST_DEL: u8 = 3;
    /// Number of the kind of [`Extra::Hash`].
    pub const HASH: u8 = 4;
    /// Number of the kind of [`Extra::Xdp`]. Linux's `netif.h` has it; Xen's own since 4.18.
    pub const XDP: u8 = 5;

    /// Judges a descriptor.
    ///
    /// # Errors
    ///
    /// [`ExtraError::Kind`] and [`ExtraError::Gso`].
    pub fn check(raw: &RawExtra) -> Result<Self, ExtraError> {
        let [a, b, c, d, e, f] = raw.data;
        let first = u16::from_ne_bytes([a, b]);
        match raw.kind {
            Self::GSO => {
                let kind = match c {
                    1 if first > 0 => GsoType::TcpV4,
                    2 if first > 0 => GsoType::TcpV6,
                    kind => return Err(ExtraError::Gso { size: first, kind }),
                };
                Ok(Self::Gso(Gso { size: first, kind, features: u16::from_ne_bytes([e, f]) }))
            }
            Self::MCAST_ADD => Ok(Self::Multicast(Multicast::Add(raw.data))),
            Self::MCAST_DEL => Ok(Self::Multicast(Multicast::Del(raw.data))),
            Self::HASH => Ok(Self::Hash(Hash {
                kind: a,
                algorithm: b,
                value: u32::from_le_bytes([c, d, e, f]),
            })),
            Self::XDP => Ok(Self::Xdp(Xdp { headroom: first })),
            kind => Err(ExtraError::Kind(kind)),
        }
    }

    fn to_raw(self, more: bool) -> RawExtra {
        let (kind, data) = match self {
            Self::Gso(gso) => {
                let ([a, b], [e, f]) = (gso.size.to_ne_bytes(), gso.features.to_ne_bytes());
                (Self::GSO, [a, b, gso.kind as u8, 0, e, f])
            }
            Self::Multicast(Multicast::Add(address)) => (Self::MCAST_ADD, address),
            Self::Multicast(Multicast::Del(address)) => (Self::MCAST_DEL, address),
            Self::Hash(hash) => {
                let [c, d, e, f] = hash.value.to_le_bytes();
                (Self::HASH, [hash.kind, hash.algorithm, c, d, e, f])
            }
            Self::Xdp(xdp) => {
                let [a, b] = xdp.headroom.to_ne_bytes();
                (Self::XDP, [a, b, 0, 0, 0, 0])
            }
        };
        RawExtra { kind, flags: if more { FLAG_MORE } else { 0 }, data }
    }
}

/// The extra info of one packet: of each kind at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// How to cut it.
    pub gso: Option<Gso>,
    /// A change of the multicast list; there is no packet then.
    pub multicast: Option<Multicast>,
    /// Its hash.
    pub hash: Option<Hash>,
    /// Its headroom.
    pub xdp: Option<Xdp>,
}

impl Extras {
    /// Number of descriptors, at most four.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// The descriptors one by one.
    pub fn iter(&self) -> impl Iterator<Item = Extra> {
        [
            self.gso.map(Extra::Gso),
            self.multicast.map(Extra::Multicast),
            self.hash.map(Extra::Hash),
            self.xdp.map(Extra::Xdp),
        ]
        .into_iter()
        .flatten()
    }

    /// The descriptors as they go into slots.
    pub fn to_raw(self) -> impl Iterator<Item = RawExtra> {
        let last = self.count().wrapping_sub(1);
        let mut index = 0;
        self.iter().map(move |extra| {
            let raw = extra.to_raw(index != last);
            index += 1;
            raw
        })
    }

    /// Takes descriptors to the last that follows. The outer error is the ring's.
    pub(super) fn gather(
        mut next: impl FnMut() -> Result<Option<RawExtra>, RingError>,
    ) -> Result<Result<Self, ExtraError>, RingError> {
        let mut extras = Self::default();
        loop {
            let Some(raw) = next()? else { return Ok(Err(ExtraError::Missing)) };
            let repeated = match Extra::check(&raw) {
                Ok(Extra::Gso(gso)) => extras.gso.replace(gso).is_some(),
                Ok(Extra::Multicast(change)) => extras.multicast.replace(change).is_some(),
                Ok(Extra::Hash(hash)) => extras.hash.replace(hash).is_some(),
                Ok(Extra::Xdp(xdp)) => extras.xdp.replace(xdp).is_some(),
                Err(error) => return Ok(Err(error)),
            };
            if repeated {
                return Ok(Err(ExtraError::Repeated(raw.kind)));
            }
            if raw.flags & FLAG_MORE == 0 {
                return Ok(Ok(extras));
            }
        }
    }
}
