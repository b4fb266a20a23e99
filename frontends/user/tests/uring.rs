// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk with the real backend: what is written is on the image, and nothing is lost when the backend is restarted.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frontend_user::{Disk, Operation, Options, load};
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{self, Vbd, VbdConfig};
use hypervisor_client::{Client, hosted};
use hypervisor_hosted::Hosted;
use ring_proto::xen::DomId;
use uring_backend::Stop;

const VBD: Vbd = Vbd { frontend: DomId(2), backend: DomId(1), device: 51712 };

/// Bytes of the image.
const LEN: u64 = 32 << 20;

fn domain(dir: &Path, id: DomId) -> Arc<dyn Client> {
    let begin = Instant::now();
    loop {
        let options = hosted::Options { domid: Some(id), pool_pages: 8192, ..Default::default() };
        match hosted::connect(dir, options) {
            Ok(client) => return Arc::new(client),
            // A former one may not be gone yet.
            Err(error) if begin.elapsed() > Duration::from_secs(20) => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A backend on a thread.
struct Backend {
    stop: Stop,
    thread: Option<JoinHandle<Result<(), uring_backend::Error>>>,
}

impl Backend {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, Default::default())
    }

    fn start_with(dir: &Path, options: uring_backend::Options) -> Self {
        let (client, stop) = (domain(dir, VBD.backend), Stop::new().unwrap());
        let handle = stop.clone();
        let thread = std::thread::spawn(move || uring_backend::run(client, options, &handle));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

#[test]
fn a_verified_load_survives_restarts_of_the_backend() {
    let dir = tempfile::tempdir().unwrap();
    let _hosted = Hosted::start(dir.path()).unwrap();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(LEN).unwrap();
    let admin = Store::connect(dir.path().join("xenstored.sock")).unwrap();
    toolstack::create_vbd(&admin, &VbdConfig::new(VBD, image.to_str().unwrap())).unwrap();

    let mut backend = Some(Backend::start(dir.path()));
    let options = Options { queues: 2, ..Options::default() };
    let mut disk = Disk::connect(domain(dir.path(), VBD.frontend), VBD.device, options).unwrap();
    assert_eq!(disk.sectors() * 512, LEN);
    let settings = disk.settings();
    assert!(
        settings.persistent && settings.flush && settings.indirect_segments > 11,
        "{settings:?}"
    );

    let mut queues = disk.take_queues();
    let job = load::Job {
        reads: 30,
        verify: true,
        depth: 16,
        count: Some(3000),
        // Ends with the count, however slow the machine is.
        time: Duration::from_secs(100),
        ..load::Job::default()
    };
    let progress = load::Progress::default();
    let report = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut targets: Vec<_> = queues.iter_mut().map(load::QueueTarget::new).collect();
            load::run(&job, &mut targets, &progress).unwrap()
        });
        for cut in 1..=2 {
            while progress.done() < cut * 1000 && !load.is_finished() {
                std::thread::yield_now();
            }
            drop(backend.take());
            backend = Some(Backend::start(dir.path()));
        }
        load.join().unwrap()
    });
    assert_eq!(report.damaged, 0, "{report}");
    assert_eq!(report.reads + report.writes, 6000);
    assert!(disk.reconnects() >= 1);

    // What the queue wrote is in the file once it was flushed.
    let queue = &mut queues[0];
    let buffer = queue.buffer(2048).unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|at| (at / 3) as u8).collect();
    queue.copy_in(&buffer, 0, &data);
    for (tag, operation) in
        [(1, Operation::Write { sector: 8, from: buffer.span() }), (2, Operation::Flush)]
    {
        queue.submit(operation, tag).unwrap();
        while queue.outstanding() > 0 {
            queue.wait(None);
            queue.complete(&mut |completion| completion.result.unwrap()).unwrap();
        }
    }
    assert!(std::fs::read(&image).unwrap()[4096..][..data.len()] == data);
    drop(queues);
    drop(disk);
    drop(backend);
}

/// A frontend that never sends an indirect request, whether its backend takes them or not, with blocks that take
/// several direct ones.
#[test]
fn a_verified_load_in_direct_requests_only() {
    let dir = tempfile::tempdir().unwrap();
    let _hosted = Hosted::start(dir.path()).unwrap();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(LEN).unwrap();
    let admin = Store::connect(dir.path().join("xenstored.sock")).unwrap();
    toolstack::create_vbd(&admin, &VbdConfig::new(VBD, image.to_str().unwrap())).unwrap();
    for (offered, no_persistent) in [(256, false), (256, true), (0, false)] {
        let options = uring_backend::Options { segments: offered, ..Default::default() };
        let _backend = Backend::start_with(dir.path(), options);
        let options = Options { indirect_segments: 0, no_persistent, ..Options::default() };
        let client = domain(dir.path(), VBD.frontend);
        let mut disk = Disk::connect(client, VBD.device, options).unwrap();
        assert_eq!(disk.settings().indirect_segments, 0);
        let job = load::Job {
            reads: 50,
            verify: true,
            block: 128 << 10,
            depth: 8,
            count: Some(200),
            ..load::Job::default()
        };
        let mut queues = disk.take_queues();
        let mut targets: Vec<_> = queues.iter_mut().map(load::QueueTarget::new).collect();
        let report = load::run(&job, &mut targets, &load::Progress::default()).unwrap();
        assert_eq!((report.damaged, report.reads + report.writes), (0, 200), "{report}");
        assert!(report.verified > 0, "{report}");
        let [statistics] = &disk.statistics()[..] else { panic!("one queue") };
        assert!(statistics.requests >= 3 * 200, "32 pages take three requests: {statistics:?}");
    }
}
