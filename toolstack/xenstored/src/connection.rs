// SPDX-License-Identifier: MIT OR Apache-2.0

//! One connection's bytes: requests that come in by pieces, replies and events that wait to go out. It does not care
//! what carries them.
//!
//! The peer is hostile. Little more of its input is kept than one read brings; while [`OUTPUT_LIMIT`] bytes wait for it to read,
//! nothing more is read from it, and watch events are told coarsely, at most one for each of its watches. So what it
//! costs is bounded, no event is lost, and nobody else waits for it.

use std::collections::{HashSet, VecDeque};

use ring_proto::xen::Errno;
use ring_proto::xenstore::{HEADER_LEN, Header, MessageType, PAYLOAD_MAX, error_name};

use crate::watch::Event;

/// Bytes of output that may wait before the connection is slowed down. Room for a reply and its successor, and for
/// the events of some hundred devices.
pub(crate) const OUTPUT_LIMIT: usize = 256 * 1024;

/// The peer sent what is no message; there is no way to know where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message claims {len} bytes of payload")]
pub(crate) struct Malformed {
    len: u32,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

/// The buffers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    input: Vec<u8>,
    /// Messages, the first of them perhaps sent in part.
    output: VecDeque<Vec<u8>>,
    /// How much of the first message is sent.
    sent: usize,
    /// Bytes in `output`.
    waiting: usize,
    /// Events in `output`, of which each need be told only once.
    events: HashSet<Vec<u8>>,
}

impl Connection {
    /// Whether to read more from the peer.
    pub(crate) fn wants_input(&self) -> bool {
        self.waiting < OUTPUT_LIMIT
    }

    /// Takes in what the peer sent.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether [`next_message`](Self::next_message) has something to say.
    pub(crate) fn has_message(&self) -> bool {
        !matches!(self.message_len(), Ok(None))
    }

    /// The next whole request, unless the peer has too much to read first.
    ///
    /// # Errors
    ///
    /// When the header is no header. The connection has to be closed.
    pub(crate) fn next_message(&mut self) -> Result<Option<Message>, Malformed> {
        let Some((header, len)) = self.message_len()? else { return Ok(None) };
        let payload = self.input.drain(..HEADER_LEN + len).skip(HEADER_LEN).collect();
        Ok(Some(Message { header, payload }))
    }

    /// Header and length of payload of the next request, when it is whole and its time has come.
    fn message_len(&self) -> Result<Option<(Header, usize)>, Malformed> {
        let Some(header) = self.input.first_chunk().filter(|_| self.wants_input()) else {
            return Ok(None);
        };
        let header = Header::from_bytes(header);
        let len = header.payload_len().ok_or(Malformed { len: header.len })?;
        Ok((self.input.len() >= HEADER_LEN + len).then_some((header, len)))
    }

    /// Queues the answer to a request.
    pub(crate) fn reply(&mut self, request: Header, answer: Result<Vec<u8>, Errno>) {
        let answer = answer.and_then(|payload| {
            if payload.len() > PAYLOAD_MAX { Err(Errno::E2BIG) } else { Ok(payload) }
        });
        let (kind, payload) = match answer {
            Ok(payload) => (request.kind, payload),
            Err(errno) => {
                (MessageType::Error as u32, [error_name(errno).as_bytes(), &[0]].concat())
            }
        };
        self.push(Header { kind, ..request }, &payload);
    }

    /// Queues a watch event, unless the peer has yet to read the same one.
    pub(crate) fn event(&mut self, event: &Event) {
        let payload = if self.wants_input() { event.payload() } else { event.coarse() };
        if !self.events.contains(&payload) {
            self.push(Header::new(MessageType::WatchEvent, 0, 0, 0), &payload);
            self.events.insert(payload);
        }
    }

    /// Bytes to send next. Empty when there are none.
    pub(crate) fn output(&self) -> &[u8] {
        self.output.front().and_then(|message| message.get(self.sent..)).unwrap_or_default()
    }

    /// Notes that the first `len` bytes of the output are sent.
    pub(crate) fn advance(&mut self, len: usize) {
        self.sent += len;
        while self.output.front().is_some_and(|message| message.len() <= self.sent) {
            let Some(message) = self.output.pop_front() else { break };
            self.sent -= message.len();
            self.waiting -= message.len();
            if let Some((header, payload)) = message.split_first_chunk::<HEADER_LEN>()
                && Header::from_bytes(header).kind == MessageType::WatchEvent as u32
            {
                self.events.remove(payload);
            }
        }
    }

    fn push(&mut self, header: Header, payload: &[u8]) {
        // Neither a reply nor an event is longer than `PAYLOAD_MAX`.
        let header = Header { len: payload.len() as u32, ..header };
        let message = [&header.to_bytes(), payload].concat();
        self.waiting += message.len();
        self.output.push_back(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Scope;
    use crate::watch::Watch;
    use proptest::prelude::*;
    use ring_proto::xen::DomId;

    fn message(kind: MessageType, payload: &[u8]) -> Vec<u8> {
        let header = Header::new(kind, 7, 0, payload.len() as u32);
        [&header.to_bytes(), payload].concat()
    }

    /// Takes all output, in pieces of `piece` bytes.
    fn output(connection: &mut Connection, piece: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !connection.output().is_empty() {
            let len = connection.output().len().min(piece);
            all.extend_from_slice(&connection.output()[..len]);
            connection.advance(len);
        }
        assert_eq!((connection.waiting, connection.events.len()), (0, 0));
        all
    }

    #[test]
    fn an_error_goes_by_its_name() {
        let mut connection = Connection::default();
        let request = Header::new(MessageType::Read, 7, 3, 3);
        connection.reply(request, Err(Errno::ENOENT));
        let header = Header { kind: MessageType::Error as u32, len: 7, ..request };
        assert_eq!(output(&mut connection, 5), [&header.to_bytes(), &b"ENOENT\0"[..]].concat());
        connection.reply(request, Ok(vec![0; PAYLOAD_MAX + 1]));
        assert!(output(&mut connection, 99).ends_with(b"E2BIG\0"));
    }

    #[test]
    fn an_event_waits_once() {
        let mut connection = Connection::default();
        let watch = Watch::new(b"/a", b"t", DomId::DOM0).unwrap();
        let event = |path: &str| watch.event(&path.into(), Scope::Above).unwrap();
        for path in ["/a/b", "/a/c", "/a/b"] {
            connection.event(&event(path));
        }
        // Also while it is on its way.
        connection.advance(3);
        connection.event(&event("/a/b"));
        let mut told = output(&mut connection, 1000);
        assert_eq!(told.len(), 2 * (HEADER_LEN + 7) - 3);
        connection.event(&event("/a/b"));
        told = output(&mut connection, 1000);
        assert!(told.ends_with(b"/a/b\0t\0"));
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_from() {
        let mut connection = Connection::default();
        let request = Header::new(MessageType::Read, 7, 0, 0);
        while connection.wants_input() {
            connection.reply(request, Ok(vec![0; PAYLOAD_MAX]));
        }
        assert!(connection.waiting < OUTPUT_LIMIT + HEADER_LEN + PAYLOAD_MAX);
        connection.receive(&message(MessageType::Read, b"/\0"));
        assert_eq!((connection.has_message(), connection.next_message()), (false, Ok(None)));
        let len = connection.output().len();
        connection.advance(len);
        assert!(connection.has_message() && connection.next_message().unwrap().is_some());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_arrive(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
            pieces in prop::collection::vec(1usize..60, 1..20),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| message(MessageType::Write, payload)).collect();
            let mut connection = Connection::default();
            let (mut rest, mut taken) = (&bytes[..], Vec::new());
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*piece));
                connection.receive(now);
                while let Some(message) = connection.next_message().unwrap() {
                    taken.push(message.payload);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(taken, payloads);
            prop_assert!(connection.input.is_empty());
        }

        #[test]
        fn random_bytes_are_messages_or_malformed(bytes: Vec<u8>) {
            let mut connection = Connection::default();
            connection.receive(&bytes);
            while let Ok(Some(message)) = connection.next_message() {
                prop_assert!(message.payload.len() <= PAYLOAD_MAX);
            }
        }
    }
}
