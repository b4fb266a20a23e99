// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client that sends what it is told to, legal or not.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{HEADER_LEN, Header, MessageType, error_from_payload, watch_event};
use xenstored::{Quota, Server};

/// A server that can be reached only through [`Server::connect`].
pub fn serve(quota: Quota) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("xenstored.sock")).unwrap();
    Server::with_quota(listener, quota).unwrap()
}

/// One connection.
pub struct Wire {
    pub stream: UnixStream,
    last_request: u32,
    /// Paths and tokens of the events that came before a reply.
    pub events: VecDeque<(String, String)>,
}

impl Wire {
    pub fn connect(server: &Server, domid: u16) -> Self {
        Self::new(server.connect(DomId(domid)).unwrap())
    }

    pub fn new(stream: UnixStream) -> Self {
        // Far longer than anything takes, so that a reply that never comes fails the test.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, last_request: 0, events: VecDeque::new() }
    }

    /// The next message, whatever it is.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).unwrap();
        let header = Header::from_bytes(&header);
        let mut payload = vec![0; header.payload_len().expect("a legal length")];
        self.stream.read_exact(&mut payload).unwrap();
        (header, payload)
    }

    /// Sends a request and takes its reply; events that come before are kept.
    pub fn ask(
        &mut self,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        self.last_request += 1;
        self.stream
            .write_all(&message(kind as u32, self.last_request, transaction, payload))
            .unwrap();
        loop {
            let (header, payload) = self.receive();
            if header.kind == MessageType::WatchEvent as u32 {
                assert_eq!((header.request, header.transaction), (0, 0));
                let (path, token) = watch_event(&payload).expect("a path and a token");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
                self.events.push_back((text(path), text(token)));
                continue;
            }
            assert_eq!((header.request, header.transaction), (self.last_request, transaction));
            if header.kind == MessageType::Error as u32 {
                return Err(error_from_payload(&payload).expect("the name of an error"));
            }
            assert_eq!(header.kind, kind as u32);
            return Ok(payload);
        }
    }

    /// A request on one path.
    pub fn ask_on(&mut self, kind: MessageType, path: &str) -> Result<Vec<u8>, Errno> {
        self.ask(kind, 0, format!("{path}\0").as_bytes())
    }

    /// Writes text to a node.
    pub fn write(&mut self, path: &str, value: &str) -> Result<Vec<u8>, Errno> {
        self.ask(MessageType::Write, 0, format!("{path}\0{value}").as_bytes())
    }

    /// Takes all events that the server has sent by now.
    pub fn take_events(&mut self) -> Vec<(String, String)> {
        self.ask(MessageType::GetDomainPath, 0, b"0\0").unwrap();
        self.events.drain(..).collect()
    }

    /// Whether the server closed the connection. Takes whatever came before.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A message with a header that fits its payload.
pub fn message(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    let header = Header { kind, request, transaction, len };
    [&header.to_bytes(), payload].concat()
}
