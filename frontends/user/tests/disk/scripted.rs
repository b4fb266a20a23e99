// SPDX-License-Identifier: MIT OR Apache-2.0

//! A hosted hypervisor for a test, and a backend that does what the test says: serve a disk in memory, or misbehave.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frontend_user::{Disk, Error, Options};
use hypervisor_client::hosted::{self, HostedClient};
use hypervisor_client::store::{Device, Store};
use hypervisor_client::toolstack::{self, Vbd, VbdConfig};
use hypervisor_client::{Access, Client, EventChannel, Mapping};
use hypervisor_hosted::Hosted;
use ring_proto::blkif::{BackRing, Request, RwOp, Segment, Segments, Status, Tag, descriptors};
use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xen::DomId;
use ring_proto::xenbus::State;
use ring_proto::xenbus::vbd::{BackendFeatures, Connection, Geometry};
use ring_proto::xenstore::{Permission, Rights};

/// Domain of the backend, and of the frontend.
pub const BACK: DomId = DomId(1);
pub const FRONT: DomId = DomId(2);

/// Domain of another backend.
pub const OTHER_BACK: DomId = DomId(3);

/// Number of the device.
pub const DEVICE: u32 = 51712;

const VBD: Vbd = Vbd { frontend: FRONT, backend: BACK, device: DEVICE };

/// Nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a good backend offers.
pub const FEATURES: BackendFeatures = BackendFeatures {
    max_queues: 4,
    max_ring_page_order: 4,
    max_indirect_segments: 256,
    persistent: true,
    flush_cache: true,
    barrier: true,
};

/// A hypervisor with a disk for domain 2 in domain 1.
pub struct World {
    pub front: Arc<HostedClient>,
    dir: tempfile::TempDir,
    hosted: Mutex<Option<Hosted>>,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosted = Hosted::start(dir.path()).unwrap();
        let front = domain(dir.path(), FRONT);
        let world = Self { front: Arc::new(front), dir, hosted: Mutex::new(Some(hosted)) };
        toolstack::create_vbd(&world.admin(), &VbdConfig::new(VBD, "memory")).unwrap();
        world
    }

    /// Connects the backend's domain, anew if it was there before.
    pub fn back(&self) -> HostedClient {
        domain(self.dir.path(), BACK)
    }

    /// Gives the disk to the other backend's domain, as a toolstack does that moves it.
    pub fn move_disk(&self) {
        let admin = self.admin();
        let (front, back) = (front_dir(), Vbd { backend: OTHER_BACK, ..VBD }.backend_path());
        let open_to = |owner, peer| {
            [Permission::new(owner, Rights::None), Permission::new(peer, Rights::Read)]
        };
        toolstack::create_home(&admin, OTHER_BACK, "other").unwrap();
        let keys = admin.directory(&front).unwrap();
        let moved = admin.transaction(|tx| {
            tx.mkdir(&back)?;
            tx.set_perms(&back, &open_to(OTHER_BACK, FRONT))?;
            tx.write(&format!("{back}/online"), "1")?;
            tx.write(&format!("{back}/state"), "1")?;
            tx.set_perms(&front, &open_to(FRONT, OTHER_BACK))?;
            for key in &keys {
                tx.set_perms(&format!("{front}/{key}"), &open_to(FRONT, OTHER_BACK))?;
            }
            tx.write(&format!("{front}/backend-id"), OTHER_BACK.to_string())?;
            tx.write(&format!("{front}/backend"), &back)
        });
        moved.unwrap();
    }

    pub fn connect(&self, options: Options) -> Result<Disk, Error> {
        let front: Arc<dyn Client> = self.front.clone();
        Disk::connect(front, DEVICE, options)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes the hypervisor and xenstore away from everybody.
    pub fn stop_hypervisor(&self) {
        self.hosted.lock().unwrap().take();
    }

    /// xenstore as domain 0 has it.
    pub fn admin(&self) -> Store {
        Store::connect(self.path("xenstored.sock")).unwrap()
    }
}

fn domain(dir: &Path, id: DomId) -> HostedClient {
    let begin = Instant::now();
    loop {
        let options =
            hosted::Options { domid: Some(id), name: format!("test {id}"), pool_pages: 8192 };
        match hosted::connect(dir, options) {
            Ok(client) => return client,
            // The hypervisor may not have noticed yet that a former one is gone.
            Err(error) if begin.elapsed() > PATIENCE => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

pub fn back_dir() -> String {
    VBD.backend_path()
}

pub fn front_dir() -> String {
    VBD.frontend_path()
}

/// One queue as the backend sees it.
pub struct BackQueue {
    pub ring: BackRing<Mapping>,
    pub channel: EventChannel,
}

/// A backend that does nothing by itself.
pub struct Backend {
    client: HostedClient,
    directory: String,
    store: Store,
    features: BackendFeatures,
    pub geometry: Geometry,
    pub connection: Option<Connection>,
    pub queues: Vec<BackQueue>,
}

impl Backend {
    /// Offers the features.
    pub fn offer(world: &World, features: BackendFeatures, geometry: Geometry) -> Self {
        let mut backend = Self::new(world.back(), features, geometry);
        backend.write(|write| features.write(write).unwrap());
        backend.enter(State::InitWait);
        backend
    }

    fn new(client: HostedClient, features: BackendFeatures, geometry: Geometry) -> Self {
        let store = client.store().unwrap();
        store.watch(&front_dir(), "front").unwrap();
        let directory = Vbd { backend: client.domid(), ..VBD }.backend_path();
        let (connection, queues) = (None, Vec::new());
        Self { client, directory, store, features, geometry, connection, queues }
    }

    fn write(&self, write: impl Fn(&mut Device<'_>)) {
        let written = self.store.transaction(|tx| {
            write(&mut tx.device(&self.directory));
            Ok(())
        });
        written.unwrap();
    }

    pub fn enter(&mut self, state: State) {
        self.write(|write| state.write(write).unwrap());
    }

    /// The frontend's state.
    pub fn front_state(&self) -> State {
        State::read(&mut self.store.device(&front_dir())).unwrap()
    }

    pub fn wait_for_front(&self, state: State) {
        let begin = Instant::now();
        while self.front_state() != state {
            assert!(
                begin.elapsed() < PATIENCE,
                "the frontend is {}, not {state}",
                self.front_state()
            );
            self.store.next_event(Some(Duration::from_millis(10))).unwrap();
        }
    }

    /// Takes the frontend's rings.
    pub fn connect(&mut self) {
        self.wait_for_front(State::Initialised);
        let connection =
            Connection::read(&mut self.store.device(&front_dir()), &self.features).unwrap();
        self.queues = connection
            .queues()
            .iter()
            .map(|queue| {
                let mapping = self.client.map(FRONT, queue.refs(), Access::ReadWrite).unwrap();
                let indirect = self.features.max_indirect_segments as u16;
                let ring = BackRing::attach(mapping, connection.settings().abi, indirect).unwrap();
                let channel = self.client.bind_interdomain(FRONT, queue.port).unwrap();
                BackQueue { ring, channel }
            })
            .collect();
        self.connection = Some(connection);
        self.publish_geometry();
    }

    /// Writes the geometry, and `Connected` (again).
    pub fn publish_geometry(&mut self) {
        let geometry = self.geometry;
        self.write(|write| {
            geometry.write(write).unwrap();
            State::Connected.write(write).unwrap();
        });
    }

    /// Closes as a backend does that was told to end, and offers everything anew.
    pub fn close_and_offer_again(&mut self) {
        self.enter(State::Closing);
        self.queues.clear();
        self.wait_for_front(State::Closed);
        self.enter(State::Closed);
        self.wait_for_front(State::Initialising);
        let features = self.features;
        self.write(|write| features.write(write).unwrap());
        self.enter(State::InitWait);
    }

    /// Comes up in place of a backend that was killed.
    pub fn take_over(world: &World, features: BackendFeatures, geometry: Geometry) -> Self {
        Self::take_over_in(BACK, world, features, geometry)
    }

    /// The same in another domain, which has the disk now.
    pub fn take_over_in(
        id: DomId,
        world: &World,
        features: BackendFeatures,
        geometry: Geometry,
    ) -> Self {
        let client = domain(world.dir.path(), id);
        let mut backend = Self::new(client, features, geometry);
        backend.close_and_offer_again();
        backend
    }

    /// The next request of a queue.
    pub fn take(&mut self, queue: usize) -> Request {
        let begin = Instant::now();
        let queue = &mut self.queues[queue];
        loop {
            if let Some(request) = queue.ring.pop().unwrap() {
                return request.unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "no request");
            if !queue.ring.final_check().unwrap() {
                queue.channel.wait(Some(Duration::from_millis(10))).unwrap();
            }
        }
    }

    /// Whether a queue has no request waiting.
    pub fn is_idle(&mut self, queue: usize) -> bool {
        self.queues[queue].ring.available().unwrap() == 0
    }

    pub fn answer(&mut self, queue: usize, tag: Tag, status: Status) {
        let queue = &mut self.queues[queue];
        queue.ring.push(tag, status).unwrap();
        if queue.ring.publish() {
            queue.channel.notify().unwrap();
        }
    }

    /// The segments of a read or write.
    pub fn segments(&self, segments: &Segments) -> Vec<Segment> {
        match segments {
            Segments::Direct(array) => array.to_vec(),
            Segments::Indirect(indirect) => (0..)
                .zip(indirect.pages())
                .flat_map(|(page, gref)| {
                    let mapping = self.client.map(FRONT, &[*gref], Access::ReadOnly).unwrap();
                    let mut bytes = vec![0; indirect.in_page(page) * 8];
                    mapping.copy_out(0, &mut bytes);
                    descriptors(&bytes).collect::<Result<Vec<_>, _>>().unwrap()
                })
                .collect(),
        }
    }

    /// Does a request to a disk in memory.
    pub fn perform(&self, request: &Request, disk: &mut [u8]) -> Status {
        let Request::Rw(rw) = request else { return Status::Okay };
        let segments = self.segments(&rw.segments);
        let grefs: Vec<_> = segments.iter().map(Segment::gref).collect();
        let pages = self.client.map(FRONT, &grefs, Access::ReadWrite).unwrap();
        let mut at = rw.sector as usize * 512;
        for (page, segment) in segments.iter().enumerate() {
            let Some(range) = disk.get_mut(at..at + segment.byte_len()) else {
                return Status::Error;
            };
            let offset = page * PAGE_SIZE + segment.offset();
            match rw.op {
                RwOp::Read => pages.copy_in(offset, range),
                _ => pages.copy_out(offset, range),
            }
            at += segment.byte_len();
        }
        Status::Okay
    }

    /// Serves what there is; whether there was anything.
    pub fn serve(&mut self, disk: &mut [u8]) -> bool {
        let mut any = false;
        for queue in 0..self.queues.len() {
            while let Some(request) = self.queues[queue].ring.pop().unwrap() {
                let request = request.unwrap();
                let status = self.perform(&request, disk);
                self.queues[queue].ring.push(request.tag(), status).unwrap();
                any = true;
            }
            let queue = &mut self.queues[queue];
            if queue.ring.publish() {
                queue.channel.notify().unwrap();
            }
        }
        any
    }
}

/// A backend that serves a disk in memory on a thread.
pub struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Backend>>,
}

impl Serving {
    /// Connects and serves. The frontend need not be there yet.
    pub fn start(mut backend: Backend, disk: Arc<Mutex<Vec<u8>>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                if backend.queues.is_empty() {
                    backend.connect();
                }
                while !stop.load(Ordering::Relaxed) {
                    if !backend.serve(&mut disk.lock().unwrap()) {
                        let last = backend
                            .queues
                            .iter_mut()
                            .any(|queue| queue.ring.final_check().unwrap());
                        if !last && backend.queues.len() == 1 {
                            backend.queues[0].channel.wait(Some(Duration::from_millis(5))).unwrap();
                        } else {
                            std::thread::yield_now();
                        }
                    }
                }
                backend
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops serving between two requests, without a word to the frontend.
    pub fn stop(mut self) -> Backend {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
