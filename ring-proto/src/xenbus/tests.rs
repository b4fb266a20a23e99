// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The tables of keys against the code.

use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::fake::Fake;
use super::key::{Absent, Key, Kind, Place, Writer};
use super::{keys, vbd, vif, State};
use crate::xen::{GrantRef, Port};

/// The names that a driver writes into `place` as the tables have them, without those that it never writes.
fn expected(device: &[Key], place: Place, not_written: &[&str]) -> BTreeSet<String> {
    let all = keys::KEYS.iter().chain(device);
    let mut names: BTreeSet<_> = all
        .filter(|key| key.writer == Writer::Driver && [place, Place::Both].contains(&key.place))
        .map(|key| String::from(key.name))
        .collect();
    for name in not_written {
        assert!(names.remove(*name), "{name} is not in the table");
    }
    names
}

/// The names that stand in a directory, without queue and number.
fn written(directory: &Fake) -> BTreeSet<String> {
    let strip = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.strip_prefix("ring-ref") {
            Some(number) if !number.is_empty() => String::from("ring-ref%u"),
            _ => String::from(name),
        }
    };
    directory.0.keys().map(strip).collect()
}

#[test]
fn drivers_write_the_keys_of_the_tables_and_no_others() {
    let mut backend = Fake::default();
    State::InitWait.write(&mut backend).unwrap();
    let features = vbd::BackendFeatures { max_indirect_segments: 256, ..Default::default() };
    features.write(&mut backend).unwrap();
    let discard = Some(vbd::Discard { granularity: 512, alignment: 0, secure: false });
    vbd::Geometry { discard, ..vbd::Geometry::new(8) }.write(&mut backend).unwrap();
    // One is deprecated, and one the uring backend's to write, who alone knows it.
    let others = ["max-ring-pages", "direct-io"];
    assert_eq!(written(&backend), expected(vbd::keys::KEYS, Place::Backend, &others));

    // One directory with one page and another with two, to see `ring-ref` in both forms.
    let mut names = BTreeSet::new();
    for order in [0, 1] {
        let settings = vbd::FrontendSettings {
            queues: 2,
            ring_page_order: order,
            persistent: true,
            abi: crate::blkif::Abi::NATIVE,
        };
        let queues: Vec<_> = (1..3)
            .map(|at| {
                let refs = [GrantRef(2 * at), GrantRef(2 * at + 1)];
                vbd::Queue::new(&refs[..1 << order], Port(at)).unwrap()
            })
            .collect();
        let mut frontend = Fake::default();
        State::Initialised.write(&mut frontend).unwrap();
        vbd::Connection::new(settings, &queues).unwrap().write(&mut frontend).unwrap();
        names.extend(written(&frontend));
    }
    let deprecated = ["num-ring-pages", "feature-large-sector-size"];
    assert_eq!(names, expected(vbd::keys::KEYS, Place::Frontend, &deprecated));

    let mut backend = Fake::default();
    State::InitWait.write(&mut backend).unwrap();
    vif::BackendFeatures::default().write(&mut backend).unwrap();
    // The state of the link is the driver's to write whenever it changes.
    assert_eq!(written(&backend), expected(vif::keys::KEYS, Place::Backend, &["carrier"]));

    let mut names = BTreeSet::new();
    for split in [false, true] {
        let settings = vif::FrontendSettings {
            queues: 2,
            split_event_channels: split,
            ctrl_ring: true,
            multicast_control: true,
            rx_notify: true,
            xdp_headroom: 0,
            offloads: vif::Offloads::ALL,
        };
        let queues = [2, 4].map(|at| vif::Queue {
            tx: GrantRef(at),
            rx: GrantRef(at + 1),
            channels: match split {
                true => vif::Channels::Split { tx: Port(at), rx: Port(at + 1) },
                false => vif::Channels::Shared(Port(at)),
            },
        });
        let control = Some(vif::Control { gref: GrantRef(9), port: Port(9) });
        let mut frontend = Fake::default();
        State::Connected.write(&mut frontend).unwrap();
        vif::Connection::new(settings, &queues, control).unwrap().write(&mut frontend).unwrap();
        names.extend(written(&frontend));
    }
    assert_eq!(names, expected(vif::keys::KEYS, Place::Frontend, &[]));
}

#[test]
fn the_tables_are_consistent() {
    for device in [vbd::keys::KEYS, vif::keys::KEYS] {
        let mut seen = BTreeSet::new();
        for key in keys::KEYS.iter().chain(device) {
            let places: &[&str] = match key.place {
                Place::Frontend => &["frontend"],
                Place::Backend => &["backend"],
                Place::Both => &["frontend", "backend"],
            };
            for place in places {
                assert!(seen.insert((*place, key.name)), "{} twice in the {place}", key.name);
            }
            // No path is cut off.
            let name = key.name.replace("%u", "");
            match key.per_queue {
                false => assert_eq!(key.path().as_str(), key.name),
                true if name == key.name => {
                    let path = key.path_in_queue(Some(99));
                    assert_eq!(path.as_str(), format!("queue-99/{name}"));
                }
                true => {
                    let path = key.path_of_index(Some(99), 99);
                    assert_eq!(path.as_str(), format!("queue-99/{name}99"));
                }
            }
            match (key.kind, key.absent) {
                (Kind::Number { min, max }, Absent::Number(number)) => {
                    assert!((min..=max).contains(&number), "{}", key.name);
                }
                (Kind::Flag, Absent::Number(number)) => assert!(number < 2, "{}", key.name),
                (Kind::Word(words), Absent::Word(word)) => assert!(words.contains(&word)),
                (_, Absent::Error | Absent::As(_)) => {}
                (kind, absent) => panic!("{}: {kind} cannot be {absent}", key.name),
            }
        }
    }
}
