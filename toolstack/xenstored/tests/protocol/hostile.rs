// SPDX-License-Identifier: MIT OR Apache-2.0

//! Clients that mean no good. Whatever one does, the others are served.

use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;
use ring_proto::xen::Errno;
use ring_proto::xenstore::{Header, MessageType as M, PAYLOAD_MAX};
use xenstored::{Quota, Server};

use crate::wire::{Wire, message, serve};

fn served() -> Server {
    serve(Quota::default())
}

/// Another client gets its answers.
#[track_caller]
fn is_served(server: &Server) {
    let mut other = Wire::connect(server, 0);
    other.write("/alive", "yes").unwrap();
    assert_eq!(other.ask_on(M::Read, "/alive").unwrap(), b"yes");
}

#[test]
fn half_a_message_waits_for_its_other_half() {
    let server = served();
    let mut slow = Wire::connect(&server, 0);
    let whole = message(M::Write as u32, 9, 0, b"/a\0value");
    for byte in &whole[..whole.len() - 1] {
        slow.stream.write_all(&[*byte]).unwrap();
    }
    is_served(&server);
    slow.stream.write_all(&whole[whole.len() - 1..]).unwrap();
    assert_eq!(slow.receive().1, b"OK\0");

    slow.stream.write_all(&whole[..20]).unwrap();
    drop(slow);
    is_served(&server);
}

#[test]
fn a_header_that_claims_too_much_ends_the_connection() {
    for len in [PAYLOAD_MAX as u32 + 1, u32::MAX] {
        let server = served();
        let mut liar = Wire::connect(&server, 1);
        let header = Header { kind: M::Read as u32, request: 1, transaction: 0, len };
        liar.stream.write_all(&header.to_bytes()).unwrap();
        assert!(liar.is_closed());
        is_served(&server);
    }
}

#[test]
fn a_request_that_there_is_not_is_refused() {
    let server = served();
    let mut wire = Wire::connect(&server, 1);
    for kind in [15, 16, 20, 23, 0xffff, u32::MAX] {
        wire.stream.write_all(&message(kind, 7, 3, b"x\0")).unwrap();
        let (header, payload) = wire.receive();
        assert_eq!((header.kind, header.request, header.transaction), (M::Error as u32, 7, 3));
        assert_eq!(payload, b"ENOSYS\0");
    }
    for kind in
        [M::Control, M::Introduce, M::Release, M::Resume, M::SetTarget, M::IsDomainIntroduced]
    {
        assert_eq!(wire.ask(kind, 0, b"1\0"), Err(Errno::EACCES));
    }
}

#[test]
fn who_floods_and_does_not_read_is_slowed_down_and_gets_every_answer() {
    let server = served();
    let mut flood = Wire::connect(&server, 0);
    let value = "v".repeat(3000);
    flood.write("/big", &value).unwrap();
    flood.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // A request takes 21 bytes and is answered by 3016: the server has to stop reading soon.
    let pause = Duration::from_millis(20);
    let mut stalled = 0;
    let mut unsent = Vec::new();
    while stalled < 10 {
        if unsent.is_empty() {
            sent += 1;
            unsent = message(M::Read as u32, sent, 0, b"/big\0");
        }
        match flood.stream.write(&unsent) {
            Ok(len) => {
                unsent.drain(..len);
                stalled = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                is_served(&server);
                std::thread::sleep(pause);
                stalled += 1;
            }
        }
        assert!(sent < 100_000, "the server takes in everything");
    }
    flood.stream.set_nonblocking(false).unwrap();
    let rest = std::mem::take(&mut unsent);
    let mut writer = flood.stream.try_clone().unwrap();
    let finish = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    for request in 1..=sent {
        let (header, payload) = flood.receive();
        assert_eq!(header.request, request);
        assert_eq!(payload.len(), value.len());
    }
    finish.join().unwrap();
}

#[test]
fn who_does_not_read_events_gets_fewer_and_misses_none() {
    let server = served();
    let (mut deaf, mut writer) = (Wire::connect(&server, 0), Wire::connect(&server, 0));
    deaf.ask(M::Watch, 0, b"/a\0all\0").unwrap();
    deaf.ask(M::Watch, 0, b"/a/last\0one\0").unwrap();
    let long = "x".repeat(1000);
    let changes = 3000;
    for n in 0..changes {
        writer.write(&format!("/a/{long}-{n}"), "").unwrap();
        // The same event over and over is one event.
        writer.write("/a/again", "").unwrap();
    }
    writer.write("/a/last", "").unwrap();
    let events = deaf.take_events();
    assert!(events.len() < changes / 2, "{} events waited", events.len());
    let of = |token: &str| {
        events.iter().filter(|event| event.1 == token).map(|event| &*event.0).collect::<Vec<_>>()
    };
    assert_eq!(of("one"), ["/a/last", "/a/last"], "the first event, and the one change");
    let all = of("all");
    let coarse = all.iter().skip(1).filter(|path| **path == "/a").count();
    assert_eq!((coarse, all.last()), (1, Some(&"/a")), "the rest is told as one");
    // From now on each is told again.
    writer.write("/a/new", "").unwrap();
    assert_eq!(deaf.take_events(), [("/a/new".to_owned(), "all".to_owned())]);
}

#[test]
fn a_deep_tree_comes_and_goes() {
    let server = served();
    let mut wire = Wire::connect(&server, 0);
    let deep = "/a".repeat(1500);
    wire.write(&deep, "").unwrap();
    let transaction = wire.ask(M::TransactionStart, 0, b"\0").unwrap();
    assert_eq!(transaction, b"1\0");
    wire.ask(M::Rm, 1, b"/a/a\0").unwrap();
    wire.ask(M::TransactionEnd, 1, b"T\0").unwrap();
    assert_eq!(wire.ask_on(M::Directory, "/a").unwrap(), b"");
    is_served(&server);
}

#[test]
fn what_a_closed_connection_had_is_free_again() {
    let server = served();
    for _ in 0..200 {
        let mut wire = Wire::connect(&server, 1);
        wire.ask(M::Watch, 0, b"/a\0t\0").unwrap();
        wire.ask(M::TransactionStart, 0, b"\0").unwrap();
        drop(wire);
        // The server sees the end in its next turn at the latest.
        is_served(&server);
    }
}

/// Bytes that look a little like requests.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let path = prop::sample::select(
        &["/", "/a", "/a/b", "a", "", "//", "@releaseDomain", "T", "F", "1", "help"][..],
    );
    let text = prop_oneof![
        4 => path.prop_map(str::to_owned),
        1 => "[nrwb][0-9]{1,6}",
        1 => ".{0,8}",
    ];
    let payload = (prop::collection::vec(text, 0..4), any::<bool>()).prop_map(|(texts, ended)| {
        let mut payload = texts.join("\0").into_bytes();
        payload.extend(ended.then_some(0));
        payload
    });
    (0u32..24, 0u32..3, payload)
        .prop_map(|(kind, transaction, payload)| message(kind, 1, transaction, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_harm_nobody(domid in 0u16..2, pieces in prop::collection::vec(
        prop_oneof![prop::collection::vec(any::<u8>(), 0..64), requests()], 0..20
    )) {
        let server = served();
        let mut wire = Wire::connect(&server, domid);
        for piece in pieces {
            // It may be closed by now.
            if wire.stream.write_all(&piece).is_err() {
                break;
            }
        }
        is_served(&server);
    }

    #[test]
    fn every_request_is_answered_once(messages in prop::collection::vec(requests(), 1..40)) {
        let server = served();
        let mut wire = Wire::connect(&server, 0);
        for message in &messages {
            wire.stream.write_all(message).unwrap();
        }
        let mut answers = 0;
        while answers < messages.len() {
            let (header, _) = wire.receive();
            answers += usize::from(header.kind != M::WatchEvent as u32);
        }
        prop_assert_eq!(wire.ask_on(M::GetDomainPath, "7").unwrap(), b"/local/domain/7\0");
    }
}
