// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::format;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::fake::{every_bad_value, refused, Fake};
use super::super::Reason;
use super::*;
use crate::blkif::Abi;
use crate::xen::{GrantRef, Port};

const OFFER: BackendFeatures = BackendFeatures {
    max_queues: 8,
    max_ring_page_order: 4,
    max_indirect_segments: 256,
    persistent: true,
    flush_cache: true,
    barrier: false,
};

const SETTINGS: FrontendSettings =
    FrontendSettings { queues: 1, ring_page_order: 0, persistent: true, abi: Abi::X86_64 };

/// What Linux's xen-blkback writes before `InitWait`, and before `Connected`.
fn stock_backend(connected: bool) -> Fake {
    let mut directory = Fake::of(&[
        ("frontend", "/local/domain/3/device/vbd/51712"),
        ("params", "/dev/vg/guest"),
        ("script", "/etc/xen/scripts/block"),
        ("physical-device", "fe:0"),
        ("frontend-id", "3"),
        ("online", "1"),
        ("removable", "0"),
        ("bootable", "1"),
        ("dev", "xvda"),
        ("type", "phy"),
        ("mode", "w"),
        ("device-type", "disk"),
        ("discard-enable", "1"),
        ("hotplug-status", "connected"),
        ("feature-max-indirect-segments", "256"),
        ("multi-queue-max-queues", "4"),
        ("max-ring-page-order", "4"),
        ("state", "2"),
    ]);
    if connected {
        directory.set(&[
            ("feature-flush-cache", "1"),
            ("discard-granularity", "4096"),
            ("discard-alignment", "0"),
            ("discard-secure", "0"),
            ("feature-discard", "1"),
            ("feature-barrier", "1"),
            ("feature-persistent", "1"),
            ("sectors", "20971520"),
            ("info", "0"),
            ("sector-size", "512"),
            ("physical-sector-size", "4096"),
            ("state", "4"),
        ]);
    }
    directory
}

/// What Linux's xen-blkfront writes with 2 queues of 4 pages.
fn stock_frontend() -> Fake {
    Fake::of(&[
        ("backend", "/local/domain/0/backend/vbd/3/51712"),
        ("backend-id", "0"),
        ("state", "3"),
        ("virtual-device", "51712"),
        ("device-type", "disk"),
        ("ring-page-order", "2"),
        ("multi-queue-num-queues", "2"),
        ("queue-0", ""),
        ("queue-0/ring-ref0", "8"),
        ("queue-0/ring-ref1", "9"),
        ("queue-0/ring-ref2", "10"),
        ("queue-0/ring-ref3", "11"),
        ("queue-0/event-channel", "15"),
        ("queue-1", ""),
        ("queue-1/ring-ref0", "12"),
        ("queue-1/ring-ref1", "13"),
        ("queue-1/ring-ref2", "14"),
        ("queue-1/ring-ref3", "16"),
        ("queue-1/event-channel", "17"),
        ("protocol", "x86_64-abi"),
        ("feature-persistent", "1"),
    ])
}

/// A layout that no machine has which runs these tests.
const ABI_OF_ANOTHER_MACHINE: &str =
    if cfg!(target_arch = "x86_64") { "arm-abi" } else { "ia64-abi" };

fn refs(numbers: &[u32]) -> Vec<GrantRef> {
    numbers.iter().map(|number| GrantRef(*number)).collect()
}

#[test]
fn a_stock_backend_is_read() {
    let waiting = BackendFeatures::read(&mut stock_backend(false)).unwrap();
    let offer = BackendFeatures {
        max_queues: 4,
        max_ring_page_order: 4,
        max_indirect_segments: 256,
        ..BackendFeatures::default()
    };
    assert_eq!(waiting, offer);
    let mut directory = stock_backend(true);
    let connected = BackendFeatures::read(&mut directory).unwrap();
    let features = BackendFeatures { persistent: true, flush_cache: true, barrier: true, ..offer };
    assert_eq!(connected, features);
    let geometry = Geometry::read(&mut directory).unwrap();
    let discard = Some(Discard { granularity: 4096, alignment: 0, secure: false });
    let expected = Geometry { physical_sector_size: 4096, discard, ..Geometry::new(20971520) };
    assert_eq!(geometry, expected);
    assert_eq!(geometry.len(), 10 << 30);
    let disk = geometry.disk(&connected);
    assert_eq!((disk.capacity, disk.logical, disk.read_only), (20971520, 512, false));
    assert!(disk.flush && disk.barrier && disk.discard);
    let config = BackendConfig {
        read_only: false,
        cdrom: false,
        discard: true,
        direct_io_safe: false,
        iops: None,
        bandwidth: None,
    };
    assert_eq!(BackendConfig::read(&mut directory).unwrap(), config);
}

#[test]
fn a_backend_of_before_every_feature_is_read() {
    let mut old = Fake::of(&[("sectors", "2048"), ("info", "4"), ("sector-size", "512")]);
    assert_eq!(BackendFeatures::read(&mut old).unwrap(), BackendFeatures::default());
    let geometry = Geometry { read_only: true, ..Geometry::new(2048) };
    assert_eq!(Geometry::read(&mut old).unwrap(), geometry);
}

#[test]
fn a_stock_frontend_is_read() {
    let connection = Connection::read(&mut stock_frontend(), &OFFER).unwrap();
    let settings = FrontendSettings { queues: 2, ring_page_order: 2, ..SETTINGS };
    assert_eq!(connection.settings(), &settings);
    let queues = [
        Queue::new(&refs(&[8, 9, 10, 11]), Port(15)).unwrap(),
        Queue::new(&refs(&[12, 13, 14, 16]), Port(17)).unwrap(),
    ];
    assert_eq!(connection.queues(), &queues);
    let config = FrontendConfig::read(&mut stock_frontend()).unwrap();
    assert_eq!(config, FrontendConfig { virtual_device: 51712, trusted: true });
}

/// A frontend of one queue and one page, as Linux 2.6 and as one that says everything.
#[test]
fn single_queues_and_pages_have_several_spellings() {
    let queue = Queue::new(&refs(&[8]), Port(9)).unwrap();
    for (ring_ref, extra) in [
        ("ring-ref", &[][..]),
        ("ring-ref", &[("multi-queue-num-queues", "1")][..]),
        ("ring-ref", &[("ring-page-order", "0")][..]),
        ("ring-ref0", &[("ring-page-order", "0")][..]),
        ("ring-ref", &[("protocol", "x86_64-abi"), ("feature-persistent", "0")][..]),
    ] {
        let mut directory = Fake::of(&[(ring_ref, "8"), ("event-channel", "9")]);
        directory.set(extra);
        let connection = Connection::read(&mut directory, &OFFER).unwrap();
        assert_eq!(connection.queues(), &[queue], "{ring_ref} {extra:?}");
        assert_eq!(connection.settings().abi, Abi::NATIVE);
        assert!(!connection.settings().persistent);
    }
    let mut i386 = Fake::of(&[("ring-ref", "8"), ("event-channel", "9")]);
    i386.set(&[("protocol", "x86_32-abi")]);
    let connection = Connection::read(&mut i386, &OFFER).unwrap();
    assert_eq!(connection.settings().abi, Abi::X86_32);
}

#[test]
fn every_key_of_the_backend_is_checked() {
    let directory = stock_backend(true);
    for (key, bad) in [
        ("multi-queue-max-queues", &["0", "4294967296"][..]),
        ("max-ring-page-order", &["4294967296"]),
        ("feature-max-indirect-segments", &["4294967296"]),
        ("feature-persistent", &["2"]),
        ("feature-flush-cache", &["2", "true"]),
        ("feature-barrier", &["2"]),
    ] {
        every_bad_value(&directory, key, false, bad, BackendFeatures::read);
    }
    for (key, missing_is_bad, bad) in [
        ("sectors", true, &["36028797018963968", "18446744073709551616"][..]),
        ("sector-size", true, &["0", "511", "513", "768", "8192"]),
        ("physical-sector-size", false, &["0", "768", "4294967296"]),
        ("info", true, &["4294967296"]),
        ("feature-discard", false, &["2"]),
        ("discard-granularity", false, &["513", "4294967296"]),
        ("discard-alignment", false, &["4294967296"]),
        ("discard-secure", false, &["2"]),
    ] {
        every_bad_value(&directory, key, missing_is_bad, bad, Geometry::read);
    }
    let odd = directory.with("sector-size", b"4096").with("sectors", b"20971521");
    let error = refused(Geometry::read(&mut odd.clone()));
    assert_eq!((error.path.as_str(), error.reason), ("sectors", Reason::NotAMultipleOf(8)));
}

#[test]
fn every_key_of_the_toolstack_is_checked() {
    let directory = stock_backend(true);
    for (key, missing_is_bad, bad) in [
        ("mode", true, &["rw", "W"][..]),
        ("device-type", false, &["tape", "disk "]),
        ("discard-enable", false, &["2"]),
        ("direct-io-safe", false, &["2"]),
        ("iops-limit", false, &["18446744073709551616"]),
        ("iops-burst", false, &["18446744073709551616"]),
        ("bandwidth-limit", false, &["18446744073709551616"]),
        ("bandwidth-burst", false, &["18446744073709551616"]),
    ] {
        every_bad_value(&directory, key, missing_is_bad, bad, BackendConfig::read);
    }
    let frontend = stock_frontend();
    let both = frontend.with("virtual-device-ext", b"268439552");
    every_bad_value(&both, "virtual-device", false, &["4294967296"], FrontendConfig::read);
    let extended = both.without("virtual-device");
    every_bad_value(&extended, "virtual-device-ext", true, &["4294967296"], FrontendConfig::read);
    let config = FrontendConfig::read(&mut extended.clone()).unwrap();
    assert_eq!(config.virtual_device, 1 << 28 | 16 << 8);
    every_bad_value(&frontend, "trusted", false, &["2"], FrontendConfig::read);
}

#[test]
fn limits_have_a_burst() {
    let mut directory = stock_backend(false);
    directory.set(&[("iops-limit", "5000"), ("bandwidth-limit", "5"), ("bandwidth-burst", "77")]);
    let config = BackendConfig::read(&mut directory).unwrap();
    assert_eq!(config.iops, Some(Limit { rate: 5000, burst: 500 }));
    assert_eq!(config.bandwidth, Some(Limit { rate: 5, burst: 77 }));
}

#[test]
fn every_key_of_the_frontend_is_checked() {
    let directory = stock_frontend();
    let read = |directory: &mut Fake| Connection::read(directory, &OFFER);
    for (key, missing_is_bad, bad) in [
        ("queue-0/ring-ref0", true, &["0", "4294967296"][..]),
        ("queue-1/ring-ref3", true, &["0"]),
        ("queue-0/event-channel", true, &["0", "131072"]),
        ("queue-1/event-channel", true, &["0", "131072"]),
        ("protocol", false, &["x86_64", "x86_64-abi ", "ia64-abi", ABI_OF_ANOTHER_MACHINE]),
        ("feature-persistent", false, &["2"]),
    ] {
        every_bad_value(&directory, key, missing_is_bad, bad, read);
    }
    for (key, bad) in [
        ("multi-queue-num-queues", &["0", "9", "17", "4294967295", "4294967296", "-1", "x"][..]),
        ("ring-page-order", &["5", "32", "64", "4294967295", "-1", "x"]),
    ] {
        for bad in bad {
            let error = refused(read(&mut directory.with(key, bad.as_bytes())));
            assert_eq!(error.path.as_str(), key, "{bad}");
        }
    }
    // Fewer queues or pages than promised, and none at the place where a single queue has them.
    let error = refused(read(&mut directory.with("multi-queue-num-queues", b"3")));
    assert_eq!(error.path.as_str(), "queue-2/ring-ref0");
    let error = refused(read(&mut directory.with("ring-page-order", b"3")));
    assert_eq!(error.path.as_str(), "queue-0/ring-ref4");
    let error = refused(read(&mut directory.without("multi-queue-num-queues")));
    assert_eq!(error.path.as_str(), "ring-ref0");
    let error = refused(read(&mut directory.without("ring-page-order")));
    assert_eq!(error.path.as_str(), "queue-0/ring-ref");
}

#[test]
fn more_than_was_offered_is_refused() {
    let small = BackendFeatures::default();
    let error = refused(Connection::read(&mut stock_frontend(), &small));
    assert_eq!(
        format!("{error}"),
        "xenstore key multi-queue-num-queues = \"2\" is not from 1 to 1"
    );
    let two = BackendFeatures { max_queues: 2, ..small };
    let error = refused(Connection::read(&mut stock_frontend(), &two));
    assert_eq!(format!("{error}"), "xenstore key ring-page-order = \"2\" is not from 0 to 0");
}

#[test]
fn more_than_this_crate_has_room_for_is_refused() {
    let offer = BackendFeatures { max_queues: u32::MAX, max_ring_page_order: u32::MAX, ..OFFER };
    let mut many = stock_frontend().with("multi-queue-num-queues", b"17");
    let error = refused(Connection::read(&mut many, &offer));
    assert_eq!(error.reason, Reason::OutOfRange { min: 1, max: 16 });
    let mut large = stock_frontend().with("ring-page-order", b"5");
    let error = refused(Connection::read(&mut large, &offer));
    assert_eq!(error.reason, Reason::OutOfRange { min: 0, max: 4 });
}

/// `io/blkif.h`: a backend without indirect requests must not have the key.
#[test]
fn a_backend_without_indirect_requests_does_not_mention_them() {
    let mut own = Fake::default();
    OFFER.write(&mut own).unwrap();
    assert_eq!(own.get("feature-max-indirect-segments"), Some("256"));
    BackendFeatures { max_indirect_segments: 0, ..OFFER }.write(&mut own).unwrap();
    assert_eq!(own.get("feature-max-indirect-segments"), None);
}

#[test]
fn a_granularity_of_zero_is_none() {
    let mut directory = stock_backend(true).with("discard-granularity", b"0");
    directory.set(&[("sector-size", "4096")]);
    let discard = Geometry::read(&mut directory).unwrap().discard.unwrap();
    assert_eq!(discard.granularity, 4096);
}

#[test]
fn nothing_is_used_twice() {
    let directory = stock_frontend();
    for (key, value, other) in [
        ("queue-1/event-channel", "15", "queue-0/event-channel"),
        ("queue-0/ring-ref1", "8", "queue-0/ring-ref0"),
        ("queue-1/ring-ref2", "11", "queue-0/ring-ref3"),
    ] {
        let mut directory = directory.with(key, value.as_bytes());
        let error = refused(Connection::read(&mut directory, &OFFER));
        assert_eq!(
            format!("{error}"),
            format!("xenstore key {key} = \"{value}\" is the same as {other}")
        );
    }
}

#[test]
fn settings_stay_within_both_ends_and_this_crate() {
    let most = FrontendSettings { queues: u32::MAX, ring_page_order: u32::MAX, ..SETTINGS };
    let all = BackendFeatures {
        max_queues: u32::MAX,
        max_ring_page_order: u32::MAX,
        max_indirect_segments: u32::MAX,
        ..OFFER
    };
    let settings = FrontendSettings::negotiate(&most, &all);
    assert_eq!((settings.queues, settings.ring_page_order), (16, 4));
    let settings = FrontendSettings::negotiate(&most, &OFFER);
    assert_eq!((settings.queues, settings.ring_page_order), (8, 4));
    let offer = BackendFeatures { max_ring_page_order: 2, ..all };
    assert_eq!(FrontendSettings::negotiate(&most, &offer).ring_page_order, 2);
    let settings = FrontendSettings::negotiate(&SETTINGS, &all);
    assert_eq!((settings.queues, settings.ring_page_order), (1, 0));
    let none = FrontendSettings { queues: 0, ..SETTINGS };
    assert_eq!(FrontendSettings::negotiate(&none, &all).queues, 1);

    assert_eq!(all.indirect_segments(u16::MAX), Some(4096));
    assert_eq!(OFFER.indirect_segments(32), Some(32));
    assert_eq!(OFFER.indirect_segments(11), None);
    assert_eq!(BackendFeatures::default().indirect_segments(256), None);
}

#[test]
fn queues_have_to_be_as_negotiated() {
    let queue = |first| Queue::new(&refs(&[first, first + 1]), Port(first)).unwrap();
    let settings = FrontendSettings { queues: 2, ring_page_order: 1, ..SETTINGS };
    Connection::new(settings, &[queue(8), queue(10)]).unwrap();
    let error = Connection::new(settings, &[queue(8)]).unwrap_err();
    assert_eq!(error.path.as_str(), "multi-queue-num-queues");
    let order = FrontendSettings { ring_page_order: 2, ..settings };
    let error = Connection::new(order, &[queue(8), queue(10)]).unwrap_err();
    assert_eq!(error.path.as_str(), "ring-page-order");
    let error = Connection::new(settings, &[queue(8), queue(9)]).unwrap_err();
    assert_eq!(error.path.as_str(), "queue-1/ring-ref0");
    let many: Vec<_> = (4..21).map(|at| queue(2 * at)).collect();
    let all = FrontendSettings { queues: 17, ..settings };
    assert!(Connection::new(all, &many).is_err());
    let none = FrontendSettings { queues: 0, ..settings };
    assert!(Connection::new(none, &[]).is_err());
    for pages in [0, 3, 17, 32] {
        assert!(Queue::new(&refs(&(8..8 + pages).collect::<Vec<_>>()), Port(1)).is_none());
    }
}

#[test]
fn an_impossible_disk_is_not_published() {
    let blocks = Geometry { sector_size: 4096, physical_sector_size: 4096, ..Geometry::new(8) };
    blocks.write(&mut Fake::default()).unwrap();
    for (bad, key) in [
        (Geometry { sectors: 9, ..blocks }, "sectors"),
        (Geometry { sectors: u64::MAX, ..blocks }, "sectors"),
        (Geometry { sector_size: 0, ..blocks }, "sector-size"),
        (Geometry { physical_sector_size: 512, ..blocks }, "physical-sector-size"),
    ] {
        let mut fake = Fake::default();
        assert_eq!(refused(bad.write(&mut fake)).path.as_str(), key);
        assert_eq!(fake, Fake::default());
    }
}

/// What a frontend reads again when the backend writes `Connected` once more.
#[test]
fn a_disk_grows_while_it_is_connected() {
    let mut directory = stock_backend(true);
    let before = Geometry::read(&mut directory).unwrap();
    Geometry { sectors: 41943040, ..before }.write(&mut directory).unwrap();
    let after = Geometry::read(&mut directory).unwrap();
    assert_eq!(after, Geometry { sectors: 41943040, ..before });
}

/// A smaller connection after a larger one, in the same directory.
#[test]
fn nothing_of_the_last_connection_is_read() {
    let large = FrontendSettings { queues: 2, ring_page_order: 1, ..SETTINGS };
    let queue = |refs: &[u32], port| Queue::new(&self::refs(refs), Port(port)).unwrap();
    let large = Connection::new(large, &[queue(&[8, 9], 1), queue(&[10, 11], 2)]).unwrap();
    let small = Connection::new(SETTINGS, &[queue(&[12], 3)]).unwrap();
    let mut own = Fake::default();
    for connection in [large, small, large, small] {
        connection.write(&mut own).unwrap();
        assert_eq!(Connection::read(&mut own, &OFFER).unwrap(), connection);
    }
    large.write(&mut own).unwrap();
    assert_eq!(own.get("ring-ref"), None);
    assert_eq!(own.get("event-channel"), None);
}

prop_compose! {
    fn connections()(
        queues in 1..=MAX_QUEUES as u32,
        ring_page_order in 0..=4u32,
        persistent: bool,
        abi in prop::sample::select(&[Abi::X86_32, Abi::X86_64][..]),
        start in 1..1000u32,
    ) -> Connection {
        let settings = FrontendSettings { queues, ring_page_order, persistent, abi };
        let pages = 1 << ring_page_order;
        let queues: Vec<_> = (0..queues)
            .map(|at| {
                let first = start + at * pages;
                Queue::new(&refs(&(first..first + pages).collect::<Vec<_>>()), Port(start + at))
                    .unwrap()
            })
            .collect();
        Connection::new(settings, &queues).unwrap()
    }
}

prop_compose! {
    fn geometries()(
        blocks in 0..1u64 << 50,
        shift in 0..4u32,
        physical in 1..64u32,
        bits in 0..8u32,
        discard in prop::option::of((1..1u32 << 20, any::<u32>(), any::<bool>())),
    ) -> Geometry {
        let sector_size = 512 << shift;
        Geometry {
            sectors: blocks << shift,
            sector_size,
            physical_sector_size: sector_size * physical,
            cdrom: bits & 1 != 0,
            removable: bits & 2 != 0,
            read_only: bits & 4 != 0,
            discard: discard.map(|(granularity, alignment, secure)| Discard {
                granularity: granularity * 512,
                alignment,
                secure,
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_a_frontend_writes_its_backend_reads(connection in connections()) {
        let mut own = Fake::default();
        connection.write(&mut own).unwrap();
        let offer = BackendFeatures { max_queues: 16, ..OFFER };
        prop_assert_eq!(Connection::read(&mut own, &offer).unwrap(), connection);
    }

    #[test]
    fn what_a_backend_writes_its_frontend_reads(
        geometry in geometries(),
        max_queues in 1..=u32::MAX,
        max_ring_page_order: u32,
        max_indirect_segments: u32,
        flags in 0..8u32,
    ) {
        let features = BackendFeatures {
            max_queues,
            max_ring_page_order,
            max_indirect_segments,
            persistent: flags & 1 != 0,
            flush_cache: flags & 2 != 0,
            barrier: flags & 4 != 0,
        };
        let mut own = Fake::default();
        features.write(&mut own).unwrap();
        geometry.write(&mut own).unwrap();
        prop_assert_eq!(BackendFeatures::read(&mut own).unwrap(), features);
        prop_assert_eq!(Geometry::read(&mut own).unwrap(), geometry);
    }

    /// Whatever stands in a key, reading is an answer or an error that names a key, and never a panic.
    #[test]
    fn any_bytes_for_any_key(
        which in any::<prop::sample::Index>(),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "[0-9]{0,22}".prop_map(|text| text.into_bytes()),
        ],
    ) {
        for directory in [stock_backend(true), stock_frontend()] {
            let names: Vec<_> = directory.0.keys().cloned().collect();
            let name = &names[which.index(names.len())];
            let mut directory = directory.with(name, &value);
            let errors = [
                BackendFeatures::read(&mut directory).err(),
                Geometry::read(&mut directory).err(),
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
