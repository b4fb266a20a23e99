// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::format;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::fake::{every_bad_value, refused, Fake};
use super::super::Reason;
use super::*;
use crate::xen::{GrantRef, Port};

const OFFER: BackendFeatures = BackendFeatures {
    max_queues: 4,
    split_event_channels: true,
    rx_copy: true,
    multicast_control: true,
    dynamic_multicast_control: true,
    ctrl_ring: true,
    xdp_headroom: true,
    offloads: Offloads::ALL,
};

const SETTINGS: FrontendSettings = FrontendSettings {
    queues: 1,
    split_event_channels: true,
    ctrl_ring: false,
    multicast_control: false,
    rx_notify: true,
    xdp_headroom: 0,
    offloads: Offloads::ALL,
};

/// What libxl and Linux's xen-netback write.
fn stock_backend() -> Fake {
    Fake::of(&[
        ("frontend", "/local/domain/1/device/vif/0"),
        ("frontend-id", "1"),
        ("online", "1"),
        ("state", "2"),
        ("script", "/etc/xen/scripts/vif-bridge"),
        ("mac", "00:16:3E:cd:7b:dd"),
        ("bridge", "xenbr0"),
        ("handle", "0"),
        ("type", "vif"),
        ("rate", "1250000,50000"),
        ("hotplug-status", "connected"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-rx-copy", "1"),
        ("feature-xdp-headroom", "1"),
        ("feature-rx-flip", "0"),
        ("feature-multicast-control", "1"),
        ("feature-dynamic-multicast-control", "1"),
        ("feature-split-event-channels", "1"),
        ("multi-queue-max-queues", "4"),
        ("feature-ctrl-ring", "1"),
    ])
}

/// What Linux's xen-netfront writes with 2 queues.
fn stock_frontend() -> Fake {
    Fake::of(&[
        ("backend", "/local/domain/0/backend/vif/1/0"),
        ("backend-id", "0"),
        ("state", "4"),
        ("handle", "0"),
        ("mac", "00:16:3e:cd:7b:dd"),
        ("mtu", "1500"),
        ("xdp-headroom", "0"),
        ("multi-queue-num-queues", "2"),
        ("queue-0", ""),
        ("queue-0/tx-ring-ref", "768"),
        ("queue-0/rx-ring-ref", "769"),
        ("queue-0/event-channel-tx", "9"),
        ("queue-0/event-channel-rx", "10"),
        ("queue-1", ""),
        ("queue-1/tx-ring-ref", "770"),
        ("queue-1/rx-ring-ref", "771"),
        ("queue-1/event-channel-tx", "11"),
        ("queue-1/event-channel-rx", "12"),
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
    ])
}

/// One queue with one doorbell, as every frontend had before there were more.
fn old_frontend() -> Fake {
    Fake::of(&[
        ("tx-ring-ref", "768"),
        ("rx-ring-ref", "769"),
        ("event-channel", "9"),
        ("request-rx-copy", "1"),
    ])
}

/// The same with a control ring and room for XDP.
fn full_frontend() -> Fake {
    let mut directory = stock_frontend();
    directory.set(&[
        ("ctrl-ring-ref", "800"),
        ("event-channel-ctrl", "20"),
        ("request-multicast-control", "1"),
        ("xdp-headroom", "256"),
        ("trusted", "0"),
    ]);
    directory
}

fn queue(first: u32, split: bool) -> Queue {
    Queue {
        tx: GrantRef(first),
        rx: GrantRef(first + 1),
        channels: match split {
            true => Channels::Split { tx: Port(first), rx: Port(first + 1) },
            false => Channels::Shared(Port(first)),
        },
    }
}

#[test]
fn a_stock_backend_is_read() {
    let mut directory = stock_backend();
    assert_eq!(BackendFeatures::read(&mut directory).unwrap(), OFFER);
    let config = BackendConfig::read(&mut directory).unwrap();
    assert_eq!(format!("{}", config.mac), "00:16:3e:cd:7b:dd");
    assert_eq!((config.handle, config.mtu), (0, 1500));
    assert_eq!(config.rate, Some(Rate { bytes: 1250000, microseconds: 50000 }));
    let old = BackendFeatures::read(&mut Fake::default()).unwrap();
    assert_eq!(old, BackendFeatures::default());
}

#[test]
fn a_stock_frontend_is_read() {
    let connection = Connection::read(&mut stock_frontend(), &OFFER).unwrap();
    assert_eq!(connection.settings(), &FrontendSettings { queues: 2, ..SETTINGS });
    let queues = [(768, 9), (770, 11)].map(|(page, port)| Queue {
        tx: GrantRef(page),
        rx: GrantRef(page + 1),
        channels: Channels::Split { tx: Port(port), rx: Port(port + 1) },
    });
    assert_eq!(connection.queues(), &queues);
    assert_eq!(connection.control(), None);
    let config = FrontendConfig::read(&mut stock_frontend()).unwrap();
    assert_eq!((config.mtu, config.trusted), (1500, true));
}

#[test]
fn an_old_frontend_is_read() {
    let connection = Connection::read(&mut old_frontend(), &OFFER).unwrap();
    let settings = FrontendSettings {
        split_event_channels: false,
        rx_notify: false,
        offloads: Offloads::default(),
        ..SETTINGS
    };
    assert_eq!(connection.settings(), &settings);
    let channels = Channels::Shared(Port(9));
    assert_eq!(connection.queues(), &[Queue { tx: GrantRef(768), rx: GrantRef(769), channels }]);
}

#[test]
fn a_control_ring_and_headroom_are_read_if_offered() {
    let connection = Connection::read(&mut full_frontend(), &OFFER).unwrap();
    assert_eq!(connection.control(), Some(&Control { gref: GrantRef(800), port: Port(20) }));
    let settings = connection.settings();
    assert!(settings.ctrl_ring && settings.multicast_control);
    assert_eq!(settings.xdp_headroom, 256);
    assert!(!FrontendConfig::read(&mut full_frontend()).unwrap().trusted);

    let offer = BackendFeatures {
        ctrl_ring: false,
        xdp_headroom: false,
        multicast_control: false,
        ..OFFER
    };
    let connection = Connection::read(&mut full_frontend(), &offer).unwrap();
    assert_eq!(connection.settings(), &FrontendSettings { queues: 2, ..SETTINGS });

    let offer = BackendFeatures { split_event_channels: false, ..OFFER };
    let error = refused(Connection::read(&mut full_frontend(), &offer));
    assert_eq!(error.path.as_str(), "queue-0/event-channel");
}

#[test]
fn every_key_of_the_backend_is_checked() {
    for (key, bad) in [
        ("multi-queue-max-queues", &["0", "4294967296"][..]),
        ("feature-split-event-channels", &["2"]),
        ("feature-rx-copy", &["2"]),
        ("feature-multicast-control", &["2"]),
        ("feature-dynamic-multicast-control", &["2"]),
        ("feature-ctrl-ring", &["2"]),
        ("feature-xdp-headroom", &["2"]),
        ("feature-sg", &["2"]),
        ("feature-gso-tcpv4", &["2"]),
        ("feature-gso-tcpv6", &["2"]),
        ("feature-no-csum-offload", &["2"]),
        ("feature-ipv6-csum-offload", &["2"]),
    ] {
        every_bad_value(&stock_backend(), key, false, bad, BackendFeatures::read);
    }
}

#[test]
fn every_key_of_the_toolstack_is_checked() {
    let macs = [
        "00:16:3e:cd:7b",
        "00:16:3e:cd:7b:dd:00",
        "00:16:3e:cd:7b:",
        "00:16:3e:cd:7b:gg",
        "00:16:3e:cd:7b:+1",
        "000:16:3e:cd:7b:dd",
        "00-16-3e-cd-7b-dd",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
    ];
    for (key, missing_is_bad, bad) in [
        ("mac", true, &macs[..]),
        ("handle", true, &["4294967296"]),
        ("mtu", false, &["67", "65536"]),
    ] {
        every_bad_value(&stock_backend(), key, missing_is_bad, bad, BackendConfig::read);
        every_bad_value(&stock_frontend(), key, missing_is_bad, bad, FrontendConfig::read);
    }
    let rates = ["1", "1,", ",1", "0,1", "1,2,3", "1;2", "-1,2", "1, 2", "18446744073709551616,1"];
    every_bad_value(&stock_backend(), "rate", false, &rates, BackendConfig::read);
    every_bad_value(&stock_frontend(), "trusted", false, &["2"], FrontendConfig::read);
    for none in ["0,0", "1,0", "18446744073709551615,0"] {
        let mut directory = stock_backend().with("rate", none.as_bytes());
        assert_eq!(BackendConfig::read(&mut directory).unwrap().rate, None, "{none}");
    }
}

#[test]
fn every_key_of_the_frontend_is_checked() {
    let read = |directory: &mut Fake| Connection::read(directory, &OFFER);
    for (key, missing_is_bad, bad) in [
        ("queue-0/tx-ring-ref", true, &["0", "4294967296"][..]),
        ("queue-1/rx-ring-ref", true, &["0", "4294967296"]),
        ("queue-0/event-channel-rx", true, &["0", "131072"]),
        ("queue-1/event-channel-tx", true, &["0", "131072"]),
        ("ctrl-ring-ref", false, &["0", "4294967296"]),
        ("event-channel-ctrl", true, &["0", "131072"]),
        ("request-rx-copy", true, &["0", "2"]),
        ("feature-rx-notify", false, &["2"]),
        ("request-multicast-control", false, &["2"]),
        ("xdp-headroom", false, &["32768"]),
        ("feature-sg", false, &["2"]),
        ("feature-no-csum-offload", false, &["2"]),
    ] {
        every_bad_value(&full_frontend(), key, missing_is_bad, bad, read);
    }
    for key in ["tx-ring-ref", "rx-ring-ref", "event-channel"] {
        every_bad_value(&old_frontend(), key, true, &["0"], read);
    }
    for bad in ["0", "5", "17", "4294967295", "4294967296", "-1", "x"] {
        let mut directory = full_frontend().with("multi-queue-num-queues", bad.as_bytes());
        assert_eq!(refused(read(&mut directory)).path.as_str(), "multi-queue-num-queues", "{bad}");
    }
    let mut directory = full_frontend().with("multi-queue-num-queues", b"17");
    let offer = BackendFeatures { max_queues: u32::MAX, ..OFFER };
    let error = refused(Connection::read(&mut directory, &offer));
    assert_eq!(error.reason, Reason::OutOfRange { min: 1, max: 16 });
    let mut more = full_frontend().with("multi-queue-num-queues", b"3");
    assert_eq!(refused(read(&mut more)).path.as_str(), "queue-2/tx-ring-ref");
}

#[test]
fn nothing_is_used_twice() {
    for (key, value, other) in [
        ("queue-0/rx-ring-ref", "768", "queue-0/tx-ring-ref"),
        ("queue-1/tx-ring-ref", "769", "queue-0/rx-ring-ref"),
        ("ctrl-ring-ref", "771", "queue-1/rx-ring-ref"),
        ("queue-0/event-channel-rx", "9", "queue-0/event-channel-tx"),
        ("queue-1/event-channel-tx", "10", "queue-0/event-channel-rx"),
        ("event-channel-ctrl", "12", "queue-1/event-channel-rx"),
    ] {
        let mut directory = full_frontend().with(key, value.as_bytes());
        let error = refused(Connection::read(&mut directory, &OFFER));
        assert_eq!(
            format!("{error}"),
            format!("xenstore key {key} = \"{value}\" is the same as {other}")
        );
    }
}

#[test]
fn settings_stay_within_both_ends_and_this_crate() {
    let most = FrontendSettings {
        queues: u32::MAX,
        ctrl_ring: true,
        multicast_control: true,
        xdp_headroom: u16::MAX,
        ..SETTINGS
    };
    let all = BackendFeatures { max_queues: u32::MAX, ..OFFER };
    let settings = FrontendSettings::negotiate(&most, &all).unwrap();
    assert_eq!(settings, FrontendSettings { queues: 16, xdp_headroom: 0x7fff, ..most });

    let least = BackendFeatures { rx_copy: true, ..BackendFeatures::default() };
    let settings = FrontendSettings::negotiate(&most, &least).unwrap();
    assert_eq!(settings, FrontendSettings { split_event_channels: false, ..SETTINGS });

    let error = FrontendSettings::negotiate(&most, &BackendFeatures::default()).unwrap_err();
    assert_eq!(format!("{error}"), "xenstore key feature-rx-copy = \"0\" has to be 1");
}

#[test]
fn queues_have_to_be_as_negotiated() {
    let two = FrontendSettings { queues: 2, ..SETTINGS };
    let control = Some(Control { gref: GrantRef(30), port: Port(30) });
    let name = |result: Result<Connection, super::super::KeyError>| {
        std::string::String::from(result.unwrap_err().path.as_str())
    };
    Connection::new(two, &[queue(8, true), queue(10, true)], None).unwrap();
    assert_eq!(name(Connection::new(two, &[queue(8, true)], None)), "multi-queue-num-queues");
    let mixed = [queue(8, true), queue(10, false)];
    assert_eq!(name(Connection::new(two, &mixed, None)), "queue-1/event-channel-tx");
    let shared = FrontendSettings { split_event_channels: false, ..SETTINGS };
    assert_eq!(name(Connection::new(shared, &[queue(8, true)], None)), "event-channel");
    assert_eq!(name(Connection::new(SETTINGS, &[queue(8, true)], control)), "ctrl-ring-ref");
    assert_eq!(name(Connection::new(SETTINGS, &[queue(0, true)], None)), "tx-ring-ref");
    let far = FrontendSettings { xdp_headroom: u16::MAX, ..SETTINGS };
    assert_eq!(name(Connection::new(far, &[queue(8, true)], None)), "xdp-headroom");
    let many: Vec<_> = (4..21).map(|at| queue(2 * at, true)).collect();
    let settings = FrontendSettings { queues: 17, ..SETTINGS };
    let error = Connection::new(settings, &many, None).unwrap_err();
    assert_eq!(error.reason, Reason::HasToBe(16));
}

#[test]
fn several_queues_write_nothing_where_a_single_one_does() {
    let mut own = Fake::default();
    for split in [false, true] {
        let settings = FrontendSettings { split_event_channels: split, ..SETTINGS };
        connection(1, settings, 8).write(&mut own).unwrap();
    }
    assert_eq!(own.get("event-channel"), None);
    connection(2, SETTINGS, 8).write(&mut own).unwrap();
    let keys = keys::KEYS.iter().filter(|key| key.per_queue);
    for key in keys {
        assert_eq!(own.get(key.name), None);
    }
}

#[test]
fn large_packets_need_several_slots() {
    let mut directory = stock_backend().with("feature-sg", b"0");
    let offloads = BackendFeatures::read(&mut directory).unwrap().offloads;
    let expected = Offloads { sg: false, gso_tcpv4: false, gso_tcpv6: false, ..Offloads::ALL };
    assert_eq!(offloads, expected);
}

fn connection(queues: u32, settings: FrontendSettings, start: u32) -> Connection {
    let all: Vec<_> =
        (0..queues).map(|at| queue(start + 2 * at, settings.split_event_channels)).collect();
    let last = start + 2 * queues;
    let control = settings.ctrl_ring.then_some(Control { gref: GrantRef(last), port: Port(last) });
    Connection::new(FrontendSettings { queues, ..settings }, &all, control).unwrap()
}

prop_compose! {
    fn connections()(
        queues in 1..=MAX_QUEUES as u32,
        flags: u16,
        xdp_headroom in 0..=MAX_XDP_HEADROOM,
        start in 1..1000u32,
    ) -> Connection {
        let flag = |bit: u16| flags >> bit & 1 != 0;
        let sg = flag(4);
        let offloads = Offloads {
            sg,
            gso_tcpv4: sg && flag(5),
            gso_tcpv6: sg && flag(6),
            csum_ipv4: flag(7),
            csum_ipv6: flag(8),
        };
        let settings = FrontendSettings {
            queues,
            split_event_channels: flag(0),
            ctrl_ring: flag(1),
            multicast_control: flag(2),
            rx_notify: flag(3),
            xdp_headroom,
            offloads,
        };
        connection(queues, settings, start)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// Also in a directory where an earlier connection stood.
    #[test]
    fn what_a_frontend_writes_its_backend_reads(first in connections(), second in connections()) {
        let mut own = Fake::default();
        let offer = BackendFeatures { max_queues: 16, ..OFFER };
        for connection in [first, second] {
            connection.write(&mut own).unwrap();
            prop_assert_eq!(Connection::read(&mut own, &offer).unwrap(), connection);
        }
    }

    #[test]
    fn what_a_backend_writes_its_frontend_reads(max_queues in 1..=u32::MAX, flags: u16) {
        let flag = |bit: u16| flags >> bit & 1 != 0;
        let sg = flag(6);
        let features = BackendFeatures {
            max_queues,
            split_event_channels: flag(0),
            rx_copy: flag(1),
            multicast_control: flag(2),
            dynamic_multicast_control: flag(3),
            ctrl_ring: flag(4),
            xdp_headroom: flag(5),
            offloads: Offloads {
                sg,
                gso_tcpv4: sg && flag(7),
                gso_tcpv6: sg && flag(8),
                csum_ipv4: flag(9),
                csum_ipv6: flag(10),
            },
        };
        let mut own = Fake::default();
        features.write(&mut own).unwrap();
        prop_assert_eq!(BackendFeatures::read(&mut own).unwrap(), features);
    }

    /// Whatever stands in a key, reading is an answer or an error that names a key, and never a panic.
    #[test]
    fn any_bytes_for_any_key(
        which in any::<prop::sample::Index>(),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "[0-9a-f:,]{0,22}".prop_map(|text| text.into_bytes()),
        ],
    ) {
        for directory in [stock_backend(), full_frontend(), old_frontend()] {
            let names: Vec<_> = directory.0.keys().cloned().collect();
            let name = &names[which.index(names.len())];
            let mut directory = directory.with(name, &value);
            let errors = [
                BackendFeatures::read(&mut directory).err(),
                BackendConfig::read(&mut directory).err(),
                Connection::read(&mut directory, &OFFER).err(),
                FrontendConfig::read(&mut directory).err(),
            ];
            for error in errors.into_iter().flatten() {
                prop_assert!(format!("{error}").starts_with("xenstore key "), "{error}");
            }
        }
    }
}
