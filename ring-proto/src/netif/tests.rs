// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::ring::RingError;
use crate::shared::{bytes_of, SharedMemory, PAGE_SIZE};
use crate::testing::Local;
use crate::xen::GrantRef;

/// Yields these slots as a ring would.
fn from<T: Copy>(slots: &[T]) -> impl FnMut() -> Result<Option<T>, RingError> + '_ {
    let mut slots = slots.iter();
    move || Ok(slots.next().copied())
}

fn extras() -> impl Strategy<Value = Extras> {
    let kind = prop::sample::select(vec![GsoType::TcpV4, GsoType::TcpV6]);
    let gso = (1u16.., kind, any::<u16>()).prop_map(|(size, kind, features)| Gso {
        size,
        kind,
        features,
    });
    let hash =
        any::<(u8, u8, u32)>().prop_map(|(kind, algorithm, value)| Hash { kind, algorithm, value });
    let change = (any::<bool>(), any::<[u8; 6]>()).prop_map(|(add, address)| {
        if add {
            Multicast::Add(address)
        } else {
            Multicast::Del(address)
        }
    });
    let xdp = any::<u16>().prop_map(|headroom| Xdp { headroom });
    (prop::option::of(gso), prop::option::of(change), prop::option::of(hash), prop::option::of(xdp))
        .prop_map(|(gso, multicast, hash, xdp)| Extras { gso, multicast, hash, xdp })
}

/// Those that come with a packet.
fn packet_extras() -> impl Strategy<Value = Extras> {
    extras().prop_map(|extras| Extras { multicast: None, ..extras })
}

fn place() -> impl Strategy<Value = (u16, u16)> {
    (0u16..4096, 0u16..=4096).prop_map(|(offset, size)| (offset, size.min(4096 - offset)))
}

fn tx_packet() -> impl Strategy<Value = TxPacket> {
    let fragment = (any::<u16>(), any::<u32>(), place()).prop_map(|(id, gref, (offset, size))| {
        Fragment::new(id, GrantRef(gref), offset, size).unwrap()
    });
    let fragments = prop::collection::vec(fragment, 1..=NR_SLOTS_MIN);
    (fragments, packet_extras(), any::<bool>(), any::<bool>()).prop_filter_map(
        "shorter than a header or longer than a packet",
        |(fragments, extras, csum_blank, data_validated)| {
            let mut packet = TxPacket::new(&fragments, extras)?;
            (packet.csum_blank, packet.data_validated) = (csum_blank, data_validated);
            Some(packet)
        },
    )
}

fn rx_packet() -> impl Strategy<Value = RxPacket> {
    let fragment = (any::<u16>(), place())
        .prop_map(|(id, (offset, size))| RxFragment::new(id, offset, size).unwrap());
    let fragments = prop::collection::vec(fragment, 1..=MAX_FRAGMENTS);
    (fragments, packet_extras(), any::<bool>(), any::<bool>()).prop_map(
        |(fragments, extras, csum_blank, data_validated)| {
            let mut packet = RxPacket::new(&fragments, extras).unwrap();
            (packet.csum_blank, packet.data_validated) = (csum_blank, data_validated);
            packet
        },
    )
}

/// Slots of any bytes, of which many lie in their pages and announce more.
fn tx_slots() -> impl Strategy<Value = Vec<RawTxRequest>> {
    let slot = (any::<u32>(), 0u16..4200, 0u16..16, any::<u16>(), 0u16..300, any::<bool>())
        .prop_map(|(gref, offset, flags, id, size, more)| {
            // As extra info, the low bytes of the grant are its kind and flags.
            let gref = if more { (gref & 0xffff_0100) | (gref % 6) } else { gref };
            let flags = if more { flags | tx_flags::MORE_DATA } else { flags };
            RawTxRequest { gref, offset, flags, id, size }
        });
    (prop::collection::vec(slot, 0..50), 0u16..5000).prop_map(|(mut slots, size)| {
        if let Some(first) = slots.first_mut() {
            first.size = size;
        }
        slots
    })
}

proptest! {
    #[test]
    fn a_sent_packet_is_gathered_as_it_was(packet in tx_packet()) {
        let slots: Vec<_> = packet.requests().collect();
        prop_assert_eq!(TxItem::gather(20, from(&slots)), Ok(Some(TxItem::Packet(packet))));
        let answers: Vec<_> = packet.slots().responses(TxStatus::Okay).collect();
        prop_assert_eq!(answers.len(), slots.len());
        let ids = answers.iter().filter_map(|raw| raw.check().ok()).filter(|answer| answer.status != TxStatus::Null);
        prop_assert!(ids.map(|answer| answer.id).eq(packet.fragments().iter().map(Fragment::id)));
    }

    #[test]
    fn a_sent_packet_cut_short_ends_the_connection(packet in tx_packet(), at in any::<prop::sample::Index>()) {
        let slots: Vec<_> = packet.requests().collect();
        let cut = at.index(slots.len());
        let gathered = TxItem::gather(20, from(&slots[..cut]));
        if cut == 0 {
            prop_assert_eq!(gathered, Ok(None));
        } else {
            prop_assert!(matches!(gathered, Err(TxError::Missing | TxError::Extra(ExtraError::Missing))));
        }
    }

    #[test]
    fn whatever_is_gathered_from_any_slots_keeps_the_promises(slots in tx_slots(), fatal in any::<u8>()) {
        let mut taken = 0;
        let mut source = from(&slots);
        let gathered = TxItem::gather(fatal, || {
            let slot = source()?;
            taken += usize::from(slot.is_some());
            Ok(slot)
        });
        match gathered {
            Ok(Some(TxItem::Packet(packet))) => {
                prop_assert!(packet.size() >= ETH_HLEN);
                let fragments = packet.fragments();
                prop_assert!((1..=MAX_FRAGMENTS).contains(&fragments.len()));
                prop_assert_eq!(fragments.iter().map(|it| u32::from(it.size())).sum::<u32>(), packet.size().into());
                for it in fragments {
                    prop_assert!(usize::from(it.offset()) + usize::from(it.size()) <= PAGE_SIZE);
                }
                prop_assert!(packet.extras().multicast.is_none());
                prop_assert_eq!(packet.slots().responses(TxStatus::Okay).count(), taken);
            }
            Ok(Some(TxItem::Multicast(_, answer) | TxItem::Dropped(_, answer))) => {
                prop_assert_eq!(answer.responses(TxStatus::Error).count(), taken);
            }
            Ok(None) => prop_assert!(slots.is_empty()),
            Err(_) => prop_assert!(taken <= 40),
        }
    }

    #[test]
    fn a_received_packet_is_gathered_as_it_was(packet in rx_packet()) {
        let slots: Vec<_> = packet.responses().collect();
        prop_assert_eq!(slots.len(), usize::from(packet.slots()));
        for fragment in packet.fragments() {
            prop_assert_eq!(slots[usize::from(fragment.slot())].id, fragment.id());
        }
        prop_assert_eq!(RxItem::gather(from(&slots)), Ok(Some(RxItem::Packet(packet))));
        if slots.len() > 1 {
            let cut = RxItem::gather(from(&slots[..slots.len() - 1]));
            prop_assert!(matches!(cut, Err(RxError::Missing | RxError::Extra(ExtraError::Missing))));
        }
    }

    #[test]
    fn whatever_is_received_lies_in_its_page(
        words in prop::collection::vec((any::<u16>(), 0u16..4200, 0u16..16, any::<u16>(), any::<bool>()), 0..40),
    ) {
        let slots: Vec<RawRxResponse> = words
            .into_iter()
            .map(|(id, offset, flags, status, small)| {
                let status = if small { status % 4200 } else { status };
                RawRxResponse { id, offset, flags: flags | rx_flags::MORE_DATA, status }
            })
            .chain([RawRxResponse::default()])
            .collect();
        match RxItem::gather(from(&slots)) {
            Ok(Some(RxItem::Packet(packet))) => {
                for it in packet.fragments() {
                    prop_assert!(usize::from(it.offset()) + usize::from(it.size()) <= PAGE_SIZE);
                }
                prop_assert!(packet.size() as usize <= MAX_FRAGMENTS * PAGE_SIZE);
            }
            Ok(Some(RxItem::Failed(count))) => prop_assert!(usize::from(count) <= slots.len()),
            Ok(None) => prop_assert!(slots.is_empty()),
            Err(_) => {}
        }
    }

    #[test]
    fn extra_info_is_what_it_was_in_slots_of_both_rings(extras in extras()) {
        for raw in extras.to_raw() {
            prop_assert_eq!(RawTxRequest::from(raw).as_extra(), raw);
            prop_assert_eq!(RawRxResponse::from(raw).as_extra(), raw);
        }
        let checked: Vec<_> = extras.to_raw().map(|raw| Extra::check(&raw).unwrap()).collect();
        prop_assert!(extras.iter().eq(checked));
    }

    #[test]
    fn a_control_request_that_is_accepted_is_what_it_was(id: u16, kind in 0u16..12, data: [u32; 3], small: bool) {
        let data = if small { data.map(|value| value % 5000) } else { data };
        let raw = RawCtrlRequest { id, kind, data };
        match raw.check() {
            Ok(request) => {
                prop_assert_eq!(RawCtrlRequest::from(&request).check(), Ok(request));
                match request.call {
                    CtrlCall::SetHashKey { size, .. } => prop_assert!(usize::from(size) <= PAGE_SIZE),
                    CtrlCall::SetHashMapping { count, first, .. } => {
                        prop_assert!(usize::from(count) <= 1024 && first.checked_add(count.into()).is_some());
                    }
                    CtrlCall::AddGrefMapping(grefs) | CtrlCall::DelGrefMapping(grefs) => {
                        prop_assert!(grefs.count <= 512);
                    }
                    CtrlCall::SetHashFlags(flags) => prop_assert!(flags < 16),
                    _ => {}
                }
                let answer = RawCtrlResponse::new(&request, CtrlStatus::Success, 9).check().unwrap();
                prop_assert_eq!((answer.id, answer.kind as u16, answer.data), (id, kind, 9));
            }
            Err(bad) => {
                prop_assert_ne!(bad.status, CtrlStatus::Success);
                let answer = RawCtrlResponse::from(&bad);
                prop_assert_eq!((answer.id, answer.kind, answer.status), (id, kind, bad.status as u32));
            }
        }
    }

    #[test]
    fn responses_of_unknown_status_are_refused(id: u16, status: u16, wide: u32) {
        let known = (-2..=1).contains(&(status as i16));
        prop_assert_eq!(RawTxResponse { id, status }.check().is_ok(), known);
        let raw = RawCtrlResponse { id, kind: 1, status: wide, data: 0 };
        prop_assert_eq!(raw.check().is_ok(), wide < 4);
    }
}

fn slot(size: u16, flags: u16) -> RawTxRequest {
    RawTxRequest { gref: 8, offset: 0, flags, id: size, size }
}

#[test]
fn a_packet_that_does_not_add_up_is_dropped_and_the_rest_goes_on() {
    let slots = [slot(100, tx_flags::MORE_DATA), slot(101, 0), slot(60, 0)];
    let mut source = from(&slots);
    let Ok(Some(TxItem::Dropped(problem, answers))) = TxItem::gather(20, &mut source) else {
        panic!("not dropped");
    };
    assert_eq!(problem, TxProblem::FragmentSize { size: 101, left: 100 });
    let answers: Vec<_> = answers.responses(TxStatus::Error).collect();
    assert_eq!(
        answers,
        [RawTxResponse::new(100, TxStatus::Error), RawTxResponse::new(101, TxStatus::Error)]
    );
    assert!(matches!(TxItem::gather(20, &mut source), Ok(Some(TxItem::Packet(_)))));

    let short = TxItem::gather(20, from(&[slot(13, 0)]));
    assert!(matches!(short, Ok(Some(TxItem::Dropped(TxProblem::Short(13), _)))));
}

#[test]
fn the_limits_of_a_packet_are_those_of_stock_linux() {
    let chain = |after_first: usize| {
        let mut slots = vec![slot(10, tx_flags::MORE_DATA); after_first];
        slots.insert(0, slot(1000, tx_flags::MORE_DATA));
        slots.last_mut().unwrap().flags = 0;
        TxItem::gather(20, from(&slots))
    };
    assert!(matches!(chain(18), Ok(Some(TxItem::Packet(_)))));
    assert!(matches!(chain(19), Ok(Some(TxItem::Dropped(TxProblem::Fragments(20), _)))));
    assert!(matches!(chain(20), Ok(Some(TxItem::Dropped(TxProblem::Fragments(21), _)))));
    assert_eq!(chain(21), Err(TxError::Slots { limit: 20 }));
}

#[test]
fn a_fragment_across_pages_ends_the_connection() {
    let across = RawTxRequest { offset: 4000, ..slot(97, 0) };
    let refused = TxError::CrossesPage { offset: 4000, size: 97 };
    assert_eq!(TxItem::gather(20, from(&[across])), Err(refused));
    assert_eq!(TxItem::gather(20, from(&[slot(200, tx_flags::MORE_DATA), across])), Err(refused));
    let response = RawRxResponse { id: 1, offset: 4000, flags: 0, status: 97 };
    assert_eq!(
        RxItem::gather(from(&[response])),
        Err(RxError::CrossesPage { offset: 4000, size: 97 })
    );
}

#[test]
fn extra_info_is_refused_where_it_is_wrong() {
    let gather = |extras: &[RawExtra]| {
        let mut slots = vec![slot(60, tx_flags::EXTRA_INFO)];
        slots.extend(extras.iter().map(|extra| RawTxRequest::from(*extra)));
        TxItem::gather(20, from(&slots)).map_err(|error| match error {
            TxError::Extra(error) => error,
            error => panic!("{error}"),
        })
    };
    let extra = |kind, flags, data| RawExtra { kind, flags, data };
    assert_eq!(gather(&[]), Err(ExtraError::Missing));
    assert_eq!(gather(&[extra(0, 0, [0; 6])]), Err(ExtraError::Kind(0)));
    assert_eq!(gather(&[extra(6, 0, [0; 6])]), Err(ExtraError::Kind(6)));
    assert_eq!(
        gather(&[extra(1, 0, [0, 0, 1, 0, 0, 0])]),
        Err(ExtraError::Gso { size: 0, kind: 1 })
    );
    assert_eq!(
        gather(&[extra(1, 0, [9, 0, 3, 0, 0, 0])]),
        Err(ExtraError::Gso { size: 9, kind: 3 })
    );
    let hash = extra(4, 1, [0; 6]);
    assert_eq!(gather(&[hash, hash]), Err(ExtraError::Repeated(4)));
    let join = [1, 0, 94, 0, 0, 1];
    let Ok(Some(TxItem::Multicast(change, slots))) = gather(&[extra(2, 0, join)]) else {
        panic!("no change of the multicast list");
    };
    assert_eq!(change, Multicast::Add(join));
    let answers: Vec<_> = slots.responses(TxStatus::Okay).collect();
    assert_eq!(
        answers,
        [RawTxResponse::new(60, TxStatus::Okay), RawTxResponse::new(0, TxStatus::Null)]
    );
}

#[test]
fn a_backend_that_could_not_deliver_says_how_many_slots_are_free() {
    let failed =
        RawRxResponse { status: -1i16 as u16, flags: rx_flags::MORE_DATA, ..Default::default() };
    let last = RawRxResponse { status: 5, ..Default::default() };
    assert_eq!(RxItem::gather(from(&[failed, last])), Ok(Some(RxItem::Failed(2))));
    let prefix = RawRxResponse { flags: rx_flags::GSO_PREFIX, ..Default::default() };
    assert_eq!(RxItem::gather(from(&[prefix])), Err(RxError::GsoPrefix));
}

#[test]
fn a_packet_goes_through_a_ring_and_back() {
    let page = Local::new(PAGE_SIZE);
    let mut front = TxFrontRing::new(page.clone()).unwrap();
    let mut back = TxBackRing::attach(page.clone()).unwrap();
    assert_eq!(front.size(), 256);
    let gso = Some(Gso { size: 1448, kind: GsoType::TcpV4, features: 0 });
    let fragment = |id| Fragment::new(id, GrantRef(8), 0, 4096).unwrap();
    let packet =
        TxPacket::new(&[fragment(3), fragment(4)], Extras { gso, ..Extras::default() }).unwrap();
    for request in packet.requests() {
        front.push(&request).unwrap();
    }
    assert!(front.publish());
    assert_eq!(page.read::<u16>(64 + 10), 8192, "the first slot has the size of the packet");
    let item = TxItem::gather(20, || back.pop()).unwrap();
    assert_eq!(item, Some(TxItem::Packet(packet)));
    for response in packet.slots().responses(TxStatus::Okay) {
        back.push(&response).unwrap();
    }
    assert!(back.publish());
    let statuses: Vec<_> =
        core::iter::from_fn(|| front.pop().unwrap()).map(|raw| raw.check().unwrap()).collect();
    assert_eq!(statuses.len(), 3);
    assert_eq!(statuses[1].status, TxStatus::Null);
    assert_eq!((statuses[0].id, statuses[2].id), (3, 4));
}

#[test]
fn extra_info_lies_where_c_has_it() {
    let gso = Gso { size: 0x1234, kind: GsoType::TcpV6, features: 0x5678 };
    let raw = Extras { gso: Some(gso), ..Extras::default() }.to_raw().next().unwrap();
    assert_eq!(bytes_of(&raw), [1, 0, 0x34, 0x12, 2, 0, 0x78, 0x56]);
    let hash = Hash { kind: HashType::Ipv6Tcp as u8, algorithm: 1, value: 0x0403_0201 };
    let raw = Extras { hash: Some(hash), ..Extras::default() }.to_raw().next().unwrap();
    assert_eq!(bytes_of(&raw), [4, 0, 3, 1, 1, 2, 3, 4]);
}
