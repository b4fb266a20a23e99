// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, ReadDirectory, WriteDirectory};
use super::super::Key;
use super::keys;

/// Writes flags.
pub(super) fn write_flags<D: WriteDirectory>(
    own: &mut D,
    flags: &[(Key, bool)],
) -> Result<(), D::Error> {
    for (key, on) in flags {
        own.write(key.name, format_args!("{}", u8::from(*on)))?;
    }
    Ok(())
}

/// Which packets an end accepts beside plain ones. What it may send is what its peer accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Packets in several slots.
    pub sg: bool,
    /// Large TCP packets over IPv4. Needs `sg`.
    pub gso_tcpv4: bool,
    /// Large TCP packets over IPv6. Needs `sg`.
    pub gso_tcpv6: bool,
    /// TCP and UDP packets over IPv4 without a checksum.
    pub csum_ipv4: bool,
    /// TCP and UDP packets over IPv6 without a checksum.
    pub csum_ipv6: bool,
}

impl Default for Offloads {
    /// What an end accepts that writes nothing.
    fn default() -> Self {
        Self { sg: false, gso_tcpv4: false, gso_tcpv6: false, csum_ipv4: true, csum_ipv6: false }
    }
}

impl Offloads {
    /// Everything that the protocol has.
    pub const ALL: Self =
        Self { sg: true, gso_tcpv4: true, gso_tcpv6: true, csum_ipv4: true, csum_ipv6: true };

    pub(super) fn write<D: WriteDirectory>(&self, own: &mut D) -> Result<(), D::Error> {
        write_flags(
            own,
            &[
                (keys::SG, self.sg),
                (keys::GSO_TCPV4, self.gso_tcpv4),
                (keys::GSO_TCPV6, self.gso_tcpv6),
                (keys::NO_CSUM_OFFLOAD, !self.csum_ipv4),
                (keys::IPV6_CSUM_OFFLOAD, self.csum_ipv6),
            ],
        )
    }

    /// Reads what the peer accepts. A large packet does not fit in one slot, so without `sg` there is none.
    pub(super) fn read<D: ReadDirectory>(peer: &mut D) -> Result<Self, Error<D::Error>> {
        let sg = keys::SG.flag(peer)?;
        Ok(Self {
            sg,
            gso_tcpv4: keys::GSO_TCPV4.flag(peer)? && sg,
            gso_tcpv6: keys::GSO_TCPV6.flag(peer)? && sg,
            csum_ipv4: !keys::NO_CSUM_OFFLOAD.flag(peer)?,
            csum_ipv6: keys::IPV6_CSUM_OFFLOAD.flag(peer)?,
        })
    }
}

/// What a backend offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFeatures {
    /// Most queues, at least 1.
    pub max_queues: u32,
    /// A queue may have a doorbell for each direction.
    pub split_event_channels: bool,
    /// Packets to the guest are copied. A frontend cannot do without.
    pub rx_copy: bool,
    /// Multicast packets can be filtered.
    pub multicast_control: bool,
    /// The filter can be switched while connected.
    pub dynamic_multicast_control: bool,
    /// A control ring is served.
    pub ctrl_ring: bool,
    /// Room can be left before received packets.
    pub xdp_headroom: bool,
    /// What the guest may send.
    pub offloads: Offloads,
}

impl Default for BackendFeatures {
    /// What a backend offers that writes nothing.
    fn default() -> Self {
        Self {
            max_queues: 1,
            split_event_channels: false,
            rx_copy: false,
            multicast_control: false,
            dynamic_multicast_control: false,
            ctrl_ring: false,
            xdp_headroom: false,
            offloads: Offloads::default(),
        }
    }
}

impl BackendFeatures {
    /// Publishes them in the backend's own directory, before it goes to `InitWait`.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    pub fn write<D: WriteDirectory>(&self, own: &mut D) -> Result<(), D::Error> {
        own.write(keys::MAX_QUEUES.name, format_args!("{}", self.max_queues))?;
        self.offloads.write(own)?;
        write_flags(
            own,
            &[
                (keys::SPLIT_EVENT_CHANNELS, self.split_event_channels),
                (keys::RX_COPY, self.rx_copy),
                (keys::RX_FLIP, false),
                (keys::MULTICAST_CONTROL, self.multicast_control),
                (keys::DYNAMIC_MULTICAST_CONTROL, self.dynamic_multicast_control),
                (keys::CTRL_RING, self.ctrl_ring),
                (keys::FEATURE_XDP_HEADROOM, self.xdp_headroom),
            ],
        )
    }

    /// Reads them from the backend's directory, when it is at `InitWait`.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is not legal.
    pub fn read<D: ReadDirectory>(backend: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(Self {
            max_queues: keys::MAX_QUEUES.u32(backend)?,
            split_event_channels: keys::SPLIT_EVENT_CHANNELS.flag(backend)?,
            rx_copy: keys::RX_COPY.flag(backend)?,
            multicast_control: keys::MULTICAST_CONTROL.flag(backend)?,
            dynamic_multicast_control: keys::DYNAMIC_MULTICAST_CONTROL.flag(backend)?,
            ctrl_ring: keys::CTRL_RING.flag(backend)?,
            xdp_headroom: keys::FEATURE_XDP_HEADROOM.flag(backend)?,
            offloads: Offloads::read(backend)?,
        })
    }
}
