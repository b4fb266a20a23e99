// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Every key of a `vif`, beside those that [every device](super::super::keys) has.

use super::super::key::{keys, Absent, Key, Kind, Place, Source, Writer};
use super::MAX_XDP_HEADROOM;

/// A number of 32 bits that is at least 1.
const POSITIVE: Kind = Kind::Number { min: 1, max: u32::MAX as u64 };

keys! {
    MAC = Both "mac", Kind::Text("six hexadecimal bytes with colons, not a group's address"), by Toolstack,
        absent Absent::Error, Xen:
        "the guest's Ethernet address";
    HANDLE = Both "handle", Kind::U32, by Toolstack, absent Absent::Error, Linux:
        "which interface of the guest this is";
    MTU = Both "mtu", Kind::Number { min: 68, max: 65535 }, by Toolstack, absent Absent::Number(1500), Xen:
        "bytes of payload that a packet may have";
    TYPE = Backend "type", Kind::Text("`vif`, `vif_ioemu`"), by Toolstack, absent Absent::As("`vif`"), Linux:
        "what the toolstack made";
    SCRIPT = Backend "script", Kind::Text("path"), by Toolstack, absent Absent::As("none"), Linux:
        "the hotplug script of the kernel's backend";
    BRIDGE = Backend "bridge", Kind::Text("name"), by Toolstack, absent Absent::As("none"), Linux:
        "the bridge that the script adds the interface to";
    VIFNAME = Backend "vifname", Kind::Text("name"), by Toolstack, absent Absent::As("vifDOMID.HANDLE"), Linux:
        "what the backend's interface is called";
    IP = Backend "ip", Kind::Text("addresses"), by Toolstack, absent Absent::As("none"), Linux:
        "the guest's addresses, for the script";
    RATE = Backend "rate", Kind::Text("BYTES,MICROSECONDS with at least 1 byte"), by Toolstack,
        absent Absent::As("no limit"), Linux:
        "bytes that the guest may send in an interval; an interval of 0: no limit";
    MAX_QUEUES = Backend "multi-queue-max-queues", POSITIVE, by Driver, absent Absent::Number(1), Xen:
        "most queues that the backend serves";
    SPLIT_EVENT_CHANNELS = Backend "feature-split-event-channels", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether a queue may have a doorbell for each direction";
    RX_COPY = Backend "feature-rx-copy", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the backend copies packets into the guest's pages; there is no other way left";
    RX_FLIP = Backend "feature-rx-flip", Kind::Flag, by Driver, absent Absent::Number(1), Linux:
        "whether the backend transfers pages to the guest; always 0 here";
    MULTICAST_CONTROL = Backend "feature-multicast-control", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the backend can filter multicast packets";
    DYNAMIC_MULTICAST_CONTROL = Backend "feature-dynamic-multicast-control", Kind::Flag, by Driver,
        absent Absent::Number(0), Xen:
        "whether the filter can be switched while connected";
    CTRL_RING = Backend "feature-ctrl-ring", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the backend serves a control ring";
    FEATURE_XDP_HEADROOM = Backend "feature-xdp-headroom", Kind::Flag, by Driver, absent Absent::Number(0), Linux:
        "whether the backend can leave room before received packets";
    CARRIER = Backend "carrier", Kind::Flag, by Driver, absent Absent::Number(1), Xen:
        "whether the link is up; may change while connected";
    SG = Both "feature-sg", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether this end accepts packets in several slots";
    GSO_TCPV4 = Both "feature-gso-tcpv4", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether this end accepts large TCP packets over IPv4";
    GSO_TCPV6 = Both "feature-gso-tcpv6", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether this end accepts large TCP packets over IPv6";
    NO_CSUM_OFFLOAD = Both "feature-no-csum-offload", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "1: this end does not accept IPv4 packets without a checksum";
    IPV6_CSUM_OFFLOAD = Both "feature-ipv6-csum-offload", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether this end accepts IPv6 packets without a checksum";
    TRUSTED = Frontend "trusted", Kind::Flag, by Toolstack, absent Absent::Number(1), Xen:
        "0: the frontend shows the backend no page that holds anything else";
    NUM_QUEUES = Frontend "multi-queue-num-queues", POSITIVE, by Driver, absent Absent::Number(1), Xen:
        "how many queues there are; with 2 or more, each has a directory `queue-N`";
    TX_RING_REF = Frontend queue "tx-ring-ref", Kind::GrantRef, by Driver, absent Absent::Error, Xen:
        "the ring of packets from the guest";
    RX_RING_REF = Frontend queue "rx-ring-ref", Kind::GrantRef, by Driver, absent Absent::Error, Xen:
        "the ring of packets to the guest";
    EVENT_CHANNEL = Frontend queue "event-channel", Kind::Port, by Driver, absent Absent::Error, Xen:
        "the doorbell of both rings";
    EVENT_CHANNEL_TX = Frontend queue "event-channel-tx", Kind::Port, by Driver, absent Absent::As("`event-channel`"), Xen:
        "the doorbell of the ring of packets from the guest";
    EVENT_CHANNEL_RX = Frontend queue "event-channel-rx", Kind::Port, by Driver, absent Absent::Error, Xen:
        "the doorbell of the ring of packets to the guest; needed beside `event-channel-tx`";
    CTRL_RING_REF = Frontend "ctrl-ring-ref", Kind::GrantRef, by Driver, absent Absent::As("no control ring"), Xen:
        "the control ring";
    EVENT_CHANNEL_CTRL = Frontend "event-channel-ctrl", Kind::Port, by Driver, absent Absent::Error, Xen:
        "the doorbell of the control ring; needed beside `ctrl-ring-ref`";
    REQUEST_RX_COPY = Frontend "request-rx-copy", Kind::Flag, by Driver, absent Absent::Error, Linux:
        "has to be 1: packets to the guest are copied";
    RX_NOTIFY = Frontend "feature-rx-notify", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the frontend rings the doorbell when it has given pages to receive into";
    REQUEST_MULTICAST_CONTROL = Frontend "request-multicast-control", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the backend is to drop multicast packets that the frontend did not ask for";
    XDP_HEADROOM = Frontend "xdp-headroom", Kind::Number { min: 0, max: MAX_XDP_HEADROOM as u64 }, by Driver,
        absent Absent::Number(0), Linux:
        "bytes to leave before received packets";
}
