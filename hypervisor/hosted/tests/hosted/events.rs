// SPDX-License-Identifier: MIT OR Apache-2.0

//! Event channels, and what goes without the hypervisor.

use std::time::Duration;

use hypervisor_client::{Access, Client, Error};
use ring_proto::shared::SharedMemory;
use ring_proto::xen::event_channel::virq;
use ring_proto::xen::{DomId, Errno, Port};

use crate::{errno, hypervisor, join};

const SOON: Option<Duration> = Some(Duration::from_secs(20));
const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn each_end_hears_the_other() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let near = front.alloc_unbound(DomId(2)).unwrap();
    // Rung before the peer is there: it is not lost.
    near.notify().unwrap();
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    assert!(far.wait(SOON).unwrap());
    assert!(!far.wait(NOW).unwrap());
    assert!(!near.wait(NOW).unwrap());
    far.notify().unwrap();
    far.notify().unwrap();
    assert!(near.wait(SOON).unwrap());
    assert!(!near.wait(NOW).unwrap(), "two rings are one event");
}

#[test]
fn binding_is_refused_with_xens_reasons() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let near = front.alloc_unbound(DomId(9)).unwrap();
    assert_eq!(
        errno(back.bind_interdomain(DomId(3), near.port())),
        Errno::EINVAL,
        "it waits for domain 9"
    );
    assert_eq!(
        errno(back.bind_interdomain(DomId(3), Port(60))),
        Errno::EINVAL,
        "nobody allocated it"
    );
    assert_eq!(errno(back.bind_interdomain(DomId(8), Port(1))), Errno::ESRCH);
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let _far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    assert_eq!(errno(back.bind_interdomain(DomId(3), near.port())), Errno::EINVAL, "bound already");
}

#[test]
fn domain_0_is_interrupted_when_a_domain_ends() {
    let (dir, _hosted) = hypervisor();
    let (toolstack, domain) = (join(&dir, 0), join(&dir, 3));
    let ended = toolstack.bind_virq(virq::DOM_EXC).unwrap();
    assert_eq!(errno(toolstack.bind_virq(virq::DOM_EXC)), Errno::EEXIST);
    assert_eq!(errno(toolstack.bind_virq(virq::COUNT)), Errno::EINVAL);
    assert!(!ended.wait(NOW).unwrap());
    drop(domain);
    assert!(ended.wait(SOON).unwrap());
}

#[test]
fn closing_wakes_the_other_end_and_lets_it_be_bound_anew() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    assert!(!near.wait(NOW).unwrap());
    drop(far);
    assert!(near.wait(SOON).unwrap());
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    near.notify().unwrap();
    assert!(far.wait(SOON).unwrap());
}

#[test]
fn data_path_makes_no_hypercall() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 1, Access::ReadWrite).unwrap();
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let mapping = back.map(DomId(3), grant.refs(), Access::ReadWrite).unwrap();
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    let before = (front.hypercalls(), back.hypercalls());
    assert_eq!(before, (1, 2));
    const ROUNDS: u32 = 2000;
    let pong = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < ROUNDS {
            assert!(far.wait(SOON).unwrap());
            seen = mapping.load_acquire(0);
            mapping.publish(4, seen);
            far.notify().unwrap();
        }
        (far, mapping)
    });
    for round in 1..=ROUNDS {
        grant.publish(0, round);
        near.notify().unwrap();
        while grant.load_acquire(4) != round {
            assert!(near.wait(SOON).unwrap());
        }
    }
    let _kept = pong.join().unwrap();
    // Granting, ending a grant and granting again neither.
    for _ in 0..100 {
        front.grant(DomId(2), 4, Access::ReadOnly).unwrap();
    }
    assert_eq!((front.hypercalls(), back.hypercalls()), before);
}

#[test]
fn hypervisor_that_stops_is_gone_for_all_calls() {
    let (dir, hosted) = hypervisor();
    let front = join(&dir, 3);
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let waiter = std::thread::spawn(move || near.wait(None));
    drop(hosted);
    assert!(matches!(waiter.join().unwrap(), Err(Error::Gone(_))));
    let gone = dir.path().display().to_string();
    assert!(matches!(front.alloc_unbound(DomId(2)), Err(Error::Gone(at)) if at == gone));
    assert!(matches!(front.store(), Err(Error::Gone(_))));
    assert!(
        !dir.path().join("hypervisor.sock").exists() && !dir.path().join("xenstored.sock").exists()
    );
}
