// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno as OsError;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::engine::{ConnectionId, Engine};
use super::handshake::{Handshake, HandshakeError, Step};
use super::wire::{Command, REPLY_LEN, REQUEST_LEN, RawRequest, reply};

/// Bytes that are received at a time, and sent at a time.
const BUFFER_LEN: usize = 256 << 10;

/// Longest data of a refused write that is read over; after more the connection is closed.
const LONGEST_SKIP: usize = 64 << 20;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client went.
    #[error("the client went")]
    Disconnected,
    /// The client does not speak the protocol.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A request does not begin as one.
    #[error("a request does not begin as one")]
    NotARequest,
    /// The data of a refused write is too long to be read over.
    #[error("a refused write of {0} bytes")]
    LongWrite(usize),
    /// Others wait for memory that is held for what the client does not send or take.
    #[error("the client halts while others wait for memory that it holds")]
    Halting,
    /// The socket failed.
    #[error("the socket: {0}")]
    Socket(#[from] OsError),
}

/// What comes next from the client.
#[derive(Debug)]
enum Expect {
    /// The next part of the handshake.
    Option(Handshake),
    /// A request.
    Request,
    /// The data of the write with this number, and since when the client has not sent all of it.
    Data(usize, Option<Instant>),
    /// This many bytes that belong to nothing.
    Skip(usize),
    /// Nothing: the client said that it goes when its replies are sent.
    Nothing,
}

/// A client.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    socket: OwnedFd,
    expect: Expect,
    input: Box<[u8]>,
    /// What of `input` was received and not used.
    begin: usize,
    end: usize,
    output: Box<[u8]>,
    /// What of `output` was not sent.
    from: usize,
    to: usize,
    /// Since when the client has not taken the reply that comes first.
    unread: Option<Instant>,
    /// Requests that are over, to be replied to in this order.
    replies: VecDeque<usize>,
    /// Requests that the disk has.
    pub outstanding: usize,
    /// The next request has to wait until others, perhaps of other connections, are done.
    pub starved: bool,
    /// The socket takes no more at the moment.
    pub blocked: bool,
}

impl Connection {
    /// Greets a client.
    pub fn new(socket: OwnedFd, id: ConnectionId) -> Self {
        let mut connection = Self {
            id,
            socket,
            expect: Expect::Option(Handshake::default()),
            input: vec![0; BUFFER_LEN].into(),
            begin: 0,
            end: 0,
            output: vec![0; BUFFER_LEN].into(),
            from: 0,
            to: 0,
            unread: None,
            replies: VecDeque::new(),
            outstanding: 0,
            starved: false,
            blocked: false,
        };
        connection.say(&Handshake::greeting());
        connection
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether what the client sends can be used now.
    pub fn is_listening(&self) -> bool {
        !self.starved && !self.blocked && !matches!(self.expect, Expect::Nothing)
    }

    /// Since when memory has been held for data that the client does not send, or does not take.
    pub fn halting_since(&self) -> Option<Instant> {
        let unsent = match self.expect {
            Expect::Data(_, since) => since,
            _ => None,
        };
        let unread = self.unread.filter(|_| !self.replies.is_empty());
        unsent.into_iter().chain(unread).min()
    }

    /// Receives what is there, once, and uses it.
    ///
    /// # Errors
    ///
    /// Why the connection has to be closed.
    pub fn receive(&mut self, engine: &mut Engine) -> Result<(), End> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.begin > 0 && self.end == self.input.len() {
            self.input.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.end < self.input.len() {
            match recv(&self.socket, &mut self.input[self.end..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(End::Disconnected),
                Ok((len, _)) => self.end += len,
                Err(OsError::AGAIN | OsError::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.parse(engine)
    }

    /// Uses what was received, as far as there is room.
    ///
    /// # Errors
    ///
    /// Why the connection has to be closed.
    pub fn parse(&mut self, engine: &mut Engine) -> Result<(), End> {
        self.starved = false;
        loop {
            let input = &self.input[self.begin..self.end];
            match &mut self.expect {
                Expect::Option(handshake) => {
                    let mut answer = Vec::new();
                    let step = handshake.advance(engine.export(), input, &mut answer)?;
                    self.say(&answer);
                    match step {
                        Step::More => return Ok(()),
                        Step::Used(used) => self.begin += used,
                        Step::Begin(used) => {
                            self.begin += used;
                            self.expect = Expect::Request;
                        }
                        Step::End => self.expect = Expect::Nothing,
                    }
                    if self.output.len() - self.to < 1024 {
                        // A client that asks and does not read: it gets no more before it did.
                        self.flush()?;
                        self.blocked |= self.output.len() - self.to < 1024;
                        if self.blocked {
                            return Ok(());
                        }
                    }
                }
                Expect::Request => {
                    let Some(header) = input.first_chunk::<REQUEST_LEN>() else { return Ok(()) };
                    let raw = RawRequest::parse(header).ok_or(End::NotARequest)?;
                    let payload = raw.payload() as usize;
                    let request = engine.limits().check(&raw);
                    if request.is_ok_and(|request| request.command == Command::Disconnect) {
                        self.expect = Expect::Nothing;
                        continue;
                    }
                    if request.is_err() && payload > LONGEST_SKIP {
                        return Err(End::LongWrite(payload));
                    }
                    let Some(index) = engine.begin(self.id, raw.cookie, request) else {
                        self.starved = true;
                        return Ok(());
                    };
                    self.begin += REQUEST_LEN;
                    match payload {
                        0 => self.submit(engine, index),
                        _ if request.is_ok() => self.expect = Expect::Data(index, None),
                        _ => {
                            self.submit(engine, index);
                            self.expect = Expect::Skip(payload);
                        }
                    }
                }
                Expect::Data(index, since) => {
                    let index = *index;
                    let (used, whole) = engine.receive(index, input);
                    self.begin += used;
                    if !whole {
                        since.get_or_insert_with(Instant::now);
                        return Ok(());
                    }
                    self.expect = Expect::Request;
                    self.submit(engine, index);
                }
                Expect::Skip(left) => {
                    let len = input.len().min(*left);
                    self.begin += len;
                    *left -= len;
                    if *left > 0 {
                        return Ok(());
                    }
                    self.expect = Expect::Request;
                }
                Expect::Nothing => return Ok(()),
            }
        }
    }

    fn submit(&mut self, engine: &mut Engine, index: usize) {
        match engine.submit(index) {
            true => self.replies.push_back(index),
            false => self.outstanding += 1,
        }
    }

    /// A request of this connection is over.
    pub fn completed(&mut self, index: usize) {
        self.outstanding -= 1;
        self.replies.push_back(index);
    }

    /// Sends replies, as many as the socket takes.
    ///
    /// # Errors
    ///
    /// Why the connection has to be closed.
    pub fn send(&mut self, engine: &mut Engine) -> Result<(), End> {
        loop {
            self.gather(engine);
            if self.from == self.to {
                break;
            }
            self.flush()?;
            if self.blocked {
                return Ok(());
            }
        }
        match self.expect {
            Expect::Nothing if self.outstanding == 0 => Err(End::Disconnected),
            _ => Ok(()),
        }
    }

    /// Puts replies into the output, as many as it has room for.
    fn gather(&mut self, engine: &mut Engine) {
        if self.from > 0 {
            self.output.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        while let Some(&index) = self.replies.front() {
            let data = engine.reply_len(index);
            let Some(progress) = engine.get(index) else {
                self.replies.pop_front();
                continue;
            };
            let mut done = progress.replied;
            if done == 0 {
                if self.output.len() - self.to < REPLY_LEN {
                    return;
                }
                let header = reply(progress.error, progress.cookie);
                self.output[self.to..self.to + REPLY_LEN].copy_from_slice(&header);
                self.to += REPLY_LEN;
                done = REPLY_LEN;
            }
            let len = (data + REPLY_LEN - done).min(self.output.len() - self.to);
            engine.copy_out(index, done - REPLY_LEN, &mut self.output[self.to..self.to + len]);
            self.to += len;
            done += len;
            if done < data + REPLY_LEN {
                if let Some(progress) = engine.get(index) {
                    progress.replied = done;
                }
                return;
            }
            engine.end(index);
            self.replies.pop_front();
            self.unread = None;
        }
    }

    /// Sends what is in the output.
    fn flush(&mut self) -> Result<(), End> {
        self.blocked = false;
        while self.from < self.to {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, &self.output[self.from..self.to], flags) {
                Ok(len) => self.from += len,
                Err(OsError::INTR) => {}
                Err(OsError::AGAIN) => {
                    self.blocked = true;
                    self.unread.get_or_insert_with(Instant::now);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
            self.unread = None;
        }
        Ok(())
    }

    /// Appends to the output, which has room.
    fn say(&mut self, bytes: &[u8]) {
        if let Some(room) = self.output.get_mut(self.to..self.to + bytes.len()) {
            room.copy_from_slice(bytes);
            self.to += bytes.len();
        }
    }

    /// Lets go of the requests that only the client waits for. Those that the disk has end when it is done with them.
    pub fn close(self, engine: &mut Engine) {
        if let Expect::Data(index, _) = self.expect {
            engine.end(index);
        }
        self.replies.iter().for_each(|index| engine.end(*index));
    }
}
