// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of mistakes, malice, failures and ends.

mod rig;

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor_client::Client;
use hypervisor_client::toolstack::{Vbd, remove_vbd};
use proptest::prelude::*;
use rig::{BACK, FRONT, Frontend, PATIENCE, Rig, VBD, Wanted, join, pattern};
use ring_proto::blkif::{Request, RwOp, Segment, Status};
use ring_proto::shared::SharedMemory;
use ring_proto::xen::GrantRef;
use ring_proto::xenbus::{State, vbd::keys};
use uring_backend::{Options, Stop};

const MIB: usize = 1 << 20;

// ---- a hostile frontend ----

/// A producer index that runs ahead ends this connection, says why, and leaves the domain's other disk alone.
#[test]
fn an_index_overflow_closes_one_device_only() {
    let rig = Rig::new();
    let other = Vbd { device: 51728, ..VBD };
    let _backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[]);
    rig.plug_as(other, &rig.image("other", MIB), &[]);
    let client = Arc::new(join(rig.dir.path(), FRONT));
    let mut hostile = Frontend::new(client.clone(), VBD, Wanted::default());
    let mut honest = Frontend::new(client, other, Wanted::default());
    hostile.settle(State::Connected, true);
    honest.settle(State::Connected, true);

    hostile.queues[0].ring.memory().store_release(0, 5000);
    hostile.queues[0].channel.notify().unwrap();
    let error = rig.await_error();
    assert!(
        error.contains("queue 0: the frontend broke the ring") && error.contains("5000"),
        "{error}"
    );
    rig.await_back_state(State::Closing);
    assert_eq!(honest.queues[0].read(0, 8).unwrap(), pattern(0, 4096));

    // It may come back once it behaves.
    hostile.settle(State::Closed, true);
    hostile.settle(State::Connected, true);
    assert_eq!(hostile.queues[0].read(8, 8).unwrap(), pattern(4096, 4096));
}

/// Grants that were never made, in slots and in pages of segments, with and without persistent grants.
#[test]
fn pages_that_are_not_granted_fail_their_request_only() {
    for persistent in [true, false] {
        let rig = Rig::new();
        let _backend = rig.start(Options::default());
        rig.plug(&rig.image("disk", MIB), &[]);
        let mut front = Frontend::connect(&rig, Wanted { persistent, ..Wanted::default() });
        let queue = &mut front.queues[0];
        let bad = Segment::new(GrantRef(4_000_000), 0, 7).unwrap();
        for op in [RwOp::Read, RwOp::Write, RwOp::WriteBarrier] {
            let good = queue.segments(0, 8)[0];
            let request = queue.rw(op, 0, &[good, bad]);
            assert_eq!(queue.call(&request), Status::Error);
            let mut many = queue.segments(0, 15 * 8);
            many.push(bad);
            let request = queue.rw(op, 0, &many);
            assert_eq!(queue.call(&request), Status::Error);
        }
        assert_eq!(queue.read(64, 8).unwrap(), pattern(64 * 512, 4096));
    }
}

/// Whatever stands in the slots, each request is answered, and the disk is served afterwards.
#[test]
fn garbage_in_the_slots_is_answered() {
    let rig = Rig::new();
    let backend = rig.start(Options::default());
    rig.plug_read_only(&rig.image("disk", MIB));
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = std::cell::RefCell::new(&mut front.queues[0]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    let operations = prop_oneof![0u8..8, any::<u8>()];
    let slots = prop::collection::vec((operations, prop::collection::vec(any::<u8>(), 111)), 1..20);
    runner
        .run(&slots, |slots| {
            let queue = &mut **queue.borrow_mut();
            // Legal pushes reserve the slots; what is in them is then replaced.
            let start = queue.ring.memory().load(0);
            for (at, (operation, bytes)) in (start..).zip(&slots) {
                let id = queue.id();
                queue.ring.push(&Request::Flush { id, barrier: false }).unwrap();
                let slot = 64 + (at % queue.ring.size()) as usize * 112;
                let memory = queue.ring.memory();
                memory.copy_in(slot, &[*operation]);
                memory.copy_in(slot + 1, bytes);
            }
            queue.publish();
            for _ in 0..slots.len() {
                queue.any_answer();
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(queue.borrow_mut().read(0, 8).unwrap(), pattern(0, 4096));
    drop(front);
    backend.end().unwrap();
}

#[test]
fn a_frontend_that_publishes_nonsense_is_told() {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[]);
    rig.await_back_state(State::InitWait);
    let front = Frontend::new(Arc::new(join(rig.dir.path(), FRONT)), VBD, Wanted::default());
    for (key, value) in [("ring-ref", "seven"), ("event-channel", "1"), ("state", "3")] {
        front.write_key(key, value);
    }
    let error = rig.await_error();
    assert!(error.contains("ring-ref = \"seven\" is not an unsigned decimal number"), "{error}");
    rig.await_back_state(State::Closing);
}

/// It is rung as often as it likes, and need not look: the disk is served all the same.
#[test]
fn a_doorbell_that_nobody_looks_at_is_no_trouble() {
    let rig = Rig::new();
    let backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = &mut front.queues[0];
    // The frontend has the same descriptor. What rang until now must not be in the way.
    let _ = queue.channel.wait(Some(Duration::ZERO)).unwrap();
    rustix::io::write(&queue.channel, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    for _ in 0..3 {
        let request = queue.rw(RwOp::Read, 0, &queue.segments(0, 8));
        queue.ring.push(&request).unwrap();
        queue.publish();
        let end = std::time::Instant::now() + PATIENCE;
        while !queue.ring.final_check().unwrap() {
            assert!(std::time::Instant::now() < end, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        queue.any_answer();
    }
    drop(front);
    backend.end().unwrap();
}

/// One that writes its state all the time keeps nobody else waiting.
#[test]
fn a_flood_of_state_changes_does_not_hold_the_backend_up() {
    let rig = Rig::new();
    let stats = rig.dir.path().join("stats");
    let _backend = rig.start(Options { stats: Some(stats.clone()), ..Options::default() });
    rig.plug(&rig.image("disk", MIB), &[]);
    rig.await_back_state(State::InitWait);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let store = rig.toolstack_again();
            let over = &over;
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    store.write(&format!("{}/state", VBD.frontend_path()), "1").unwrap();
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tell.send(uring_backend::fetch_stats(&stats, uring_backend::Format::Json)).unwrap();
        });
        let answer = told.recv_timeout(Duration::from_secs(5));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(answer.expect("no answer in five seconds").unwrap().contains("51712"));
    });
}

/// Its state stays as it was, and its rings are gone: only the hypervisor tells that its domain is.
#[test]
fn an_image_is_free_once_a_frontend_that_misbehaved_is_dead() {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    let image = rig.image("disk", MIB);
    rig.plug(&image, &[]);
    let hostile = Frontend::connect(&rig, Wanted::default());
    hostile.queues[0].ring.memory().store_release(0, 5000);
    hostile.queues[0].channel.notify().unwrap();
    rig.await_error();
    rig.await_back_state(State::Closing);
    hostile.crash();
    rig.await_back_state(State::Closed);
}

// ---- images and keys that are not right ----

/// The error names the thing; once it is put right, the disk is served.
fn is_told_then_served(rig: &Rig, expected: &[&str], mend: impl FnOnce()) {
    let error = rig.await_error();
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    mend();
    let mut front = Frontend::connect(rig, Wanted::default());
    assert_eq!(front.queues[0].read(0, 8).unwrap(), pattern(0, 4096));
}

fn quick() -> Options {
    Options { check: 1, ..Options::default() }
}

#[test]
fn a_missing_image_is_named_and_awaited() {
    let rig = Rig::new();
    let _backend = rig.start(quick());
    let image = rig.dir.path().join("later");
    rig.plug(&image, &[]);
    is_told_then_served(&rig, &["later", "No such file"], || {
        rig.image("later", MIB);
    });
}

/// Root may open everything, so the backend is somebody else then.
#[test]
fn an_image_without_permission_is_named_and_harms_no_other() {
    const NOBODY: u32 = 65534;
    let rig = Rig::without_backend();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let (secret, open) = (rig.image("secret", MIB), rig.image("open", MIB));
    for (name, mode) in [
        ("", 0o755),
        ("hypervisor.sock", 0o666),
        ("xenstored.sock", 0o666),
        ("open", 0o666),
        ("secret", 0),
    ] {
        allow(&rig.dir.path().join(name), mode);
    }
    let mut command = backend_command(Path::new("/proc/self/exe"), rig.dir.path());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = spawn(command);
    rig.plug(&secret, &[]);
    let other = Vbd { device: 51728, ..VBD };
    rig.plug_as(other, &open, &[]);
    let error = rig.await_error();
    for part in [secret.to_str().unwrap(), "Permission denied"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    let client = Arc::new(join(rig.dir.path(), FRONT));
    let mut served = Frontend::new(client.clone(), other, Wanted::default());
    served.settle(State::Connected, true);
    assert_eq!(served.queues[0].read(0, 8).unwrap(), pattern(0, 4096));

    // Once it may, it serves this one too.
    allow(&secret, 0o666);
    let mut refused = Frontend::new(client, VBD, Wanted::default());
    refused.settle(State::Connected, true);
    assert_eq!(refused.queues[0].read(8, 8).unwrap(), pattern(4096, 4096));
    assert_eq!(served.queues[0].write(RwOp::Write, 0, &[1; 4096]), Status::Okay);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_image_in_a_wrong_format_is_named() {
    let rig = Rig::new();
    let _backend = rig.start(quick());
    let image = rig.dir.path().join("disk.qcow2");
    std::fs::write(&image, b"QFI\xfb and more").unwrap();
    rig.plug(&image, &[]);
    is_told_then_served(&rig, &["disk.qcow2", "qcow2, not raw"], || {
        rig.image("disk.qcow2", MIB);
    });
}

#[test]
fn a_second_backend_for_an_image_waits_for_the_first() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let held = uring_backend::image::Image::open(&image, Default::default()).unwrap();
    let _backend = rig.start(quick());
    rig.plug(&image, &[]);
    is_told_then_served(&rig, &["disk: in use by another disk of this process"], || drop(held));
}

/// Whoever held the image is often about to let go: a disk that moves to another domain, a backend that was killed. That
/// is waited for quietly, also when nobody looks at sizes.
#[test]
fn an_image_that_is_soon_let_go_is_no_error() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let held = uring_backend::image::Image::open(&image, Default::default()).unwrap();
    let _backend = rig.start(Options { check: 0, ..Options::default() });
    rig.plug(&image, &[]);
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    rig.await_back_state(State::InitWait);
    let error = VBD.backend_path().replace("/backend/", "/error/backend/") + "/error";
    assert_eq!(rig.toolstack.try_read(&error).unwrap(), None);
}

#[test]
fn a_key_of_the_wrong_type_is_named() {
    let rig = Rig::new();
    let _backend = rig.start(quick());
    rig.plug(&rig.image("disk", MIB), &[(keys::IOPS_LIMIT, "fast")]);
    is_told_then_served(&rig, &["iops-limit = \"fast\" is not an unsigned decimal number"], || {
        rig.write_back_key("iops-limit", "0");
    });
}

/// A device whose frontend's directory is nonsense is not served, and all others are.
#[test]
fn a_path_that_cannot_be_watched_concerns_one_device_only() {
    let rig = Rig::new();
    let bad = Vbd { device: 51728, ..VBD };
    let backend = rig.start(Options::default());
    rig.toolstack.write(&format!("{}/frontend", bad.backend_path()), "no // path").unwrap();
    rig.plug_as(VBD, &rig.image("disk", MIB), &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert_eq!(front.queues[0].read(0, 8).unwrap(), pattern(0, 4096));
    drop(front);
    backend.end().unwrap();
}

#[test]
fn an_image_that_ends_early_fails_what_lies_beyond() {
    let rig = Rig::new();
    let _backend = rig.start(Options { check: 0, ..Options::default() });
    let image = rig.image("disk", MIB);
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = &mut front.queues[0];
    let file = File::options().write(true).open(&image).unwrap();
    file.set_len(4096 * 3).unwrap();
    assert_eq!(queue.read(1024, 8), Err(Status::Error));
    assert_eq!(queue.read(16, 16), Err(Status::Error), "half of it is there");
    assert_eq!(queue.read(16, 8).unwrap(), pattern(16 * 512, 4096));
}

/// Needs root, for a file system of its own.
#[test]
fn a_full_file_system_fails_writes_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a full file system is not tested");
        return;
    }
    let rig = Rig::new();
    let small = rig.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).arg(&small).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    let image = small.join("disk");
    File::create(&image).unwrap().set_len(4 * MIB as u64).unwrap();
    {
        let _backend = rig.start(Options::default());
        rig.plug(&image, &[]);
        let mut front = Frontend::connect(&rig, Wanted::default());
        let queue = &mut front.queues[0];
        let mut acknowledged = Vec::new();
        let mut failed = 0;
        for sector in (0..8192u64).step_by(64) {
            match queue.write(RwOp::Write, sector, &pattern(sector as usize * 512, 32768)) {
                Status::Okay => acknowledged.push(sector),
                _ => failed += 1,
            }
        }
        assert!(failed > 90 && acknowledged.len() > 10, "{failed} failed");
        for sector in acknowledged {
            assert_eq!(queue.read(sector, 64).unwrap(), pattern(sector as usize * 512, 32768));
        }
    }
    // Lazily: the kernel may take a moment to close the last file.
    mount(&["umount", "--lazy"]);
}

// ---- ends and returns ----

/// What was taken is answered, and the device is closed with the frontend's consent.
#[test]
fn stopping_drains() {
    let rig = Rig::new();
    let backend = rig.start(Options::default());
    let image = rig.image("disk", 4 * MIB);
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted { order: 2, ..Wanted::default() });
    let queue = &mut front.queues[0];
    for page in 0..64 {
        queue.fill_page(page, 0xa0 | page as u8 & 0xf);
        let segments = queue.segments(page, 8);
        let request = queue.rw(RwOp::Write, page as u64 * 8, &segments);
        queue.ring.push(&request).unwrap();
    }
    let first = queue.last_id() - 63;
    queue.publish();
    backend.stop.stop();
    rig.await_back_state(State::Closing);
    // The queue has ended: what is not answered now was not taken.
    let file = File::open(&image).unwrap();
    while queue.ring.available().unwrap() > 0 {
        let response = queue.answer();
        assert_eq!(response.status, Status::Okay);
        let page = (response.id - first) as usize;
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, page as u64 * 4096).unwrap();
        assert_eq!(bytes, [0xa0 | page as u8 & 0xf; 4096]);
    }
    front.settle(State::Closed, false);
    backend.end().unwrap();
    rig.await_back_state(State::Closed);
}

#[test]
fn a_disk_can_be_unplugged_and_plugged_again() {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    let image = rig.image("disk", MIB);
    for _ in 0..3 {
        rig.plug(&image, &[]);
        let mut front = Frontend::connect(&rig, Wanted::default());
        assert_eq!(front.queues[0].read(0, 8).unwrap(), pattern(0, 4096));
        let toolstack = rig.toolstack_again();
        let unplug = std::thread::spawn(move || remove_vbd(&toolstack, &VBD, PATIENCE));
        front.settle(State::Closed, false);
        unplug.join().unwrap().unwrap();
        assert!(rig.toolstack.try_read(&VBD.backend_path()).unwrap().is_none());
    }
}

/// A frontend that was killed left its state behind; the next one of its domain closes that and connects anew.
#[test]
fn a_killed_frontend_comes_back() {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[]);
    for persistent in [true, false, true] {
        let mut front = Frontend::connect(&rig, Wanted { persistent, ..Wanted::default() });
        let queue = &mut front.queues[0];
        assert_eq!(queue.read(8, 8).unwrap(), pattern(4096, 4096));
        let segments = queue.segments(0, 64);
        for sector in 0..8 {
            let request = queue.rw(RwOp::Read, sector, &segments);
            queue.ring.push(&request).unwrap();
        }
        queue.publish();
        front.crash();
    }
}

#[test]
fn a_hypervisor_that_goes_away_ends_the_backend_with_a_reason() {
    let mut rig = Rig::new();
    let backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[]);
    let _front = Frontend::connect(&rig, Wanted::default());
    drop(rig.hosted.take());
    let error = backend.ended().unwrap_err().to_string();
    assert!(error.contains("xenstore"), "{error}");
}

/// A backend in a process of its own, to be killed.
fn spawn_backend(dir: &Path) -> Child {
    spawn(backend_command(&std::env::current_exe().unwrap(), dir))
}

fn backend_command(this_program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(this_program);
    command
        .args(["--exact", "backend_process", "--nocapture"])
        .env("CAUSEWAY_TEST_BACKEND", dir)
        .stdout(Stdio::piped());
    command
}

fn spawn(mut command: Command) -> Child {
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the backend's process ended");
    }
    child.stdout = Some(output.into_inner());
    child
}

/// The process of [`spawn_backend`]. Among the other tests it has nothing to do.
#[test]
fn backend_process() {
    let Some(dir) = std::env::var_os("CAUSEWAY_TEST_BACKEND").map(PathBuf::from) else { return };
    let _ = env_logger::try_init();
    let client: Arc<dyn Client> = Arc::new(join(&dir, BACK));
    println!("serving");
    let stop = Stop::new().unwrap();
    stop.on_signals().unwrap();
    uring_backend::run(client, quick(), &stop).unwrap();
}

/// Killed again and again while writes are under way: what was acknowledged is there, and the frontend finds each new
/// backend and goes on.
#[test]
fn a_killed_backend_loses_nothing_and_is_found_again() {
    let rig = Rig::without_backend();
    let image = rig.image("disk", 4 * MIB);
    rig.plug(&image, &[]);
    let mut child = spawn_backend(rig.dir.path());
    let mut front = Frontend::connect(&rig, Wanted { order: 1, ..Wanted::default() });
    for generation in 1..=3u8 {
        let queue = &mut front.queues[0];
        let mut pages = std::collections::HashMap::new();
        for page in 0..queue.ring.free() as usize {
            queue.fill_page(page, generation);
            let segments = queue.segments(page, 8);
            let request = queue.rw(RwOp::Write, page as u64 * 8, &segments);
            pages.insert(request.tag().id, page);
            queue.ring.push(&request).unwrap();
        }
        queue.publish();
        // Some answers at least, then the end, wherever it strikes.
        let mut acknowledged = vec![pages[&queue.answer().id]];
        child.kill().unwrap();
        child.wait().unwrap();
        while queue.ring.available().unwrap() > 0 {
            let response = queue.answer();
            assert_eq!(response.status, Status::Okay);
            acknowledged.push(pages[&response.id]);
        }
        child = spawn_backend(rig.dir.path());
        front.settle_away_from(State::Connected);
        front.settle(State::Connected, true);
        for page in acknowledged {
            let bytes = front.queues[0].read(page as u64 * 8, 8).unwrap();
            assert_eq!(bytes, [generation; 4096], "page {page} was acknowledged");
        }
    }
    // SIGTERM closes politely.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    front.settle(State::Closed, false);
    assert!(child.wait().unwrap().success());
}

/// It is told what it did wrong, and may connect anew as often as it likes.
#[test]
fn a_frontend_that_breaks_each_connection_cannot_fill_the_log() {
    let rig = Rig::without_backend();
    rig.plug(&rig.image("disk", MIB), &[]);
    let mut command = backend_command(&std::env::current_exe().unwrap(), rig.dir.path());
    command.env("RUST_LOG", "info").stderr(Stdio::piped());
    let mut child = spawn(command);
    let began = Instant::now();
    let mut front = Frontend::connect(&rig, Wanted::default());
    for _ in 0..40 {
        front.queues[0].ring.memory().store_release(0, 5000);
        front.queues[0].channel.notify().unwrap();
        rig.await_back_state(State::Closing);
        front.settle(State::Closed, true);
        front.settle(State::Connected, true);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<_> = lines.filter(|line| line.contains("vbd 2/51712")).collect();
    let most = 16 + 1 + began.elapsed().as_secs() as usize / 10;
    assert!((10..=most).contains(&lines.len()), "{lines:#?}");
}

/// What data was copied through is the system's again once nothing was copied for some seconds.
#[test]
fn memory_for_copies_is_given_back_when_it_is_idle() {
    let rig = Rig::without_backend();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let mut child = spawn_backend(rig.dir.path());
    let wanted = Wanted { order: 2, persistent: false, ..Wanted::default() };
    let mut front = Frontend::connect(&rig, wanted);
    let queue = &mut front.queues[0];
    let status = format!("/proc/{}/status", child.id());
    let kib = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = kib();
    for at in 0..40 {
        let segments = queue.segments(at * 11, 11 * 8);
        let request = queue.rw(RwOp::Write, at as u64 * 88, &segments);
        queue.ring.push(&request).unwrap();
    }
    queue.publish();
    for _ in 0..40 {
        assert_eq!(queue.answer().status, Status::Okay);
    }
    let busy = kib();
    assert!(busy >= before + 1024, "{before} KiB before, {busy} for 40 requests at once");
    let end = Instant::now() + PATIENCE;
    while kib() > busy - 1024 {
        assert!(Instant::now() < end, "{} KiB of {busy} are still there", kib());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(queue.write(RwOp::Write, 0, &[7; 4096]), Status::Okay);
    assert_eq!(queue.read(0, 8).unwrap(), [7; 4096]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A disk that nobody uses takes little memory and no time.
/// Processor time that a process has used, in hundredths of a second.
fn ticks(process: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn waiting_for_an_image_costs_little() {
    let rig = Rig::without_backend();
    let image = rig.image("disk", MIB);
    let _held = uring_backend::image::Image::open(&image, Default::default()).unwrap();
    rig.plug(&image, &[]);
    let mut child = spawn_backend(rig.dir.path());
    let before = ticks(&child);
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(&child) - before;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(spent <= 15, "{spent} hundredths of a second in one second of fifty tries");
}

#[test]
fn an_idle_disk_costs_little() {
    let rig = Rig::without_backend();
    rig.plug(&rig.image("disk", 4 * MIB), &[]);
    let mut child = spawn_backend(rig.dir.path());
    let mut front = Frontend::connect(&rig, Wanted { order: 4, queues: 4, ..Wanted::default() });
    for queue in &mut front.queues {
        queue.read(0, 8).unwrap();
    }
    let process = format!("/proc/{}", child.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    // Without the program itself, which a build for tests makes large.
    let kib = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let kib = kib("RssAnon:") + kib("RssShmem:");
    assert!(kib < 12 << 10, "{kib} KiB for an idle disk of four queues");
    let before = ticks(&child);
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(&child) - before;
    assert!(spent <= 1, "{spent} hundredths of a second in one second of nothing");
    front.settle(State::Closed, false);
    child.kill().unwrap();
    child.wait().unwrap();
}
