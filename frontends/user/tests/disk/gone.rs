// SPDX-License-Identifier: MIT OR Apache-2.0

//! xenstore or the hypervisor goes away below a disk: nothing can follow, so the disk fails, and says why.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frontend_user::{Completion, Disk, Error, Operation, Options, Queue};
use hypervisor_client::hosted::HostedClient;
use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client, EventChannel, Grant, GrantCopy, Mapping};
use ring_proto::xen::{DomId, GrantRef, Port};
use ring_proto::xenbus::vbd::Geometry;

use crate::reconnect::until;
use crate::scripted::{Backend, DEVICE, FEATURES, World};

/// A domain whose way to xenstore can be cut, and nothing else.
struct Cuttable {
    domain: Arc<HostedClient>,
    socket: PathBuf,
    streams: Mutex<Vec<UnixStream>>,
}

impl Cuttable {
    fn new(world: &World) -> Arc<Self> {
        let socket = world.path("xenstored.sock");
        Arc::new(Self { domain: world.front.clone(), socket, streams: Mutex::default() })
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().iter() {
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }
}

impl Client for Cuttable {
    fn domid(&self) -> DomId {
        self.domain.domid()
    }

    fn grant(
        &self,
        peer: DomId,
        pages: usize,
        access: Access,
    ) -> Result<Grant, hypervisor_client::Error> {
        self.domain.grant(peer, pages, access)
    }

    fn map(
        &self,
        peer: DomId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<Mapping, hypervisor_client::Error> {
        self.domain.map(peer, refs, access)
    }

    fn copy(
        &self,
        peer: DomId,
        operations: &mut [GrantCopy<'_>],
    ) -> Result<(), hypervisor_client::Error> {
        self.domain.copy(peer, operations)
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<EventChannel, hypervisor_client::Error> {
        self.domain.alloc_unbound(peer)
    }

    fn bind_interdomain(
        &self,
        peer: DomId,
        port: Port,
    ) -> Result<EventChannel, hypervisor_client::Error> {
        self.domain.bind_interdomain(peer, port)
    }

    fn store(&self) -> Result<Store, hypervisor_client::Error> {
        let stream = UnixStream::connect(&self.socket).unwrap();
        self.streams.lock().unwrap().push(stream.try_clone().unwrap());
        Ok(Store::from_stream(stream))
    }
}

/// Waits for answers until there are none to come.
fn wait_for_the_end(mut queue: Queue) -> (Queue, Vec<Completion>, Error) {
    let mut all = Vec::new();
    loop {
        queue.wait(None);
        if let Err(error) = queue.complete(&mut |completion| all.push(completion)) {
            return (queue, all, error);
        }
    }
}

/// Operations are under way, in part at the backend, and another queue has none; both wait when `go` takes something
/// away. All fails, and everybody is told the `reason`.
fn everything_fails(
    world: &World,
    client: Arc<dyn Client>,
    options: Options,
    go: impl FnOnce(),
    reason: &str,
) {
    let mut backend = Backend::offer(world, FEATURES, Geometry::new(1 << 13));
    let options = Options { queues: 2, ring_page_order: 0, ..options };
    let mut disk = std::thread::scope(|scope| {
        scope.spawn(|| backend.connect());
        Disk::connect(client, DEVICE, options).unwrap()
    });
    let mut queues = disk.take_queues();
    let buffer = queues[0].buffer(8).unwrap();
    // More than the ring holds.
    let mut count = 0;
    while count < 40 {
        let operation = Operation::Write { sector: 8 * count, from: buffer.span() };
        queues[0].submit(operation, count).unwrap();
        count += 1;
    }
    queues[0].kick();
    backend.take(0);
    let waiting: Vec<_> = queues
        .into_iter()
        .map(|queue| std::thread::spawn(move || wait_for_the_end(queue)))
        .collect();
    std::thread::sleep(Duration::from_millis(20));
    assert!(waiting.iter().all(|thread| !thread.is_finished()) && disk.failure().is_none());
    go();
    until("both queues know", || waiting.iter().all(|thread| thread.is_finished()));
    let failure = disk.failure().unwrap().to_string();
    assert!(failure.contains(reason), "{failure}");
    for (thread, outstanding) in waiting.into_iter().zip([count, 0]) {
        let (mut queue, completions, error) = thread.join().unwrap();
        let mut tags: Vec<_> = completions.iter().map(|completion| completion.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..outstanding).collect::<Vec<_>>(), "each once");
        for Completion { result, .. } in completions {
            assert_eq!(result.unwrap_err().to_string(), failure);
        }
        assert_eq!(error.to_string(), failure);
        assert_eq!(queue.submit(Operation::Flush, 99).unwrap_err().to_string(), failure);
        assert_eq!(queue.outstanding(), 0);
    }
    let closing = std::thread::spawn(move || drop(disk));
    until("the disk is closed", || closing.is_finished());
    closing.join().unwrap();
}

#[test]
fn without_xenstore_a_disk_fails() {
    for poll in [50, 0] {
        let world = World::new();
        let client = Cuttable::new(&world);
        let options = Options { poll, ..Options::default() };
        everything_fails(&world, client.clone(), options, || client.cut(), "xenstore");
    }
}

#[test]
fn without_the_hypervisor_a_disk_fails() {
    for poll in [50, 0] {
        let world = World::new();
        let options = Options { poll, ..Options::default() };
        let stop = || world.stop_hypervisor();
        everything_fails(&world, world.front.clone(), options, stop, "is gone");
    }
}

/// While it still waits for its backend.
#[test]
fn a_disk_that_is_not_connected_yet_is_told_too() {
    for whole in [false, true] {
        let world = World::new();
        let client = Cuttable::new(&world);
        let connecting = std::thread::spawn({
            let client = client.clone();
            move || Disk::connect(client, DEVICE, Options::default()).map(drop)
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!connecting.is_finished());
        if whole {
            world.stop_hypervisor()
        } else {
            client.cut()
        };
        until("it gives up", || connecting.is_finished());
        let error = connecting.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
    }
}
