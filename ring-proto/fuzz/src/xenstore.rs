// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Messages of the store, as a client or the store may send them.

use ring_proto::xenstore::{
    HEADER_LEN, Header, PAYLOAD_MAX, Path, Permission, Strings, decimal, error_from_payload,
    error_name, one_string, watch_event,
};

/// Takes a message apart in every way.
pub fn run(data: &[u8]) {
    let Some((head, payload)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let header = Header::from_bytes(head);
    assert_eq!(header.to_bytes(), *head);
    match header.payload_len() {
        Some(len) => assert!(len <= PAYLOAD_MAX),
        None => assert!(header.len as usize > PAYLOAD_MAX),
    }

    let mut strings = Strings::new(payload);
    let mut whole = Vec::new();
    for string in strings.by_ref() {
        assert!(!string.contains(&0));
        whole.extend_from_slice(string);
        whole.push(0);
        part(string);
    }
    whole.extend_from_slice(strings.rest());
    assert_eq!(whole, payload, "a byte got lost");
    part(payload);

    if let Some(string) = one_string(payload) {
        assert_eq!(string.len() + 1, payload.len());
    }
    if let Some((path, token)) = watch_event(payload) {
        assert_eq!(path.len() + token.len() + 2, payload.len());
    }
    if let Some(errno) = error_from_payload(payload) {
        assert_eq!(Some(error_name(errno).as_bytes()), one_string(payload));
    }
}

/// A string of the message, taken for all it can be.
fn part(bytes: &[u8]) {
    if let Ok(path) = Path::parse(bytes) {
        let (Path::Absolute(text) | Path::Relative(text) | Path::Special(text)) = path;
        assert_eq!(text.as_bytes(), bytes);
        assert!(bytes.len() <= 3072);
    }
    if let Ok(permission) = Permission::parse(bytes) {
        let text = permission.to_string();
        assert_eq!(Permission::parse(text.as_bytes()), Ok(permission));
    }
    if let Some(number) = decimal(bytes) {
        assert!(bytes.ends_with(number.to_string().as_bytes()));
    }
}
