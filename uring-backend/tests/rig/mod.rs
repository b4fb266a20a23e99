// SPDX-License-Identifier: MIT OR Apache-2.0

//! A hypervisor, a backend and a small frontend in one process.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor_client::hosted::{self, HostedClient};
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{Vbd, VbdConfig, create_vbd};
use hypervisor_client::{Access, Client, EventChannel, Grant};
use hypervisor_hosted::Hosted;
use ring_proto::blkif::{
    Abi, FrontRing, Indirect, RawSegment, Request, Response, Rw, RwOp, Segment, SegmentArray,
    Segments, Status,
};
use ring_proto::shared::{SharedMemory, bytes_of};
use ring_proto::xen::{DomId, Errno, GrantRef};
use ring_proto::xenbus::vbd::{BackendFeatures, Connection, FrontendSettings, Geometry, Queue};
use ring_proto::xenbus::{self, FrontendWork, Key, State};
use tempfile::TempDir;
use uring_backend::{Error, Options, Stop};

/// Longest time that anything may take here. Nothing depends on its length but how long a failing test hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const BACK: DomId = DomId(1);
pub const FRONT: DomId = DomId(2);
pub const VBD: Vbd = Vbd { frontend: FRONT, backend: BACK, device: 51712 };

/// A running hypervisor with its store, and the backend's domain.
pub struct Rig {
    pub toolstack: Store,
    pub client: Option<Arc<HostedClient>>,
    pub dir: TempDir,
    pub hosted: Option<Hosted>,
}

/// A backend on a thread.
pub struct Backend {
    pub stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Backend {
    /// Waits for it to end by itself.
    pub fn ended(mut self) -> Result<(), Error> {
        self.thread.take().expect("it runs").join().expect("the backend panicked")
    }

    /// Ends it as SIGTERM does.
    pub fn end(mut self) -> Result<(), Error> {
        self.stop.stop();
        self.thread.take().expect("it runs").join().expect("the backend panicked")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Rig {
    pub fn new() -> Self {
        // The first test of the process sets it up for all.
        let _ = env_logger::builder().is_test(true).try_init();
        let mut rig = Self::without_backend();
        rig.client = Some(Arc::new(join(rig.dir.path(), BACK)));
        rig
    }

    /// Leaves the backend's domain to another process.
    pub fn without_backend() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosted = Hosted::start(dir.path()).unwrap();
        let toolstack = open_store(dir.path());
        Self { toolstack, client: None, dir, hosted: Some(hosted) }
    }

    /// A file of `bytes`, full of a pattern.
    pub fn image(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, pattern(0, bytes)).unwrap();
        path
    }

    pub fn start(&self, options: Options) -> Backend {
        let stop = Stop::new().unwrap();
        let client: Arc<dyn Client> =
            self.client.clone().expect("the rig has the backend's domain");
        let handle = stop.clone();
        let thread = std::thread::spawn(move || uring_backend::run(client, options, &handle));
        Backend { stop, thread: Some(thread) }
    }

    /// Plugs a disk in, with more keys for the backend.
    pub fn plug(&self, image: &Path, more: &[(Key, &str)]) {
        self.plug_as(VBD, image, more);
    }

    /// Another connection of the toolstack, for another thread.
    pub fn toolstack_again(&self) -> Store {
        open_store(self.dir.path())
    }

    pub fn plug_read_only(&self, image: &Path) {
        let mut config = VbdConfig::new(VBD, image.to_str().unwrap());
        config.read_only = true;
        create_vbd(&self.toolstack, &config).unwrap();
    }

    /// A CD in its drive.
    pub fn plug_cdrom(&self, image: &Path) {
        let mut config = VbdConfig::new(VBD, image.to_str().unwrap());
        config.cdrom = true;
        create_vbd(&self.toolstack, &config).unwrap();
    }

    pub fn plug_as(&self, vbd: Vbd, image: &Path, more: &[(Key, &str)]) {
        let mut config = VbdConfig::new(vbd, image.to_str().unwrap());
        config.backend_keys = more.iter().map(|(key, value)| (*key, value.to_string())).collect();
        create_vbd(&self.toolstack, &config).unwrap();
    }

    /// Sets a key of the backend's directory.
    pub fn write_back_key(&self, key: &str, value: &str) {
        self.toolstack.write(&format!("{}/{key}", VBD.backend_path()), value).unwrap();
    }

    /// Waits until a node has a value that satisfies a condition, and returns it.
    pub fn await_node(&self, path: &str, mut right: impl FnMut(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.toolstack.try_read(path).unwrap().unwrap_or_default();
            let value = String::from_utf8(value).unwrap();
            if right(&value) {
                return value;
            }
            assert!(Instant::now() < end, "{path} stays {value:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the backend says that something is wrong with the disk, and returns what.
    pub fn await_error(&self) -> String {
        let path = VBD.backend_path().replace("/backend/", "/error/backend/") + "/error";
        self.await_node(&path, |value| !value.is_empty())
    }

    pub fn await_back_state(&self, state: State) {
        let wanted = state.raw().to_string();
        self.await_node(&format!("{}/state", VBD.backend_path()), |value| value == wanted);
    }
}

fn open_store(dir: &Path) -> Store {
    let socket = dir.join("xenstored.sock");
    Store::connect(&socket).unwrap()
}

pub fn join(dir: &Path, domid: DomId) -> HostedClient {
    let options = hosted::Options { domid: Some(domid), name: "test".into(), pool_pages: 8192 };
    let end = Instant::now() + PATIENCE;
    loop {
        match hosted::connect(dir, options.clone()) {
            // The domain that had this id is dying until nobody maps its pages.
            Err(hypervisor_client::Error::Refused { errno: Errno::EEXIST, .. })
                if Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            joined => return joined.unwrap(),
        }
    }
}

/// Bytes that tell where they are from.
pub fn pattern(offset: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 64);
    for block in offset / 64..(offset + len).div_ceil(64) {
        let word = (block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        bytes.extend_from_slice(&word.repeat(8));
    }
    bytes.drain(..offset % 64);
    bytes.truncate(len);
    bytes
}

/// How a frontend connects.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub queues: u32,
    pub order: u32,
    pub persistent: bool,
    pub abi: Abi,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { queues: 1, order: 0, persistent: true, abi: Abi::NATIVE }
    }
}

/// A frontend, connected or not.
pub struct Frontend {
    pub queues: Vec<FrontQueue>,
    pub features: BackendFeatures,
    pub geometry: Geometry,
    handshake: xenbus::Frontend,
    store: Store,
    client: Arc<HostedClient>,
    wanted: Wanted,
    vbd: Vbd,
    crashed: bool,
}

impl Frontend {
    /// Connects to the disk of `rig`, as a domain that joins for it.
    pub fn connect(rig: &Rig, wanted: Wanted) -> Self {
        let client = Arc::new(join(rig.dir.path(), FRONT));
        let mut frontend = Self::new(client, VBD, wanted);
        // What a former life left has to be closed first.
        frontend.settle_away_from(State::Connected);
        frontend.settle(State::Connected, true);
        frontend
    }

    /// A frontend that has not begun.
    pub fn new(client: Arc<HostedClient>, vbd: Vbd, wanted: Wanted) -> Self {
        let store = client.store().unwrap();
        let state = State::read(&mut store.device(&vbd.frontend_path())).unwrap();
        Self {
            queues: Vec::new(),
            features: BackendFeatures::default(),
            geometry: Geometry::new(0),
            handshake: xenbus::Frontend::found(state),
            store,
            client,
            wanted,
            vbd,
            crashed: false,
        }
    }

    /// Takes its part of the handshake until it is in the state `wanted`.
    pub fn settle(&mut self, wanted: State, keep: bool) {
        let end = Instant::now() + PATIENCE;
        while self.handshake.state() != wanted {
            assert!(Instant::now() < end, "the frontend stays {}", self.handshake.state());
            self.step(keep);
        }
    }

    /// Does the next step of the handshake, or waits a little.
    fn step(&mut self, keep: bool) {
        let path = self.vbd.backend_path();
        let mut back = self.store.device(&path);
        let state = State::read(&mut back).unwrap();
        let step = self.handshake.next(state, keep).unwrap();
        match step.work {
            FrontendWork::Publish => self.publish(),
            FrontendWork::Connect => {
                self.features = BackendFeatures::read(&mut back).unwrap();
                self.geometry = Geometry::read(&mut back).unwrap();
            }
            FrontendWork::Release => self.queues.clear(),
            _ => {}
        }
        if step.to == self.handshake.state() {
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        self.handshake.enter(step.to).unwrap();
        step.to.write(&mut self.store.device(&self.vbd.frontend_path())).unwrap();
    }

    /// Takes its part of the handshake until it is in another state than `from`.
    pub fn settle_away_from(&mut self, from: State) {
        let end = Instant::now() + PATIENCE;
        while self.handshake.state() == from {
            assert!(Instant::now() < end, "the frontend stays {from}");
            self.step(true);
        }
    }

    fn publish(&mut self) {
        let offered =
            BackendFeatures::read(&mut self.store.device(&self.vbd.backend_path())).unwrap();
        let wanted = FrontendSettings {
            queues: self.wanted.queues,
            ring_page_order: self.wanted.order,
            persistent: self.wanted.persistent,
            abi: self.wanted.abi,
        };
        let settings = FrontendSettings::negotiate(&wanted, &offered);
        let pages = 1 << settings.ring_page_order;
        self.queues = (0..settings.queues)
            .map(|_| FrontQueue::new(&*self.client, pages, settings.abi))
            .collect();
        let queues: Vec<_> = self
            .queues
            .iter()
            .map(|queue| Queue::new(queue.ring.memory().refs(), queue.channel.port()).unwrap())
            .collect();
        let connection = Connection::new(settings, &queues).unwrap();
        connection.write(&mut self.store.device(&self.vbd.frontend_path())).unwrap();
    }

    /// Sets a key of its own directory.
    pub fn write_key(&self, key: &str, value: &str) {
        self.store.write(&format!("{}/{key}", self.vbd.frontend_path()), value).unwrap();
    }

    /// Ends as a program does that is killed: its domain is gone, and its state stays behind.
    pub fn crash(mut self) {
        self.crashed = true;
    }

    pub fn state(&self) -> State {
        self.handshake.state()
    }
}

impl Drop for Frontend {
    /// Says that it is closed, so that nobody waits for it.
    fn drop(&mut self) {
        if self.state() != State::Closed && !self.crashed {
            let _ = State::Closed.write(&mut self.store.device(&self.vbd.frontend_path()));
        }
    }
}

/// Pages of data that a queue of the test can use at a time.
pub const DATA_PAGES: usize = 512;

pub struct FrontQueue {
    pub ring: FrontRing<Grant>,
    pub channel: EventChannel,
    pub data: Grant,
    /// Doorbells rung for requests.
    pub rung: u64,
    descriptors: Grant,
    next_id: u64,
}

impl FrontQueue {
    fn new(client: &dyn Client, ring_pages: usize, abi: Abi) -> Self {
        let grant = |pages| client.grant(BACK, pages, Access::ReadWrite).unwrap();
        Self {
            ring: FrontRing::new(grant(ring_pages), abi).unwrap(),
            channel: client.alloc_unbound(BACK).unwrap(),
            data: grant(DATA_PAGES),
            rung: 0,
            descriptors: grant(1),
            next_id: 1,
        }
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Segments for `sectors` from byte 0 of data page `page` on.
    pub fn segments(&self, page: usize, sectors: usize) -> Vec<Segment> {
        let refs = self.data.refs();
        (0..sectors.div_ceil(8))
            .map(|at| {
                let last = (sectors - at * 8).min(8) - 1;
                Segment::new(refs[page + at], 0, last as u8).unwrap()
            })
            .collect()
    }

    /// A request of these segments, indirect when they are too many for a slot.
    pub fn rw(&mut self, op: RwOp, sector: u64, segments: &[Segment]) -> Request {
        let segments = match SegmentArray::new(segments) {
            Some(array) => Segments::Direct(array),
            None => {
                for (at, segment) in segments.iter().enumerate() {
                    let raw = RawSegment::from(*segment);
                    self.descriptors.copy_in(at * 8, bytes_of(&raw));
                }
                let refs: Vec<GrantRef> = self.descriptors.refs().to_vec();
                Segments::Indirect(Indirect::new(segments.len() as u16, &refs).unwrap())
            }
        };
        Request::Rw(Rw { id: self.id(), op, handle: 0, sector, segments })
    }

    /// What a data page holds.
    pub fn page(&self, page: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        self.data.copy_out(page * 4096, &mut bytes);
        bytes
    }

    pub fn fill_page(&self, page: usize, byte: u8) {
        self.data.copy_in(page * 4096, &[byte; 4096]);
    }

    /// Shows the backend what was pushed.
    pub fn publish(&mut self) {
        if self.ring.publish() {
            self.rung += 1;
            self.channel.notify().unwrap();
        }
    }

    /// The next answer.
    pub fn answer(&mut self) -> Response {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(response) = self.ring.pop().unwrap() {
                return response.unwrap();
            }
            assert!(Instant::now() < end, "no answer");
            if !self.ring.final_check().unwrap() {
                self.channel.wait(Some(Duration::from_millis(100))).unwrap();
            }
        }
    }

    /// Waits for an answer to whatever was asked, legal or not.
    pub fn any_answer(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.ring.pop().unwrap().is_none() {
            assert!(Instant::now() < end, "no answer");
            if !self.ring.final_check().unwrap() {
                self.channel.wait(Some(Duration::from_millis(100))).unwrap();
            }
        }
    }

    /// The id given last.
    pub fn last_id(&self) -> u64 {
        self.next_id
    }

    /// Sends one request and waits for its answer.
    pub fn call(&mut self, request: &Request) -> Status {
        self.ring.push(request).unwrap();
        self.publish();
        let response = self.answer();
        assert_eq!(response.id, request.tag().id);
        response.status
    }

    /// Reads sectors through data pages from 0 on.
    pub fn read(&mut self, sector: u64, sectors: usize) -> Result<Vec<u8>, Status> {
        self.data.copy_in(0, &vec![0xee; sectors * 512]);
        let segments = self.segments(0, sectors);
        let request = self.rw(RwOp::Read, sector, &segments);
        match self.call(&request) {
            Status::Okay => {
                let mut bytes = vec![0; sectors * 512];
                self.data.copy_out(0, &mut bytes);
                Ok(bytes)
            }
            status => Err(status),
        }
    }

    /// Writes sectors through data pages from 0 on.
    pub fn write(&mut self, op: RwOp, sector: u64, bytes: &[u8]) -> Status {
        self.data.copy_in(0, bytes);
        let segments = self.segments(0, bytes.len() / 512);
        let request = self.rw(op, sector, &segments);
        self.call(&request)
    }
}
