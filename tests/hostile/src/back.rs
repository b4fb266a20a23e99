// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that does the handshake as it should, and leaves the ring to whoever has it.
//!
//! It makes its own disk, of a kind that no backend of the kernel takes, and serves it without any storage: reads are
//! answered with whatever lies in the frontend's pages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client, EventChannel, Mapping};
use ring_proto::blkif::{Operation, RawIndirect, RawRequest, RawResponse};
use ring_proto::ring::header;
use ring_proto::shared::{SharedMemory, bytes_of, from_bytes, zeroed};
use ring_proto::xen::{DomId, GrantRef};
use ring_proto::xenbus::vbd::{BackendFeatures, Connection};
use ring_proto::xenbus::{End, State};
use ring_proto::xenstore::{Permission, Rights};

use crate::front::SLOTS;
use crate::peer::{LOOK, PATIENCE, Peer};

/// How long a page stays mapped when its disk is gone: longer than a frontend waits for it.
const KEEP: Duration = Duration::from_secs(8);

/// A disk to plug in.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The frontend's domain.
    pub frontend: DomId,
    /// Number of the disk: 51712 is xvda.
    pub device: u32,
    /// What the backend offers beside what each one here does, or instead.
    pub offer: Vec<(String, String)>,
    /// What a toolstack writes into the frontend's directory besides.
    pub front: Vec<(String, String)>,
}

/// A backend, and its disk.
pub struct Back {
    client: Arc<dyn Client>,
    /// Its connection to xenstore.
    pub store: Store,
    disk: Disk,
    /// Its directory.
    pub path: String,
    /// The frontend.
    peer: Peer,
    /// What it serves, while it is connected.
    pub served: Option<Served>,
    /// Both ends have said that pages may stay mapped.
    pub persistent: bool,
    /// A page of the frontend that stays mapped for a while when the disk is gone.
    pub kept: Option<Mapping>,
}

/// A connection.
pub struct Served {
    /// The ring.
    pub ring: Mapping,
    channel: EventChannel,
    /// Requests taken.
    pub consumed: u32,
    /// Answers written.
    pub produced: u32,
}

/// How a frontend took an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It closed the connection.
    Closed,
    /// It goes on, and asks for more.
    Alive,
}

impl Back {
    /// Plugs a disk in, as a toolstack does.
    pub fn plug(client: Arc<dyn Client>, disk: Disk) -> anyhow::Result<Self> {
        let store = client.store()?;
        let own = client.domid();
        let Disk { frontend, device, .. } = disk;
        let path = format!("/local/domain/{own}/backend/hostile/{frontend}/{device}");
        let peer = format!("/local/domain/{frontend}/device/vbd/{device}");
        let front = disk.front.iter().map(|(key, value)| (key.as_str(), value.clone()));
        let directories = [
            (
                &path,
                [own, frontend],
                vec![
                    ("frontend", peer.clone()),
                    ("frontend-id", frontend.to_string()),
                    ("online", "1".into()),
                    ("mode", "w".into()),
                    ("state", "1".into()),
                ],
            ),
            (
                &peer,
                [frontend, own],
                [
                    ("backend", path.clone()),
                    ("backend-id", own.to_string()),
                    ("virtual-device", device.to_string()),
                    ("device-type", "disk".into()),
                    ("state", "1".into()),
                ]
                .into_iter()
                .chain(front)
                .collect(),
            ),
        ];
        let complaint = complaint(&peer);
        store.transaction(|tx| {
            // That of a disk of this number before.
            if tx.try_read(&complaint)?.is_some() {
                tx.rm(&complaint)?;
            }
            for (directory, [owner, reader], keys) in &directories {
                tx.mkdir(directory)?;
                let permissions =
                    [Permission::new(*owner, Rights::None), Permission::new(*reader, Rights::Read)];
                tx.set_perms(directory, &permissions)?;
                for (key, value) in keys {
                    tx.write(&format!("{directory}/{key}"), value)?;
                }
            }
            Ok(())
        })?;
        let peer = Peer { end: End::Frontend, path: peer };
        let (served, kept) = (None, None);
        Ok(Self { client, store, disk, path, peer, served, persistent: false, kept })
    }

    /// Writes a key of its directory.
    pub fn write(&self, key: &str, value: impl AsRef<[u8]>) -> anyhow::Result<()> {
        Ok(self.store.write(&format!("{}/{key}", self.path), value)?)
    }

    /// Writes a state, whether it may or not.
    pub fn write_state(&self, state: State) -> anyhow::Result<()> {
        self.write("state", state.raw().to_string())
    }

    /// The state that its directory has.
    pub fn own_state(&self) -> anyhow::Result<State> {
        Ok(State::read(&mut self.store.device(&self.path))?)
    }

    /// Waits until the frontend's state satisfies a condition.
    pub fn await_peer(&self, right: impl FnMut(State) -> bool) -> anyhow::Result<State> {
        self.peer.wait(&self.store, right)
    }

    /// What the frontend says went wrong.
    pub fn complaint(&self) -> anyhow::Result<Option<String>> {
        let value = self.store.try_read(&complaint(&self.peer.path))?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// Offers what there is, the disk's own offer, and what `twist` makes of it, and takes up the rings. Returns whether
    /// there were any.
    pub fn meet(
        &mut self,
        twist: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        for (key, value) in [
            ("feature-flush-cache", "1"),
            ("feature-discard", "1"),
            ("feature-persistent", "0"),
            ("sectors", "65536"),
            ("sector-size", "512"),
            ("info", "0"),
        ] {
            self.write(key, value)?;
        }
        for (key, value) in &self.disk.offer {
            self.write(key, value)?;
        }
        twist(self)?;
        self.write_state(State::InitWait)?;
        let state = self.await_peer(|state| !matches!(state, State::Initialising))?;
        if state != State::Initialised {
            return Ok(false);
        }
        // Its own keys are nonsense perhaps; the frontend's are not.
        let offered = BackendFeatures { max_queues: 64, ..BackendFeatures::default() };
        let connection = Connection::read(&mut self.store.device(&self.peer.path), &offered)?;
        let offers = self.store.try_read(&format!("{}/feature-persistent", self.path))?;
        self.persistent = connection.settings().persistent && offers.as_deref() == Some(b"1");
        let queue = connection.queues().first().context("a queue")?;
        let frontend = self.disk.frontend;
        self.served = Some(Served {
            ring: self.client.map(frontend, queue.refs(), Access::ReadWrite)?,
            channel: self.client.bind_interdomain(frontend, queue.port)?,
            consumed: 0,
            produced: 0,
        });
        Ok(true)
    }

    /// Connects by the rules, and serves until the disk is in use.
    pub fn connect(&mut self) -> anyhow::Result<&mut Served> {
        ensure!(self.meet(|_| Ok(()))?, "the frontend does not want the disk");
        self.write_state(State::Connected)?;
        ensure!(self.serve(16)? == Outcome::Alive, "the frontend does not use the disk");
        self.served.as_mut().context("connected")
    }

    /// Answers by the rules until so many requests came or the frontend has closed the connection.
    pub fn serve(&mut self, count: u32) -> anyhow::Result<Outcome> {
        let end = Instant::now() + PATIENCE;
        let mut left = count;
        while left > 0 {
            let served = self.served.as_mut().context("connected")?;
            let requests = served.take();
            for request in &requests {
                served.answer(&legal(request));
            }
            served.publish()?;
            left = left.saturating_sub(requests.len() as u32);
            if requests.is_empty() {
                if !matches!(self.peer.state(&self.store)?, State::Initialised | State::Connected) {
                    return Ok(Outcome::Closed);
                }
                ensure!(Instant::now() < end, "the frontend asks for nothing");
                std::thread::sleep(LOOK);
            }
        }
        Ok(Outcome::Alive)
    }

    /// Waits until there are requests, and takes them without an answer.
    pub fn take(&mut self) -> anyhow::Result<Vec<RawRequest>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let requests = self.served.as_mut().context("connected")?.take();
            if !requests.is_empty() {
                return Ok(requests);
            }
            ensure!(Instant::now() < end, "the frontend asks for nothing");
            std::thread::sleep(LOOK);
        }
    }

    /// Maps a page of the frontend.
    pub fn map(&self, gref: u32) -> anyhow::Result<Mapping> {
        Ok(self.client.map(self.disk.frontend, &[GrantRef(gref)], Access::ReadOnly)?)
    }

    /// Closes the connection as a backend does that comes back, `at_once` or step by step, and waits until the frontend
    /// has begun anew.
    pub fn leave(&mut self, at_once: bool) -> anyhow::Result<()> {
        if !at_once {
            self.write_state(State::Closing)?;
            self.await_peer(|state| state == State::Closed)?;
        }
        self.write_state(State::Closed)?;
        self.await_peer(|state| state == State::Initialising)?;
        self.served = None;
        Ok(())
    }

    /// Takes the disk away, as a toolstack and a backend do together.
    pub fn unplug(mut self) -> anyhow::Result<()> {
        self.write("online", "0")?;
        self.write_state(State::Closing)?;
        let closed = self.await_peer(|state| state == State::Closed);
        self.served = None;
        self.write_state(State::Closed)?;
        self.store.transaction(|tx| {
            tx.rm(&self.peer.path)?;
            tx.rm(&self.path)
        })?;
        if let Some(page) = self.kept.take() {
            std::thread::sleep(KEEP);
            drop(page);
        }
        closed.map(drop)
    }
}

/// Where the frontend of this directory says what went wrong.
fn complaint(peer: &str) -> String {
    format!("{}/error", peer.replacen("/device/", "/error/device/", 1))
}

/// The answer that a request should get.
pub fn legal(request: &RawRequest) -> RawResponse {
    let operation = match Operation::from_raw(request.operation) {
        Some(Operation::Indirect) => {
            from_bytes::<RawIndirect>(bytes_of(request)).map_or(0, |indirect| indirect.indirect_op)
        }
        _ => request.operation,
    };
    RawResponse { id: request.id, operation, ..zeroed() }
}

impl Served {
    /// Takes the requests that there are, and asks for the doorbell at the next one.
    pub fn take(&mut self) -> Vec<RawRequest> {
        let mut requests = Vec::new();
        let producer = self.ring.load_acquire(header::REQ_PROD);
        while self.consumed != producer && requests.len() < SLOTS as usize {
            let at = header::LEN + (self.consumed % SLOTS) as usize * size_of::<RawRequest>();
            requests.push(self.ring.read(at));
            self.consumed = self.consumed.wrapping_add(1);
        }
        self.ring.publish(header::REQ_EVENT, self.consumed.wrapping_add(1));
        requests
    }

    /// Writes an answer. The frontend sees it after [`publish`](Self::publish).
    pub fn answer(&mut self, response: &RawResponse) {
        let at = header::LEN + (self.produced % SLOTS) as usize * size_of::<RawRequest>();
        self.ring.write(at, response);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the frontend all answers written, and rings.
    pub fn publish(&self) -> anyhow::Result<()> {
        self.ring.publish(header::RSP_PROD, self.produced);
        self.notify()
    }

    /// Only rings.
    pub fn notify(&self) -> anyhow::Result<()> {
        Ok(self.channel.notify()?)
    }
}
