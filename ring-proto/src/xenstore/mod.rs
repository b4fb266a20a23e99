// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The wire protocol of xenstore (`io/xs_wire.h`, `docs/misc/xenstore.txt`).
//!
//! A message is a [`Header`] of four native-endian words and a payload of at most [`PAYLOAD_MAX`] bytes, the same over
//! a Unix socket, `/dev/xen/xenbus`, and the ring of [`interface`]. A reply repeats the request's type, id and
//! transaction; an error is a reply of type [`MessageType::Error`] that holds an error's name. Watch events come in
//! between, with both ids 0.
//!
//! ```text
//! offset   0      4        8       12    16
//!        | type | req_id | tx_id | len | payload …
//! ```
//!
//! A payload is one or more strings, each ended by a NUL ([`Strings`]); the value of a READ or WRITE is plain bytes.
//! Nothing here allocates: what is parsed borrows from the payload.

pub mod interface;
mod path;
mod permission;
pub mod stream;

pub use path::{Home, Path, PathError};
pub use permission::{Permission, PermissionError, Rights};

use crate::xen::Errno;

/// Bytes of a header.
pub const HEADER_LEN: usize = 16;
/// Largest payload in either direction (`XENSTORE_PAYLOAD_MAX`). A message that claims more ends the connection.
pub const PAYLOAD_MAX: usize = 4096;
/// Longest absolute path (`XENSTORE_ABS_PATH_MAX`).
pub const ABS_PATH_MAX: usize = 3072;
/// Longest path relative to a domain's home (`XENSTORE_REL_PATH_MAX`).
pub const REL_PATH_MAX: usize = 2048;
/// Payload of the reply to a request that returns nothing.
pub const ACK: &[u8] = b"OK\0";

/// Special watch path: a domain was introduced.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// Special watch path: a domain shut down, crashed or was released.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Declares the message types, their numbers and what they carry.
macro_rules! message_types {
    ($($name:ident = $value:literal, $wire:literal, $doc:literal;)*) => {
        /// What a message asks for or tells (`enum xsd_sockmsg_type`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum MessageType {
            $(#[doc = concat!("`XS_", $wire, "`: ", $doc, ".")] $name = $value,)*
        }

        impl MessageType {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The type with this number. 20 is a hole: `RESTRICT` was removed from the protocol.
            pub const fn from_raw(number: u32) -> Option<Self> {
                match number { $($value => Some(Self::$name),)* _ => None }
            }

            /// Its name in `xs_wire.h`, without `XS_`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }
        }
    };
}

message_types! {
    Control = 0, "CONTROL", "`<command>|[<parameter>|]`, reply is text";
    Directory = 1, "DIRECTORY", "`<path>|`, reply `<child>|*`";
    Read = 2, "READ", "`<path>|`, reply is the value";
    GetPerms = 3, "GET_PERMS", "`<path>|`, reply `<permission>|+`";
    Watch = 4, "WATCH", "`<path>|<token>|`";
    Unwatch = 5, "UNWATCH", "`<path>|<token>|`";
    TransactionStart = 6, "TRANSACTION_START", "`|`, reply `<transaction id>|`";
    TransactionEnd = 7, "TRANSACTION_END", "`T|` commits, `F|` discards";
    Introduce = 8, "INTRODUCE", "`<domid>|<gfn>|<port>|`, privileged";
    Release = 9, "RELEASE", "`<domid>|`, privileged";
    GetDomainPath = 10, "GET_DOMAIN_PATH", "`<domid>|`, reply `<path>|`";
    Write = 11, "WRITE", "`<path>|<value>`";
    Mkdir = 12, "MKDIR", "`<path>|`";
    Rm = 13, "RM", "`<path>|`";
    SetPerms = 14, "SET_PERMS", "`<path>|<permission>|+`";
    WatchEvent = 15, "WATCH_EVENT", "`<path>|<token>|`, from the store only";
    Error = 16, "ERROR", "`<error name>|`, from the store only";
    IsDomainIntroduced = 17, "IS_DOMAIN_INTRODUCED", "`<domid>|`, reply `T|` or `F|`, privileged";
    Resume = 18, "RESUME", "`<domid>|`, privileged";
    SetTarget = 19, "SET_TARGET", "`<domid>|<target domid>|`, privileged";
    ResetWatches = 21, "RESET_WATCHES", "`|`, drops all watches and transactions of the caller";
    DirectoryPart = 22, "DIRECTORY_PART", "`<path>|<offset>|`, reply `<generation>|<child>|*`, and `|` at the end of the list";
}

/// The header of a message (`struct xsd_sockmsg`), as read: no field of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of a [`MessageType`].
    pub kind: u32,
    /// Chosen by the client, repeated in the reply.
    pub request: u32,
    /// The transaction that the request belongs to, or 0.
    pub transaction: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// Header of a message that this side sends. `len` is the payload's.
    pub const fn new(kind: MessageType, request: u32, transaction: u32, len: u32) -> Self {
        Self { kind: kind as u32, request, transaction, len }
    }

    /// Reads the four words.
    pub const fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            kind: u32::from_ne_bytes([a, b, c, d]),
            request: u32::from_ne_bytes([e, f, g, h]),
            transaction: u32::from_ne_bytes([i, j, k, l]),
            len: u32::from_ne_bytes([m, n, o, p]),
        }
    }

    /// The four words as they go over the wire.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.kind.to_ne_bytes();
        let [e, f, g, h] = self.request.to_ne_bytes();
        let [i, j, k, l] = self.transaction.to_ne_bytes();
        let [m, n, o, p] = self.len.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Bytes of payload, or `None` when there are more than [`PAYLOAD_MAX`]: where the next message begins is then
    /// anybody's guess, and the connection has to end.
    pub const fn payload_len(&self) -> Option<usize> {
        if self.len as usize > PAYLOAD_MAX {
            None
        } else {
            Some(self.len as usize)
        }
    }
}

/// The errors that the protocol has names for (`xsd_errors`).
pub const ERRORS: [Errno; 16] = [
    Errno::EINVAL,
    Errno::EACCES,
    Errno::EEXIST,
    Errno::EISDIR,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EIO,
    Errno::ENOTEMPTY,
    Errno::ENOSYS,
    Errno::EROFS,
    Errno::EBUSY,
    Errno::EAGAIN,
    Errno::EISCONN,
    Errno::E2BIG,
    Errno::EPERM,
];

/// The name that goes into an [`MessageType::Error`] reply. An error without a name there is `EINVAL`.
pub fn error_name(errno: Errno) -> &'static str {
    if ERRORS.contains(&errno) { errno } else { Errno::EINVAL }.name()
}

/// The error that an [`MessageType::Error`] reply names, or `None` for a name that the protocol does not have.
pub fn error_from_payload(payload: &[u8]) -> Option<Errno> {
    let name = one_string(payload)?;
    ERRORS.into_iter().find(|errno| errno.name().as_bytes() == name)
}

/// The strings of a payload, each ended by a NUL. Bytes after the last NUL are no string; [`rest`](Self::rest) has
/// them.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    /// Begins at the payload's first byte.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What follows the strings taken so far.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let nul = self.rest.iter().position(|&byte| byte == 0)?;
        let (string, rest) = self.rest.split_at(nul);
        self.rest = rest.get(1..).unwrap_or_default();
        Some(string)
    }
}

/// The only string of a payload whose only NUL is its last byte.
pub fn one_string(payload: &[u8]) -> Option<&[u8]> {
    let mut strings = Strings::new(payload);
    let string = strings.next()?;
    strings.rest().is_empty().then_some(string)
}

/// Path and token of a [`MessageType::WatchEvent`].
pub fn watch_event(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut strings = Strings::new(payload);
    let event = (strings.next()?, strings.next()?);
    strings.rest().is_empty().then_some(event)
}

/// A number in decimal digits and nothing else, as domain ids, transaction ids and offsets are written.
pub fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn numbers_of_the_message_types() {
        // From `xs_wire.h` of Xen 4.17; 20 was RESTRICT.
        assert_eq!(MessageType::from_raw(1), Some(MessageType::Directory));
        assert_eq!(MessageType::from_raw(16), Some(MessageType::Error));
        assert_eq!(MessageType::from_raw(20), None);
        assert_eq!(MessageType::from_raw(22), Some(MessageType::DirectoryPart));
        assert_eq!(MessageType::from_raw(23), None);
        for &kind in MessageType::ALL {
            assert_eq!(MessageType::from_raw(kind as u32), Some(kind));
        }
    }

    #[test]
    fn a_payload_longer_than_the_limit_has_no_length() {
        let header = |len| Header::new(MessageType::Read, 1, 0, len);
        assert_eq!(header(4096).payload_len(), Some(4096));
        assert_eq!(header(4097).payload_len(), None);
        assert_eq!(header(u32::MAX).payload_len(), None);
    }

    #[test]
    fn strings_stop_at_the_last_nul() {
        let mut strings = Strings::new(b"a\0\0bc\0rest");
        assert_eq!(strings.by_ref().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
        assert_eq!(strings.rest(), b"rest");
        assert_eq!(one_string(b"a\0"), Some(&b"a"[..]));
        assert_eq!(one_string(b"a"), None);
        assert_eq!(one_string(b"a\0b\0"), None);
        assert_eq!(one_string(b""), None);
        assert_eq!(watch_event(b"/a\0token\0"), Some((&b"/a"[..], &b"token"[..])));
        assert_eq!(watch_event(b"/a\0token"), None);
    }

    #[test]
    fn errors_go_by_name() {
        assert_eq!(error_name(Errno::EAGAIN), "EAGAIN");
        assert_eq!(error_name(Errno::EOVERFLOW), "EINVAL");
        assert_eq!(error_from_payload(b"E2BIG\0"), Some(Errno::E2BIG));
        assert_eq!(error_from_payload(b"EOVERFLOW\0"), None);
        assert_eq!(error_from_payload(b"E2BIG"), None);
    }

    #[test]
    fn decimals_are_digits_only() {
        assert_eq!(decimal(b"65535"), Some(65535));
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"0x1", b"4294967296"] {
            assert_eq!(decimal(bad), None);
        }
    }

    proptest! {
        #[test]
        fn a_header_survives_the_wire(kind: u32, request: u32, transaction: u32, len: u32) {
            let header = Header { kind, request, transaction, len };
            prop_assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        }

        #[test]
        fn strings_and_rest_make_up_the_payload(payload: Vec<u8>) {
            let mut strings = Strings::new(&payload);
            let mut again = Vec::new();
            for string in strings.by_ref() {
                again.extend_from_slice(string);
                again.push(0);
            }
            again.extend_from_slice(strings.rest());
            prop_assert_eq!(again, payload);
        }
    }
}
