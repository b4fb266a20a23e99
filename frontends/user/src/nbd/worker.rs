// SPDX-License-Identifier: MIT OR Apache-2.0

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::connection::{Connection, End};
use super::engine::{ConnectionId, Engine};
use super::handshake::Export;
use crate::{Completion, Error, Queue};

/// Most connections of one thread. Each has half a MiB of buffers.
const CONNECTIONS: usize = 64;

/// How long a client may take to send the data of one write, or to take one reply, while others wait for the memory that
/// this holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The place of the inbox among the connections.
const INBOX: u64 = u64::MAX;

/// How clients reach a thread, and how it is told to end.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<InboxState>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct InboxState {
    sockets: Vec<OwnedFd>,
    stop: bool,
}

impl Inbox {
    pub fn new() -> rustix::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), wake })
    }

    /// Hands a client over.
    pub fn put(&self, socket: OwnedFd) {
        self.change(|state| state.sockets.push(socket));
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.change(|state| state.stop = true);
    }

    fn change(&self, change: impl FnOnce(&mut InboxState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        // It fails only when it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn take(&self) -> InboxState {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        InboxState { sockets: std::mem::take(&mut state.sockets), stop: state.stop }
    }
}

/// A client, and what its socket is watched for.
#[derive(Debug)]
struct Client {
    connection: Connection,
    watched: epoll::EventFlags,
    /// It has received, or got an answer, since it last sent.
    stirred: bool,
}

/// One thread of the server: a queue, and its clients.
#[derive(Debug)]
pub struct Worker {
    engine: Engine,
    clients: Vec<Option<Client>>,
    /// Clients there have been.
    count: u64,
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    completed: Vec<Completion>,
}

impl Worker {
    pub fn new(queue: Queue, export: Export, inbox: Arc<Inbox>) -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &inbox.wake, epoll::EventData::new_u64(INBOX), epoll::EventFlags::IN)?;
        Ok(Self {
            engine: Engine::new(queue, export),
            clients: Vec::new(),
            count: 0,
            inbox,
            epoll,
            completed: Vec::with_capacity(CONNECTIONS),
        })
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    ///
    /// When the disk failed; every client was told.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Vec::with_capacity(CONNECTIONS + 1);
        loop {
            if self.sockets(&mut events) {
                return Ok(());
            }
            let failed = self.answers().err();
            self.replies();
            if let Some(error) = failed {
                return Err(error);
            }
            let left = self.part_with_halting();
            if events.is_empty() {
                let epoll = self.epoll.as_fd();
                self.engine.queue().wait_or(Some(epoll), left);
            }
        }
    }

    /// Receives from the sockets that have something. Returns whether to stop.
    fn sockets(&mut self, events: &mut Vec<epoll::Event>) -> bool {
        events.clear();
        let room = rustix::buffer::spare_capacity(events);
        if let Err(error) = epoll::wait(&self.epoll, room, Some(&Timespec::default())) {
            log::debug!("nbd: epoll: {error}");
        }
        for event in events {
            let place = event.data.u64();
            if place == INBOX {
                let news = self.inbox.take();
                if news.stop {
                    return true;
                }
                news.sockets.into_iter().for_each(|socket| self.admit(socket));
                continue;
            }
            let Some(Some(client)) = self.clients.get_mut(place as usize) else { continue };
            client.stirred = true;
            // Told of whatever is watched for. Whoever listens finds the end behind what was sent before it.
            let flags = event.flags;
            let gone = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            let result = match client.connection.is_listening() {
                true => client.connection.receive(&mut self.engine),
                false if gone => Err(End::Disconnected),
                false => Ok(()),
            };
            if let Err(end) = result {
                self.close(place as usize, &end);
            }
        }
        false
    }

    /// Takes what the disk has done.
    fn answers(&mut self) -> Result<(), Error> {
        self.engine.queue().kick();
        let completed = &mut self.completed;
        let result = self.engine.queue().complete(&mut |completion| completed.push(completion));
        for completion in self.completed.drain(..) {
            if !self.engine.completed(&completion) {
                continue;
            }
            let index = completion.tag as usize;
            let Some(id) = self.engine.get(index).map(|progress| progress.connection) else {
                continue;
            };
            match self.clients.get_mut(id.place) {
                Some(Some(client)) if client.connection.id() == id => {
                    client.connection.completed(index);
                    client.stirred = true;
                }
                _ => self.engine.end(index),
            }
        }
        self.engine.queue().kick();
        result.map(drop)
    }

    /// Sends the replies, and lets clients on that waited for the room that this makes.
    fn replies(&mut self) {
        for place in 0..self.clients.len() {
            let Some(Some(client)) = self.clients.get_mut(place) else { continue };
            let Client { connection, stirred, .. } = client;
            let mut result = match std::mem::take(stirred) {
                true => connection.send(&mut self.engine),
                false => Ok(()),
            };
            if connection.starved && !connection.blocked && result.is_ok() {
                result = connection.parse(&mut self.engine);
                *stirred = true;
            }
            match result {
                Ok(()) => self.watch(place),
                Err(end) => self.close(place, &end),
            }
        }
    }

    /// Closes clients that halt for too long with memory that others wait for. Returns how long to wait for the next one.
    fn part_with_halting(&mut self) -> Option<Duration> {
        let waits = |client: &Client| client.connection.starved && !client.connection.blocked;
        if !self.clients.iter().flatten().any(waits) {
            return None;
        }
        let mut next: Option<Duration> = None;
        for place in 0..self.clients.len() {
            let Some(Some(client)) = self.clients.get(place) else { continue };
            let Some(since) = client.connection.halting_since() else { continue };
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                self.close(place, &End::Halting);
            }
            // None left: those that waited have their turn at once.
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        next
    }

    /// Watches a client's socket for what can be used now.
    fn watch(&mut self, place: usize) {
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, client.connection.is_listening());
        flags.set(epoll::EventFlags::OUT, client.connection.blocked);
        if flags != client.watched {
            client.watched = flags;
            let data = epoll::EventData::new_u64(place as u64);
            if let Err(error) = epoll::modify(&self.epoll, client.connection.socket(), data, flags)
            {
                self.close(place, &error.into());
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let place = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        if place >= CONNECTIONS {
            log::warn!("nbd: a client was turned away: there are {CONNECTIONS} already");
            return;
        }
        self.count += 1;
        let connection = Connection::new(socket, ConnectionId { place, count: self.count });
        let watched = epoll::EventFlags::IN;
        let data = epoll::EventData::new_u64(place as u64);
        if let Err(error) = epoll::add(&self.epoll, connection.socket(), data, watched) {
            log::warn!("nbd: a client was turned away: {error}");
            return;
        }
        let client = Some(Client { connection, watched, stirred: true });
        match self.clients.get_mut(place) {
            Some(free) => *free = client,
            None => self.clients.push(client),
        }
    }

    fn close(&mut self, place: usize, end: &End) {
        if let Some(client) = self.clients.get_mut(place).and_then(Option::take) {
            match end {
                End::Disconnected => log::debug!("nbd: connection {place}: {end}"),
                _ => log::warn!("nbd: connection {place} closed: {end}"),
            }
            client.connection.close(&mut self.engine);
        }
    }
}
