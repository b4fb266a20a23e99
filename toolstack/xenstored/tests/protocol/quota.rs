// SPDX-License-Identifier: MIT OR Apache-2.0

//! What one domain may use is limited, and what domain 0 uses is not.

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::MessageType as M;
use xenstored::{Quota, Server};

use crate::wire::{Wire, serve};

/// Small limits, and a place where domain 1 may write.
fn served() -> (Server, Wire, Wire) {
    let quota = Quota {
        nodes: 5,
        node_size: 20,
        permissions: 2,
        watches: 3,
        transactions: 2,
        transaction_nodes: 6,
        connections: 3,
    };
    let server = serve(quota);
    let (mut domain_0, domain_1) = (Wire::connect(&server, 0), Wire::connect(&server, 1));
    domain_0.write("/g", "").unwrap();
    domain_0.ask(M::SetPerms, 0, b"/g\0w0\0r1\0b1\0").unwrap();
    domain_0.ask(M::SetPerms, 0, b"/g\0b0\0").unwrap();
    (server, domain_0, domain_1)
}

fn start(wire: &mut Wire) -> Result<u32, Errno> {
    let reply = wire.ask(M::TransactionStart, 0, b"\0")?;
    Ok(std::str::from_utf8(&reply).unwrap().trim_end_matches('\0').parse().unwrap())
}

#[test]
fn nodes_count_against_their_owner() {
    let (_server, mut zero, mut one) = served();
    one.write("/g/a/b/c", "").unwrap();
    assert_eq!(one.write("/g/a/d/e/f", ""), Err(Errno::ENOSPC));
    assert_eq!(one.ask_on(M::Directory, "/g/a").unwrap(), b"b\0", "a refusal leaves nothing");
    one.write("/g/a/d/e", "").unwrap();
    assert_eq!(one.ask_on(M::Mkdir, "/g/x"), Err(Errno::ENOSPC));
    one.ask_on(M::Rm, "/g/a/d").unwrap();
    one.write("/g/x", "").unwrap();
    for n in 0..20 {
        zero.write(&format!("/zero/{n}"), "").unwrap();
    }
}

#[test]
fn nodes_made_in_a_transaction_count_at_its_end() {
    let (_server, _zero, mut one) = served();
    let transaction = start(&mut one).unwrap();
    for path in ["/g/a", "/g/b", "/g/c"] {
        one.ask(M::Mkdir, transaction, format!("{path}\0").as_bytes()).unwrap();
    }
    one.write("/local/x", "").unwrap_err();
    // Outside of the transaction, and not where it looked.
    one.ask(M::Mkdir, transaction, b"/g/d\0").unwrap();
    one.ask(M::TransactionEnd, transaction, b"F\0").unwrap();

    one.ask_on(M::Mkdir, "/g/own").unwrap();
    one.ask_on(M::Mkdir, "/g/own/x").unwrap();
    let transaction = start(&mut one).unwrap();
    for path in ["/g/own/x/a", "/g/own/x/b", "/g/own/x/c"] {
        one.ask(M::Mkdir, transaction, format!("{path}\0").as_bytes()).unwrap();
    }
    one.ask_on(M::Mkdir, "/g/late").unwrap();
    assert_eq!(one.ask(M::TransactionEnd, transaction, b"T\0"), Err(Errno::ENOSPC));
    assert_eq!(one.ask_on(M::Directory, "/g/own/x").unwrap(), b"");
}

#[test]
fn node_size_and_permissions() {
    let (_server, mut zero, mut one) = served();
    assert_eq!(one.write("/g/a", &"v".repeat(21)), Err(Errno::ENOSPC));
    one.write("/g/a", &"v".repeat(20)).unwrap();
    assert_eq!(one.ask_on(M::Mkdir, "/g/a/b"), Err(Errno::ENOSPC), "the child's name does not fit");
    one.write("/g/a", &"v".repeat(18)).unwrap();
    one.ask_on(M::Mkdir, "/g/a/b").unwrap();
    assert_eq!(one.write("/g/a", &"v".repeat(19)), Err(Errno::ENOSPC));
    one.ask(M::SetPerms, 0, b"/g/a\0n1\0r2\0").unwrap();
    assert_eq!(one.ask(M::SetPerms, 0, b"/g/a\0n1\0r2\0r3\0"), Err(Errno::ENOSPC));
    zero.ask(M::SetPerms, 0, b"/g/a\0n1\0r2\0r3\0").unwrap();
    zero.write("/g/a", &"v".repeat(21)).unwrap();
}

#[test]
fn watches_transactions_and_connections_are_counted_over_all_connections() {
    let (server, mut zero, mut one) = served();
    let mut again = Wire::connect(&server, 1);
    one.ask(M::Watch, 0, b"/g\0a\0").unwrap();
    one.ask(M::Watch, 0, b"/g\0b\0").unwrap();
    again.ask(M::Watch, 0, b"/g\0a\0").unwrap();
    assert_eq!(again.ask(M::Watch, 0, b"/g\0b\0"), Err(Errno::ENOSPC));
    start(&mut one).unwrap();
    let last = start(&mut again).unwrap();
    assert_eq!(start(&mut one), Err(Errno::ENOSPC));
    again.ask(M::TransactionEnd, last, b"F\0").unwrap();
    start(&mut again).unwrap();
    for n in 0..10 {
        zero.ask(M::Watch, 0, format!("/g\0{n}\0").as_bytes()).unwrap();
        start(&mut zero).unwrap();
    }

    let third = Wire::connect(&server, 1);
    assert!(server.connect(DomId(1)).is_err());
    drop(third);
    // What a reset frees can be had again.
    again.ask(M::ResetWatches, 0, b"\0").unwrap();
    one.ask(M::Watch, 0, b"/g\0c\0").unwrap();
    start(&mut one).unwrap();
}

#[test]
fn nodes_that_a_transaction_looks_at() {
    let (_server, mut zero, mut one) = served();
    for n in 0..8 {
        zero.write(&format!("/g/{n}"), "").unwrap();
        zero.ask(M::SetPerms, 0, format!("/g/{n}\0b0\0").as_bytes()).unwrap();
    }
    let transaction = start(&mut one).unwrap();
    let mut read = |n: u32| one.ask(M::Read, transaction, format!("/g/{n}\0").as_bytes());
    for n in 0..6 {
        read(n).unwrap();
    }
    assert_eq!(read(6), Err(Errno::ENOSPC));
    read(5).unwrap();
}
