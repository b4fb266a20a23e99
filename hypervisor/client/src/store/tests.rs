// SPDX-License-Identifier: MIT OR Apache-2.0

//! Against a store that does not keep to the protocol, or takes its time.

use std::io::{Read, Write};
use std::thread::JoinHandle;

use super::*;

/// A store that reads one request of `request` bytes and answers with these bytes, then waits for the client's end.
fn store_that_says(request: usize, answer: Vec<u8>) -> (Store, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = std::thread::spawn(move || {
        let mut theirs = theirs;
        theirs.read_exact(&mut vec![0; request]).unwrap();
        theirs.write_all(&answer).unwrap();
        // Until the client closes.
        let mut rest = Vec::new();
        let _ = theirs.read_to_end(&mut rest);
    });
    (Store::from_stream(ours), peer)
}

fn message(kind: MessageType, request: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(kind, request, 0, payload.len() as u32);
    [&header.to_bytes(), payload].concat()
}

/// What a READ of `/a` comes to, with this answer.
fn read_answered_by(answer: Vec<u8>) -> Result<Vec<u8>, Error> {
    let (store, peer) = store_that_says(HEADER_LEN + 3, answer);
    let result = store.read("/a");
    drop(store);
    peer.join().unwrap();
    result
}

#[test]
fn a_reply_after_events() {
    let event = |path: &[u8]| message(MessageType::WatchEvent, 0, &[path, b"\0t\0"].concat());
    let reply = message(MessageType::Read, 1, b"value");
    let answer = [event(b"/a"), event(b"/b"), reply, event(b"/c")].concat();
    let (store, peer) = store_that_says(HEADER_LEN + 3, answer);
    assert_eq!(store.read("/a").unwrap(), b"value");
    for (path, wait) in [("/a", 20), ("/b", 20), ("/c", u64::MAX)] {
        let event = store.next_event(Some(Duration::from_secs(wait))).unwrap().unwrap();
        assert_eq!((&*event.path, &*event.token), (path, "t"));
    }
    assert_eq!(store.pending_event().unwrap(), None);
    drop(store);
    peer.join().unwrap();
}

#[test]
fn an_error_names_the_path_and_the_reason() {
    let error = read_answered_by(message(MessageType::Error, 1, b"EACCES\0")).unwrap_err();
    assert_eq!(error.to_string(), "xenstore: READ /a: access denied (EACCES)");
}

#[test]
fn nonsense_is_an_error_and_no_panic() {
    let too_long = Header::new(MessageType::Read, 1, 0, PAYLOAD_MAX as u32 + 1).to_bytes().to_vec();
    for nonsense in [
        too_long,
        message(MessageType::Read, 2, b"for somebody else"),
        message(MessageType::Write, 1, b"OK\0"),
        message(MessageType::Error, 1, b"EWHATEVER\0"),
        message(MessageType::Error, 1, b"EACCES"),
        message(MessageType::WatchEvent, 0, b"/a"),
        message(MessageType::WatchEvent, 0, b"/\xff\0t\0"),
    ] {
        let result = read_answered_by(nonsense.clone());
        let Err(Error::Io { source, .. }) = &result else { panic!("{result:?} to {nonsense:?}") };
        assert_eq!(source.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn half_an_event_is_none_yet() {
    let event = message(MessageType::WatchEvent, 0, b"/a\0t\0");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let store = Store::from_stream(ours);
    for (sent, byte) in event.iter().enumerate() {
        assert_eq!(store.pending_event().unwrap(), None, "after {sent} bytes");
        theirs.write_all(&[*byte]).unwrap();
    }
    assert_eq!(store.pending_event().unwrap().unwrap().path, "/a");
    theirs.write_all(&event[..10]).unwrap();
    drop(theirs);
    assert!(matches!(store.next_event(None), Err(Error::Gone(_))));
    assert!(matches!(store.read("/a"), Err(Error::Gone(_))));
}

#[test]
fn a_request_too_long_for_a_message_is_not_sent() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let store = Store::from_stream(ours);
    let refused = store.write("/a", [0; PAYLOAD_MAX - 2]);
    assert!(matches!(refused, Err(Error::Store { errno: Errno::E2BIG, .. })));
    theirs.set_nonblocking(true).unwrap();
    assert_eq!((&theirs).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_place_without_a_store_is_named() {
    let error = Store::connect("/nonexistent/xenstored.sock").unwrap_err();
    assert!(
        error.to_string().starts_with("connecting to xenstore at /nonexistent/xenstored.sock: ")
    );
}
