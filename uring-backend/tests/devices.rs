// SPDX-License-Identifier: MIT OR Apache-2.0

//! Block devices, and file systems that want more than 512 bytes at a time. Loop devices stand in for disks, which takes
//! root: elsewhere each test says that it did not run.

mod rig;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor_client::toolstack::{Vbd, forget_vbd};
use rig::{FRONT, Frontend, PATIENCE, Rig, VBD, Wanted, join, pattern};
use ring_proto::blkif::{Discard, Request, RwOp, Status};
use ring_proto::xenbus::State;
use uring_backend::{Format, Options, fetch_stats};

const MIB: usize = 1 << 20;

fn run(command: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(command).args(arguments).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device over a file, until dropped.
struct Loop(PathBuf);

impl Loop {
    /// `None`, said aloud, where there are none to be had.
    fn over(file: &Path, sector: &str) -> Option<Self> {
        let file = file.to_str()?;
        match run("losetup", &["--find", "--show", "--sector-size", sector, file]) {
            Ok(device) => Some(Self(device.into())),
            Err(error) => {
                eprintln!("no loop device, so this is not tested: {error}");
                None
            }
        }
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &["--detach", self.path()]) {
            eprintln!("{error}");
        }
    }
}

/// A mounted file system, until dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the kernel may take a moment to close the last file.
        if let Err(error) = run("umount", &["--lazy", self.0.to_str().unwrap()]) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn a_block_device_of_4096_byte_sectors_is_recognised_and_discards() {
    let rig = Rig::new();
    let Some(device) = Loop::over(&rig.image("backing", 4 * MIB), "4096") else { return };
    {
        let _backend = rig.start(Options::default());
        rig.plug(&device.0, &[]);
        let mut front = Frontend::connect(&rig, Wanted::default());
        assert_eq!((front.geometry.sector_size, front.geometry.sectors), (4096, 8192));
        let direct =
            rig.await_node(&format!("{}/direct-io", VBD.backend_path()), |value| !value.is_empty());
        assert_eq!(direct, "1");
        let queue = &mut front.queues[0];
        assert_eq!(queue.read(16, 16).unwrap(), pattern(8192, 8192));
        assert_eq!(queue.write(RwOp::Write, 0, &[5; 4096]), Status::Okay);
        assert_eq!(queue.read(0, 8).unwrap(), [5; 4096]);
        assert_eq!(queue.read(0, 4), Err(Status::Error));
        if front.geometry.discard.is_some() {
            let queue = &mut front.queues[0];
            let id = queue.id();
            let discard = Discard { id, handle: 0, sector: 2048, count: 2048, secure: false };
            assert_eq!(queue.call(&Request::Discard(discard)), Status::Okay);
            assert_eq!(queue.read(2048, 8).unwrap(), [0; 4096]);
            assert_eq!(queue.read(4096, 8).unwrap(), pattern(4096 * 512, 4096));
        }
    }
}

/// A device that fails some of what it is asked, because its backing file is shorter than itself now.
#[test]
fn a_device_that_fails_some_requests_serves_the_others() {
    let rig = Rig::new();
    let backing = rig.image("backing", 4 * MIB);
    let device = Loop::over(&backing, "512");
    if device.is_none() {
        eprintln!("EIO of a device is left out: the end of a file stands in for it");
    }
    let image = device.as_ref().map_or(&backing, |device| &device.0);
    let socket = rig.dir.path().join("stats");
    let stats = Some(socket.clone());
    let _backend = rig.start(Options { check: 0, stats, ..Options::default() });
    rig.plug(image, &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = &mut front.queues[0];
    let acknowledged = [0x5a; 32768];
    assert_eq!(queue.write(RwOp::Write, 1024, &acknowledged), Status::Okay);
    let id = queue.id();
    assert_eq!(queue.call(&Request::Flush { id, barrier: false }), Status::Okay);

    File::options().write(true).open(&backing).unwrap().set_len(2 * MIB as u64).unwrap();
    // Good ones and bad ones in turn, all under way together.
    let mut asked = HashMap::new();
    for at in 0..24usize {
        let sector = if at % 2 == 0 { 1024 + at / 2 * 4 } else { 4096 + at * 64 };
        let segments = queue.segments(at, 4);
        let request = queue.rw(RwOp::Read, sector as u64, &segments);
        asked.insert(request.tag().id, at);
        queue.ring.push(&request).unwrap();
    }
    queue.publish();
    for _ in 0..24 {
        let response = queue.answer();
        let at = asked[&response.id];
        let expected = if at % 2 == 0 { Status::Okay } else { Status::Error };
        assert_eq!(response.status, expected, "request {at}");
        if at % 2 == 0 {
            assert_eq!(queue.page(at)[..2048], [0x5a; 2048], "request {at}");
        }
    }
    let count = |name: &str| {
        let json = fetch_stats(&socket, Format::Json).unwrap();
        let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
        disks[0]["queues"][0][name].as_u64().unwrap()
    };
    assert_eq!((count("io_errors"), count("refused"), count("reads")), (12, 0, 24));
    assert_eq!(count("read_sectors"), 12 * 4, "only what was read");

    // The disk goes on, also with what failed once it can be had again.
    assert_eq!(queue.write(RwOp::Write, 2048, &[1; 4096]), Status::Okay);
    assert_eq!(queue.read(1024, 64).unwrap(), acknowledged);
    File::options().write(true).open(&backing).unwrap().set_len(4 * MIB as u64).unwrap();
    assert_eq!(queue.read(4096 + 64, 8).unwrap(), [0; 4096]);
    assert_eq!(count("io_errors"), 12);
}

/// A device whose backing file has no room for more: a write that fails takes nothing with it.
#[test]
fn a_device_that_fails_writes_keeps_what_it_acknowledged() {
    let rig = Rig::new();
    let small = rig.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small.to_str().unwrap()];
    if let Err(error) = run("mount", &mount) {
        return eprintln!("no file system of its own, so this is not tested: {error}");
    }
    let mounted = Mounted(small);
    let backing = mounted.0.join("backing");
    File::create(&backing).unwrap().set_len(4 * MIB as u64).unwrap();
    if let Some(device) = Loop::over(&backing, "512") {
        let socket = rig.dir.path().join("stats");
        let stats = Some(socket.clone());
        let _backend = rig.start(Options { stats, ..Options::default() });
        rig.plug(&device.0, &[]);
        let mut front = Frontend::connect(&rig, Wanted::default());
        let queue = &mut front.queues[0];
        let content = |sector: u64| pattern(sector as usize * 512, 32768);
        let (acknowledged, failed): (Vec<u64>, Vec<u64>) =
            (0..8192).step_by(64).partition(|&sector| {
                queue.write(RwOp::Write, sector, &content(sector)) == Status::Okay
            });
        assert!(acknowledged.len() > 10 && failed.len() > 90, "{} failed", failed.len());
        for sector in acknowledged {
            assert!(queue.read(sector, 64).unwrap() == content(sector), "sector {sector}");
        }
        let json = fetch_stats(&socket, Format::Json).unwrap();
        let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(disks[0]["queues"][0]["io_errors"], failed.len(), "{json}");
    }
}

/// A discard that io_uring refuses is tried by the ioctl, on a thread of its own, and so are those after it.
#[test]
fn discards_that_io_uring_refuses_go_to_the_helper() {
    let rig = Rig::new();
    let backing = rig.image("backing", 4 * MIB);
    let Some(device) = Loop::over(&backing, "512") else { return };
    let helpers = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names = threads.map(|thread| {
            let comm = thread.unwrap().path().join("comm");
            // A thread may have ended since.
            std::fs::read_to_string(comm).unwrap_or_default()
        });
        names.filter(|name| name == "discard\n").count()
    };
    let _backend = rig.start(Options { check: 0, ..Options::default() });
    rig.plug(&device.0, &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let offered = front.geometry.discard.expect("a loop device over a file discards");
    let queue = &mut front.queues[0];
    let mut discard = |sector, count, secure| {
        let id = queue.id();
        queue.call(&Request::Discard(Discard { id, handle: 0, sector, count, secure }))
    };
    assert!(!offered.secure, "a loop device cannot");
    assert_eq!(discard(0, 8, true), Status::NotSupported, "what is not offered");

    // Beyond the end that the backend does not know of, the kernel refuses.
    File::options().write(true).open(&backing).unwrap().set_len(2 * MIB as u64).unwrap();
    run("losetup", &["--set-capacity", device.path()]).unwrap();
    assert_eq!(discard(6000, 8, false), Status::Error);
    assert_eq!(helpers(), 1);
    assert_eq!(discard(2048, 1024, false), Status::Okay);
    assert_eq!(discard(0, 0, false), Status::Okay);
    let queue = &mut front.queues[0];
    assert_eq!(queue.read(2048, 1024).unwrap(), vec![0; 512 * 1024]);
    assert_eq!(queue.read(0, 2048).unwrap(), pattern(0, MIB), "what lies before it");
    assert_eq!(queue.read(3072, 8).unwrap(), pattern(3072 * 512, 4096), "what lies behind it");
    front.settle(State::Closed, false);
    rig.await_back_state(State::Closed);
    assert_eq!(helpers(), 0);
}

/// Requests of 512 bytes to a file system that does direct I/O in units of 4096 go through the page cache, and both
/// ways see the same data.
#[test]
fn what_is_not_aligned_for_direct_io_is_served_and_coherent() {
    let rig = Rig::new();
    let Some(device) = Loop::over(&rig.image("backing", 32 * MIB), "4096") else { return };
    run("mke2fs", &["-q", "-t", "ext4", device.path()]).unwrap();
    let mounted = rig.dir.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    run("mount", &[device.path(), mounted.to_str().unwrap()]).unwrap();
    let mounted = Mounted(mounted);
    let image = mounted.0.join("disk");
    std::fs::write(&image, pattern(0, MIB)).unwrap();
    {
        let socket = rig.dir.path().join("stats");
        let _backend = rig.start(Options { stats: Some(socket.clone()), ..Options::default() });
        rig.plug(&image, &[]);
        let mut front = Frontend::connect(&rig, Wanted::default());
        assert_eq!(front.geometry.sector_size, 512);
        let queue = &mut front.queues[0];
        for round in 0..20u8 {
            assert_eq!(queue.write(RwOp::Write, 8, &[round; 4096]), Status::Okay);
            assert_eq!(queue.write(RwOp::Write, 11, &[round ^ 0xff; 512]), Status::Okay);
            let mut expected = vec![round; 4096];
            expected[3 * 512..4 * 512].fill(round ^ 0xff);
            assert_eq!(queue.read(8, 8).unwrap(), expected, "aligned, round {round}");
            assert_eq!(queue.read(10, 3).unwrap(), expected[2 * 512..5 * 512], "not aligned");
        }
        let json = fetch_stats(&socket, Format::Json).unwrap();
        let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
        let queue = &disks[0]["queues"][0];
        assert_eq!(
            (&disks[0]["direct_io"], &queue["buffered_ios"]),
            (&true.into(), &40.into()),
            "{json}"
        );
    }
}

/// A file system whose writes hang, until dropped.
struct Frozen<'a>(&'a Mounted);

impl<'a> Frozen<'a> {
    fn new(mounted: &'a Mounted) -> Self {
        run("fsfreeze", &["--freeze", mounted.0.to_str().unwrap()]).unwrap();
        Self(mounted)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = run("fsfreeze", &["--unfreeze", self.0.0.to_str().unwrap()]) {
            eprintln!("{error}");
        }
    }
}

/// A disk that is removed while it hangs holds up neither the others nor the end, and does what it had taken once it
/// can.
#[test]
fn a_removed_disk_that_hangs_holds_nobody_up() {
    let rig = Rig::new();
    let Some(device) = Loop::over(&rig.image("backing", 32 * MIB), "512") else { return };
    run("mke2fs", &["-q", "-t", "ext4", device.path()]).unwrap();
    let mounted = rig.dir.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    run("mount", &[device.path(), mounted.to_str().unwrap()]).unwrap();
    let mounted = Mounted(mounted);
    let image = mounted.0.join("disk");
    std::fs::write(&image, pattern(0, MIB)).unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };

    let socket = rig.dir.path().join("stats");
    let backend = rig.start(Options { stats: Some(socket.clone()), ..Options::default() });
    rig.plug(&image, &[]);
    let client = Arc::new(join(rig.dir.path(), FRONT));
    let mut hanging = Frontend::new(client.clone(), VBD, Wanted::default());
    hanging.settle(State::Connected, true);
    let frozen = Frozen::new(&mounted);
    let queue = &mut hanging.queues[0];
    queue.fill_page(0, 7);
    let segments = queue.segments(0, 8);
    let request = queue.rw(RwOp::Write, 0, &segments);
    queue.ring.push(&request).unwrap();
    queue.publish();
    until("the write was taken", &|| {
        let json = fetch_stats(&socket, Format::Json).unwrap();
        let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
        disks[0]["queues"][0]["in_flight"] == 1
    });

    forget_vbd(&rig.toolstack, &VBD).unwrap();
    let other = Vbd { device: 51728, ..VBD };
    rig.plug_as(other, &rig.image("other", MIB), &[]);
    let mut honest = Frontend::new(client, other, Wanted::default());
    honest.settle(State::Connected, true);
    assert_eq!(honest.queues[0].read(0, 8).unwrap(), pattern(0, 4096));
    drop(honest);
    let begin = Instant::now();
    backend.end().unwrap();
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());

    let written = || std::fs::read(&image).unwrap()[..4096] == [7; 4096];
    assert!(!written());
    drop(frozen);
    until("the write is done", &written);
}
