// SPDX-License-Identifier: MIT OR Apache-2.0

//! A frontend that does the handshake as it should, and leaves the ring to whoever has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client, EventChannel, Grant};
use ring_proto::blkif::{Abi, RawRequest, RawRequest32, RawResponse, RawResponse32, RawSegment};
use ring_proto::ring::header;
use ring_proto::shared::{SharedMemory, Wire};
use ring_proto::xen::{DomId, GrantRef};
use ring_proto::xenbus::vbd::{BackendFeatures, Connection, FrontendSettings, Geometry, Queue};
use ring_proto::xenbus::{End, Frontend, FrontendWork, State};

use crate::back::legal;
use crate::peer::{LOOK, PATIENCE, Peer};
use crate::rules::{Must, Rules};

/// Slots of a ring of one page.
pub const SLOTS: u32 = 32;

/// Pages for data.
const DATA_PAGES: usize = 16;

/// A frontend.
pub struct Front {
    client: Arc<dyn Client>,
    store: Store,
    backend: DomId,
    /// Its directory.
    pub path: String,
    /// The backend.
    peer: Peer,
    handshake: Frontend,
    /// How wide its words are, from the next connection on.
    pub abi: Abi,
    /// What it shares, while it is connected.
    pub shared: Option<Shared>,
}

/// What a connection shares.
pub struct Shared {
    ring: Grant,
    /// Pages of data.
    pub data: Option<Grant>,
    channel: EventChannel,
    /// Requests written.
    pub produced: u32,
    /// The disk.
    pub geometry: Geometry,
    /// What the backend offers.
    pub offered: BackendFeatures,
    /// Requests whose answers are judged, and how.
    asked: Vec<(RawRequest, Must)>,
}

impl Front {
    /// The frontend of the disk `device` of this domain.
    pub fn new(client: Arc<dyn Client>, device: u32) -> anyhow::Result<Self> {
        let store = client.store()?;
        let path = format!("/local/domain/{}/device/vbd/{device}", client.domid());
        let peer = Peer { end: End::Backend, path: store.read_str(&format!("{path}/backend"))? };
        let backend = store.read_str(&format!("{path}/backend-id"))?.parse().map(DomId)?;
        let state = State::read(&mut store.device(&path))?;
        let handshake = Frontend::found(state);
        let abi = Abi::NATIVE;
        Ok(Self { client, store, backend, path, peer, handshake, abi, shared: None })
    }

    /// Connects by the rules, from whatever state.
    pub fn connect(&mut self) -> anyhow::Result<&mut Shared> {
        self.handshake = Frontend::found(self.own_state()?);
        if self.handshake.state() != State::Initialising {
            self.settle(State::Closed).context("closing")?;
        }
        self.settle(State::Connected).context("connecting")?;
        self.shared.as_mut().context("not connected")
    }

    /// Takes its part of the handshake until it is in the state `wanted`.
    fn settle(&mut self, wanted: State) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.handshake.state() != wanted {
            let back = self.peer.state(&self.store)?;
            let own = self.handshake.state();
            ensure!(Instant::now() < end, "this end stays {own}, the backend is {back}");
            let step = self.handshake.next(back, wanted != State::Closed)?;
            match step.work {
                FrontendWork::Publish => self.publish()?,
                FrontendWork::Connect => {
                    let directory = &mut self.store.device(&self.peer.path);
                    if let Some(shared) = &mut self.shared {
                        shared.geometry = Geometry::read(directory)?;
                        shared.offered = BackendFeatures::read(directory)?;
                    }
                }
                FrontendWork::Release => self.shared = None,
                _ => {}
            }
            if step.to == own {
                std::thread::sleep(LOOK);
                continue;
            }
            self.handshake.enter(step.to)?;
            self.write_state(step.to)?;
        }
        Ok(())
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let offered = BackendFeatures::read(&mut self.store.device(&self.peer.path))?;
        let wanted =
            FrontendSettings { queues: 1, ring_page_order: 0, persistent: true, abi: self.abi };
        let settings = FrontendSettings::negotiate(&wanted, &offered);
        let shared = Shared {
            ring: self.client.grant(self.backend, 1, Access::ReadWrite)?,
            data: Some(self.client.grant(self.backend, DATA_PAGES, Access::ReadWrite)?),
            channel: self.client.alloc_unbound(self.backend)?,
            produced: 0,
            geometry: Geometry::new(0),
            offered,
            asked: Vec::new(),
        };
        shared.ring.store(header::RSP_EVENT, 1);
        let queue = Queue::new(shared.ring.refs(), shared.channel.port()).context("one page")?;
        Connection::new(settings, &[queue])?.write(&mut self.store.device(&self.path))?;
        self.shared = Some(shared);
        Ok(())
    }

    /// Publishes a ring, and what `twist` makes of the keys, then says that it is ready. What comes of it, comes.
    pub fn publish_twisted(
        &mut self,
        twist: impl FnOnce(&Store, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.handshake = Frontend::found(self.own_state()?);
        if self.handshake.state() != State::Initialising {
            self.settle(State::Closed)?;
            self.write_state(State::Initialising)?;
        }
        self.await_peer(|state| state == State::InitWait)?;
        self.publish()?;
        twist(&self.store, &self.path)?;
        self.write_state(State::Initialised)
    }

    /// Begins anew without a look at the backend, with other rings.
    pub fn publish_anew(&mut self) -> anyhow::Result<()> {
        self.write_state(State::Closed)?;
        self.write_state(State::Initialising)?;
        self.publish()?;
        self.write_state(State::Initialised)
    }

    /// Writes a state, whether it may or not.
    pub fn write_state(&mut self, state: State) -> anyhow::Result<()> {
        Ok(state.write(&mut self.store.device(&self.path))?)
    }

    fn own_state(&self) -> anyhow::Result<State> {
        Ok(State::read(&mut self.store.device(&self.path))?)
    }

    /// Waits until the backend's state satisfies a condition.
    pub fn await_peer(&self, right: impl FnMut(State) -> bool) -> anyhow::Result<State> {
        self.peer.wait(&self.store, right)
    }

    /// Waits until all requests are answered or the backend ended the connection. Returns what came of it. An answer that
    /// is not right is an error.
    pub fn outcome(&self) -> anyhow::Result<Outcome> {
        let Some(shared) = &self.shared else { return Ok(Outcome::Closed) };
        let end = Instant::now() + PATIENCE;
        loop {
            if shared.answered() == shared.produced {
                shared.judge()?;
                return Ok(Outcome::Answered);
            }
            if self.peer.state(&self.store)? != State::Connected {
                return Ok(Outcome::Closed);
            }
            if Instant::now() > end {
                return Ok(Outcome::Silent { unanswered: shared.produced - shared.answered() });
            }
            shared.channel.wait(Some(Duration::from_millis(20)))?;
        }
    }

    /// The same of a ring that is in order, whatever the requests in it are: a backend answers each, and goes on.
    pub fn answers(&self) -> anyhow::Result<Outcome> {
        let outcome = self.outcome()?;
        ensure!(outcome != Outcome::Closed, "the backend has ended the connection");
        Ok(outcome)
    }
}

/// How a backend took an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request has an answer.
    Answered,
    /// It ended the connection.
    Closed,
    /// Neither.
    Silent {
        /// How many answers are missing.
        unanswered: u32,
    },
}

impl Shared {
    /// Writes a request, whose answer is judged when all are answered. No more of them than there are slots.
    pub fn ask(&mut self, request: &RawRequest) {
        let granted = self.data.as_ref().map(Grant::refs).unwrap_or_default();
        let rules = Rules { geometry: &self.geometry, offered: &self.offered, granted };
        self.asked.push((*request, rules.must(request)));
        self.put(request);
    }

    /// Whether each request that was asked has one answer, and a right one.
    fn judge(&self) -> anyhow::Result<()> {
        let answers =
            (self.produced.saturating_sub(SLOTS)..self.produced).map(|at| self.answer(at));
        let answers: Vec<_> = answers.collect();
        for (request, must) in &self.asked {
            let mut found = answers.iter().filter(|answer| answer.id == request.id);
            let (Some(answer), None) = (found.next(), found.next()) else {
                bail!("not one answer to {request:?}");
            };
            ensure!(
                answer.operation == legal(request).operation && must.allows(answer.status),
                "{request:?}, which must be answered by {must:?}, has {answer:?}"
            );
        }
        Ok(())
    }

    /// Writes a slot at the producer's place, and moves that on. The backend sees it after [`ring`](Self::ring).
    pub fn put<T: Wire>(&mut self, slot: &T) {
        let at = header::LEN + (self.produced % SLOTS) as usize * size_of::<RawRequest>();
        self.ring.write(at, slot);
        self.produced = self.produced.wrapping_add(1);
    }

    /// The same in the ring of a frontend of 32 bits.
    pub fn put_narrow(&mut self, slot: &RawRequest) {
        let at = header::LEN + (self.produced % SLOTS) as usize * size_of::<RawRequest32>();
        self.ring.write(at, &RawRequest32::from(*slot));
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the backend all slots written, and rings.
    pub fn ring(&self) -> anyhow::Result<()> {
        self.claim(self.produced);
        self.notify()
    }

    /// Says that requests were written up to this index.
    pub fn claim(&self, producer: u32) {
        self.ring.store(header::RSP_EVENT, self.answered().wrapping_add(1));
        self.ring.publish(header::REQ_PROD, producer);
    }

    /// Only rings.
    pub fn notify(&self) -> anyhow::Result<()> {
        Ok(self.channel.notify()?)
    }

    /// How many answers there are.
    pub fn answered(&self) -> u32 {
        self.ring.load_acquire(header::RSP_PROD)
    }

    /// The answer of this index.
    pub fn answer(&self, index: u32) -> RawResponse {
        let at = header::LEN + (index % SLOTS) as usize * size_of::<RawRequest>();
        self.ring.read(at)
    }

    /// The same in the ring of a frontend of 32 bits.
    pub fn answer_narrow(&self, index: u32) -> RawResponse {
        let at = header::LEN + (index % SLOTS) as usize * size_of::<RawRequest32>();
        self.ring.read::<RawResponse32>(at).into()
    }

    /// A reference of a page of data; one that is not granted when the pages are gone.
    pub fn gref(&self, page: usize) -> u32 {
        let refs = self.data.as_ref().map(Grant::refs).unwrap_or_default();
        refs.get(page % DATA_PAGES).map_or(u32::MAX, |gref| gref.0)
    }

    /// Whether this is a reference of the ring.
    pub fn is_ring(&self, gref: u32) -> bool {
        self.ring.refs().contains(&GrantRef(gref))
    }

    /// A legal segment of a whole page.
    pub fn segment(&self, page: usize) -> RawSegment {
        RawSegment { gref: self.gref(page), first_sect: 0, last_sect: 7, pad: [0; 2] }
    }
}
