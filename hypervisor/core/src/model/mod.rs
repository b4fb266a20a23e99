// SPDX-License-Identifier: MIT OR Apache-2.0

//! Property tests: what holds whatever domains do, and agreement with a simple model of it.

mod events;
mod grants;
mod hostile;

use std::collections::BTreeMap;
use std::vec::Vec;

use ring_proto::xen::{DomId, Port};

use crate::domain::Slot;
use crate::event::Binding;
use crate::machine::{FrameUse, Mfn, Writable};
use crate::ram::Ram;
use crate::{DomainConfig, DomainKind, Hypervisor};

/// Cases of a property, unless `PROPTEST_CASES` says otherwise.
fn cases(default: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = default;
    }
    config.failure_persistence = None;
    config
}

/// A small domain.
fn config(kind: DomainKind) -> DomainConfig {
    DomainConfig {
        max_grant_frames: 2,
        max_maptrack_frames: 1,
        max_port: 6,
        ..DomainConfig::new(kind, FRAMES)
    }
}

const FRAMES: u64 = 4;

/// What holds at any time: all counts balance.
fn check(hv: &Hypervisor<Ram>) {
    let mut held: BTreeMap<Mfn, (u32, u32)> = BTreeMap::new();
    let mut hold = |mfn: Mfn, writable: bool| {
        let counts = held.entry(mfn).or_default();
        counts.0 += 1;
        counts.1 += u32::from(writable);
    };
    let mut pins: BTreeMap<(DomId, u32), (DomId, Mfn, u32, u32)> = BTreeMap::new();
    for (id, domain) in &hv.domains {
        let shared = domain.grants.shared.iter().chain(&domain.grants.status);
        for mfn in shared.chain(&domain.events.shared_info) {
            hold(*mfn, false);
        }
        for mfn in domain.events.held() {
            hold(mfn, true);
        }
        let mut placed: Vec<(Mfn, Writable)> = Vec::new();
        for (gfn, slot) in &domain.memory {
            match slot {
                Slot::Own(mfn) => {
                    hold(*mfn, false);
                    let frame = hv.frames.get(*mfn).expect("its own frame is in use");
                    assert_eq!((frame.owner(), frame.usage()), (*id, FrameUse::Memory(*gfn)));
                }
                Slot::Grant(mfn, writable) => placed.push((*mfn, *writable)),
                Slot::Shared(mfn) => assert_eq!(domain.placed.get(mfn), Some(gfn)),
            }
        }
        let mut mapped: Vec<(Mfn, Writable)> = Vec::new();
        for (_, mapping) in domain.grants.maptrack.iter() {
            let granter = hv.domains.get(&mapping.granter).expect("the granter's record is kept");
            let active = granter.grants.active.get(&mapping.gref.0).expect("it is pinned");
            assert_eq!(active.grantee, *id);
            hold(active.mfn, !mapping.readonly);
            mapped.push((active.mfn, mapping.writable()));
            let key = (mapping.granter, mapping.gref.0);
            let pin = pins.entry(key).or_insert((*id, active.mfn, 0, 0));
            if mapping.readonly { pin.2 += 1 } else { pin.3 += 1 }
        }
        if domain.kind == DomainKind::Pvh {
            placed.sort_by_key(|(mfn, writable)| (*mfn, *writable == Writable::Yes));
            mapped.sort_by_key(|(mfn, writable)| (*mfn, *writable == Writable::Yes));
            assert_eq!(placed, mapped, "what {id} has in its memory is what it mapped");
        } else {
            assert!(placed.is_empty());
        }
        assert!(!domain.dying || (domain.memory.is_empty() && mapped.is_empty()));
        let owned = hv.frames.iter().filter(|(_, frame)| frame.owner() == *id).count();
        assert_eq!(domain.frames, owned as u64);
        check_ports(hv, *id);
    }
    for (id, domain) in &hv.domains {
        for (gref, active) in &domain.grants.active {
            let (grantee, mfn, read, write) = pins.remove(&(*id, *gref)).expect("it is mapped");
            assert_eq!((active.grantee, active.mfn), (grantee, mfn));
            assert_eq!(active.pins.counts(), (read, write));
        }
    }
    assert!(pins.is_empty());
    for (mfn, frame) in hv.frames.iter() {
        let counts = held.remove(&mfn).unwrap_or_default();
        assert_eq!((frame.references(), frame.writers()), counts, "{mfn}, {frame:?}");
    }
    assert!(held.is_empty(), "held, but not in use: {held:?}");
    assert_eq!(hv.machine().used(), hv.frames.iter().count());
}

/// Both ends of a channel know of each other.
fn check_ports(hv: &Hypervisor<Ram>, id: DomId) {
    for (port, channel) in &hv.domains[&id].events.channels {
        assert_ne!(port.0, 0);
        if let Binding::Interdomain { remote, port: far } = channel.binding {
            let back = Binding::Interdomain { remote: id, port: *port };
            assert_eq!(hv.binding(remote, far), Some(back), "{id}'s {port}");
        }
    }
}

/// Ends all domains, after which nothing is left.
fn end(hv: &mut Hypervisor<Ram>) {
    for id in hv.domains().collect::<Vec<_>>() {
        hv.destroy_domain(id).expect("it lives");
        check(hv);
    }
    assert_eq!(hv.domains.len(), 0);
    assert_eq!(hv.machine().used(), 0);
    assert!(hv.machine().mapped.is_empty());
}

/// Ids of the domains that a test uses.
fn domid(index: u8) -> DomId {
    DomId(1 + u16::from(index))
}

fn port(number: u8) -> Port {
    Port(number.into())
}
