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
        if self.events.insert(payload.to_vec()) {
            self.push(Header::new(MessageType::WatchEvent, 0, 0, 0), payload);
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
            if let Some((header, payload)) = message.split_first_chunk::<HEADER_LEN>() {
                if Header::from_bytes(header).kind == MessageType::WatchEvent as u32 {
                    self.events.remove(payload);
                }
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
