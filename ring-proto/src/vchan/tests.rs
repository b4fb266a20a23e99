// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::shared::{SharedMemory, PAGE_SIZE};
use crate::testing::Local;
use crate::xen::GrantRef;

type End = Vchan<Local, Local>;

/// Server and client over the same memory, and the control page.
fn channel(orders: Orders) -> (End, End, Local) {
    let control = Local::new(PAGE_SIZE);
    let buffer = |order: u16| match order {
        SMALL_ORDER | LARGE_ORDER => control.clone(),
        _ => Local::new(1 << order),
    };
    let (left, right) = (buffer(orders.left()), buffer(orders.right()));
    let pages = orders.left_pages() + orders.right_pages();
    let grants: Vec<GrantRef> = (100..).take(pages).map(GrantRef).collect();
    let server =
        Vchan::server(control.clone(), left.clone(), right.clone(), orders, &grants).unwrap();
    assert_eq!(server.peer(), Live::Awaited);
    assert_eq!(Orders::read(&control), Ok(orders));
    for (page, gref) in grants.iter().enumerate() {
        assert_eq!(orders.grant(&control, page), Some(*gref));
    }
    assert_eq!(orders.grant(&control, pages), None);
    let client = Vchan::client(control.clone(), left, right, orders).unwrap();
    assert_eq!((server.peer(), client.peer()), (Live::Connected, Live::Connected));
    (server, client, control)
}

fn any_orders() -> impl Strategy<Value = Orders> {
    let orders: Vec<Orders> = (10..=14)
        .flat_map(|left| (10..=14).filter_map(move |right| Orders::new(left, right).ok()))
        .collect();
    prop::sample::select(orders)
}

proptest! {
    #[test]
    fn packets_arrive_whole_and_in_order(orders in any_orders(), lens in prop::collection::vec(0usize..3000, 1..30)) {
        let (mut server, mut client, _) = channel(orders);
        for (round, len) in lens.into_iter().enumerate() {
            let (from, to, size) = if round % 2 == 0 {
                (&mut client, &mut server, 1 << orders.left())
            } else {
                (&mut server, &mut client, 1 << orders.right())
            };
            let packet: Vec<u8> = (0..len).map(|at| (at + round) as u8).collect();
            let sent = from.send(&packet).unwrap();
            if len > size {
                prop_assert_eq!(sent, Transfer { count: 0, notify: false });
                continue;
            }
            prop_assert_eq!(sent.count, len);
            let mut short = vec![0; len + 1];
            prop_assert_eq!(to.recv(&mut short).unwrap().count, 0);
            let mut got = vec![0; len];
            prop_assert_eq!(to.recv(&mut got).unwrap().count, len);
            prop_assert_eq!(got, packet);
        }
    }

    #[test]
    fn a_hostile_peer_reaches_nothing_beyond_the_buffers(
        orders in any_orders(),
        writes in prop::collection::vec((0usize..6, any::<u32>(), 0usize..5000), 1..30),
    ) {
        let (mut server, _, control) = channel(orders);
        for (word, value, len) in writes {
            control.store(4 * word, value);
            let mut bytes = vec![0; len];
            if let Ok(done) = server.read(&mut bytes) {
                prop_assert!(done.count <= 1 << orders.left());
            }
            if let Ok(done) = server.write(&bytes) {
                prop_assert!(done.count <= 1 << orders.right());
            }
            let _ = Orders::read(&control);
            let _ = server.peer();
        }
    }

    #[test]
    fn legal_orders_keep_grants_and_buffers_apart(left in 0u16..25, right in 0u16..25) {
        let small = |order| order == SMALL_ORDER || order == LARGE_ORDER;
        if let Ok(orders) = Orders::new(left, right) {
            let grants_end = GRANTS + 4 * (orders.left_pages() + orders.right_pages());
            for order in [left, right] {
                prop_assert!((SMALL_ORDER..=MAX_ORDER).contains(&order));
                prop_assert!(!small(order) || grants_end <= 1 << order);
            }
            prop_assert!(grants_end <= PAGE_SIZE);
            prop_assert!(left != right || !small(left));
        }
    }

    #[test]
    fn chosen_orders_are_legal_and_large_enough(left in 0usize..1 << 21, right in 0usize..1 << 13) {
        match Orders::at_least(left, right) {
            Some(orders) => {
                prop_assert!(left <= 1 << orders.left() && right <= 1 << orders.right());
                prop_assert_eq!(Orders::new(orders.left(), orders.right()), Ok(orders));
            }
            None => prop_assert!(left > 1 << MAX_ORDER),
        }
    }
}

#[test]
fn orders_are_chosen_as_libxenvchan_does() {
    for (sizes, orders) in [
        ((0, 0), (10, 11)),
        ((1024, 2048), (10, 11)),
        ((2048, 1024), (11, 10)),
        ((2048, 2048), (11, 12)),
        ((4096, 2048), (12, 11)),
        ((4097, 1 << 20), (13, 20)),
    ] {
        let chosen = Orders::at_least(sizes.0, sizes.1).unwrap();
        assert_eq!((chosen.left(), chosen.right()), orders);
    }
    assert_eq!(Orders::at_least((1 << 20) + 1, 0), None);
    for (left, right) in [(9, 11), (11, 21), (10, 10), (11, 11), (10, 20)] {
        assert_eq!(Orders::new(left, right), Err(VchanError::Orders { left, right }));
    }
}

#[test]
fn the_doorbell_rings_once_for_each_time_it_was_asked_for() {
    let (mut server, mut client, _) = channel(Orders::new(10, 11).unwrap());
    // Each end asked to hear of the first bytes when it was made.
    assert!(client.write(b"a").unwrap().notify);
    assert!(!client.write(b"b").unwrap().notify);
    let mut two = [0; 2];
    assert_eq!(server.read(&mut two), Ok(Transfer { count: 2, notify: false }));
    assert!(!client.write(b"c").unwrap().notify);
    // Less than wanted: the reader asks anew.
    assert_eq!(server.read(&mut two).unwrap().count, 1);
    assert!(client.write(b"d").unwrap().notify);
    // No room: the writer asks, and reading rings.
    assert_eq!(client.write(&[0; 2000]), Ok(Transfer { count: 1023, notify: false }));
    assert_eq!(client.send(b"e"), Ok(Transfer { count: 0, notify: false }));
    assert_eq!(server.read(&mut two), Ok(Transfer { count: 2, notify: true }));
    assert_eq!(server.read(&mut two), Ok(Transfer { count: 2, notify: false }));
}

#[test]
fn an_end_that_closes_is_seen_to_be_gone_and_a_client_can_come_back() {
    let orders = Orders::new(10, 11).unwrap();
    let (mut server, mut client, control) = channel(orders);
    assert_eq!(client.write(b"last words").unwrap().count, 10);
    client.close().unwrap();
    assert_eq!(server.peer(), Live::Gone);
    let mut words = [0; 10];
    assert_eq!(server.recv(&mut words).unwrap().count, 10);

    let client = Vchan::client(control.clone(), control.clone(), control, orders).unwrap();
    assert_eq!(server.peer(), Live::Connected);
    server.close().unwrap();
    assert_eq!(client.peer(), Live::Gone);
}

#[test]
fn a_server_lists_as_many_grants_as_there_are_pages() {
    let page = Local::new(PAGE_SIZE);
    let orders = Orders::new(12, 11).unwrap();
    let refused = Vchan::server(page.clone(), page.clone(), page, orders, &[]).unwrap_err();
    assert_eq!(refused, VchanError::Grants { given: 0, wanted: 1 });
}
