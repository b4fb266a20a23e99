// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a frontend sees of a backend that works.

mod rig;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use rig::{Frontend, Rig, VBD, Wanted, pattern};
use ring_proto::blkif::{Abi, Discard, Request, RwOp, Segment, Status};
use ring_proto::xenbus::{State, vbd::keys};
use uring_backend::{Format, Options, fetch_stats};

const MIB: usize = 1 << 20;

fn at(file: &File, sector: usize, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, sector as u64 * 512).unwrap();
    buffer
}

/// Reads, writes and flushes through a frontend connected as `wanted`.
fn data_arrives(wanted: Wanted, options: &Options) {
    let rig = Rig::new();
    let image = rig.image("disk", 4 * MIB);
    let backend = rig.start(options.clone());
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, wanted);
    assert_eq!(front.queues.len(), wanted.queues as usize);
    assert_eq!(front.geometry.sectors, 4 * MIB as u64 / 512);
    let file = File::open(&image).unwrap();
    for queue in &mut front.queues {
        for (sector, sectors) in [(0, 1), (3, 5), (8, 88), (100, 2048), (8191, 1)] {
            let expected = pattern(sector * 512, sectors * 512);
            assert_eq!(queue.read(sector as u64, sectors).unwrap(), expected, "{wanted:?}");
            let inverse: Vec<u8> = expected.iter().map(|byte| !byte).collect();
            assert_eq!(queue.write(RwOp::Write, sector as u64, &inverse), Status::Okay);
            assert_eq!(queue.read(sector as u64, sectors).unwrap(), inverse);
            assert_eq!(at(&file, sector, sectors * 512), inverse, "{wanted:?}");
            assert_eq!(queue.write(RwOp::Write, sector as u64, &expected), Status::Okay);
        }
        let id = queue.id();
        assert_eq!(queue.call(&Request::Flush { id, barrier: false }), Status::Okay);
    }
    front.settle(State::Closed, false);
    backend.end().unwrap();
}

#[test]
fn data_arrives_in_mapped_pages() {
    data_arrives(Wanted::default(), &Options::default());
    data_arrives(Wanted::default(), &Options { buffered: true, poll: 0, ..Options::default() });
}

#[test]
fn data_arrives_in_copied_pages() {
    let wanted = Wanted { persistent: false, order: 2, ..Wanted::default() };
    data_arrives(wanted, &Options::default());
    // Beyond the limit of what may stay mapped, pages are copied too.
    data_arrives(Wanted::default(), &Options { persistent: 8, ..Options::default() });
}

#[test]
fn data_arrives_over_many_queues_with_large_rings() {
    data_arrives(Wanted { order: 4, queues: 3, ..Wanted::default() }, &Options::default());
}

#[test]
fn data_arrives_from_a_frontend_of_32_bits() {
    let wanted = Wanted { abi: Abi::X86_32, ..Wanted::default() };
    data_arrives(wanted, &Options::default());
}

#[test]
fn a_full_ring_is_served_in_any_order() {
    let rig = Rig::new();
    let image = rig.image("disk", 4 * MIB);
    let _backend = rig.start(Options::default());
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted { order: 1, ..Wanted::default() });
    let queue = &mut front.queues[0];
    let slots = queue.ring.size() as usize;
    for round in 0..3 {
        let mut pages = std::collections::HashMap::new();
        for page in 0..slots {
            let sector = ((page * 37 + round) % 1000) * 8;
            let segments = queue.segments(page, 8);
            let request = queue.rw(RwOp::Read, sector as u64, &segments);
            pages.insert(request.tag().id, (page, sector));
            queue.ring.push(&request).unwrap();
        }
        queue.publish();
        for _ in 0..slots {
            let response = queue.answer();
            let (page, sector) = pages.remove(&response.id).expect("an id that was asked, once");
            assert_eq!(response.status, Status::Okay);
            assert_eq!(queue.page(page), pattern(sector * 512, 4096));
        }
    }
}

/// A segment may be any sectors of any page, and one page may occur twice.
#[test]
fn parts_of_pages_are_gathered_in_order() {
    for persistent in [true, false] {
        let rig = Rig::new();
        let image = rig.image("disk", MIB);
        let _backend = rig.start(Options::default());
        rig.plug(&image, &[]);
        let mut front = Frontend::connect(&rig, Wanted { persistent, ..Wanted::default() });
        let queue = &mut front.queues[0];
        let refs = queue.data.refs().to_vec();
        let parts = [(5, 1, 3), (2, 0, 7), (3, 0, 0), (5, 7, 7)];
        let segments =
            parts.map(|(page, first, last)| Segment::new(refs[page], first, last).unwrap());
        let request = queue.rw(RwOp::Read, 11, &segments);
        assert_eq!(queue.call(&request), Status::Okay);
        let mut sector = 11;
        for (page, first, last) in parts {
            let (from, to) = (usize::from(first) * 512, (usize::from(last) + 1) * 512);
            assert_eq!(queue.page(page)[from..to], pattern(sector * 512, to - from), "page {page}");
            sector += (to - from) / 512;
        }
    }
}

#[test]
fn barriers_and_flushes_keep_their_place() {
    let rig = Rig::new();
    let image = rig.image("disk", 4 * MIB);
    let _backend = rig.start(Options::default());
    rig.plug(&image, &[]);
    for persistent in [true, false] {
        // The second one takes over the device that the first one closed.
        let mut front = Frontend::connect(&rig, Wanted { persistent, ..Wanted::default() });
        assert!(front.features.flush_cache && front.features.barrier);
        let queue = &mut front.queues[0];
        // Writes before it, the barrier, writes after it: all to the same sectors, so the last one has to win.
        let mut order = Vec::new();
        for round in 0..12usize {
            let op = [RwOp::Write, RwOp::WriteBarrier, RwOp::FlushWrite][round % 3];
            queue.fill_page(round, round as u8 + 1);
            let segments = queue.segments(round, 8);
            let request = queue.rw(op, if op == RwOp::FlushWrite { 800 } else { 64 }, &segments);
            order.push(request.tag().id);
            queue.ring.push(&request).unwrap();
            let id = queue.id();
            queue.ring.push(&Request::Flush { id, barrier: round % 2 == 0 }).unwrap();
        }
        queue.publish();
        let mut answered = Vec::new();
        for _ in 0..24 {
            let response = queue.answer();
            assert_eq!(response.status, Status::Okay);
            answered.push(response.id);
        }
        let barrier = answered.iter().position(|id| *id == order[10]).unwrap();
        for before in &order[..10] {
            assert!(answered[..barrier].contains(before), "a barrier was overtaken");
        }
        assert_eq!(at(&File::open(&image).unwrap(), 64, 4096), [11; 4096]);
        front.settle(State::Closed, false);
    }
}

#[test]
fn a_discard_gives_the_space_back() {
    let rig = Rig::new();
    let image = rig.image("disk", 4 * MIB);
    let _backend = rig.start(Options::default());
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = &mut front.queues[0];
    let before = image.metadata().unwrap().blocks();
    let discard = |id, sector, count| {
        Request::Discard(Discard { id, handle: 0, sector, count, secure: false })
    };
    let id = queue.id();
    assert_eq!(queue.call(&discard(id, 2048, 4096)), Status::Okay);
    assert_eq!(queue.read(2048, 8).unwrap(), [0; 4096]);
    assert_eq!(queue.read(2040, 8).unwrap(), pattern(2040 * 512, 4096));
    let after = image.metadata().unwrap().blocks();
    assert!(before - after >= 4096 - 16, "{before} blocks before, {after} after");
    let id = queue.id();
    assert_eq!(queue.call(&discard(id, 0, 0)), Status::Okay);
    let id = queue.id();
    assert_eq!(queue.call(&discard(id, 8190, 4)), Status::Error, "beyond the end");
}

#[test]
fn discard_is_not_offered_where_the_toolstack_says_so() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let _backend = rig.start(Options::default());
    rig.plug(&image, &[(keys::DISCARD_ENABLE, "0")]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert_eq!(front.geometry.discard, None);
    let queue = &mut front.queues[0];
    let id = queue.id();
    let discard = Discard { id, handle: 0, sector: 0, count: 8, secure: false };
    assert_eq!(queue.call(&Request::Discard(discard)), Status::NotSupported);
    assert_eq!(queue.read(0, 8).unwrap(), pattern(0, 4096));
}

/// `mode` is `r`: nothing changes the image, and it may be one that nobody may write.
#[test]
fn a_read_only_disk_refuses_to_change() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let _backend = rig.start(Options::default());
    rig.plug_read_only(&image);
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert!(front.geometry.read_only && front.geometry.discard.is_none());
    let queue = &mut front.queues[0];
    assert_eq!(queue.write(RwOp::Write, 0, &[1; 4096]), Status::Error);
    assert_eq!(queue.read(0, 8).unwrap(), pattern(0, 4096));
}

/// Whatever `mode` says.
#[test]
fn a_cdrom_is_one_and_read_only() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let _backend = rig.start(Options::default());
    rig.plug_cdrom(&image);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let geometry = front.geometry;
    assert!(geometry.cdrom && geometry.removable && geometry.read_only, "{geometry:?}");
    let queue = &mut front.queues[0];
    assert_eq!(queue.write(RwOp::Write, 0, &[1; 4096]), Status::Error);
    assert_eq!(queue.read(0, 8).unwrap(), pattern(0, 4096));
}

#[test]
fn a_disk_of_4096_byte_sectors_takes_only_whole_ones() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB + 2048);
    let _backend = rig.start(Options::default());
    rig.plug(&image, &[(keys::SECTOR_SIZE, "4096")]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    assert_eq!((front.geometry.sector_size, front.geometry.sectors), (4096, 2048));
    let queue = &mut front.queues[0];
    assert_eq!(queue.read(8, 16).unwrap(), pattern(4096, 8192));
    assert_eq!(queue.read(8, 4), Err(Status::Error), "half a sector");
    assert_eq!(queue.read(4, 8), Err(Status::Error), "between two sectors");
}

#[test]
fn a_frontend_sees_its_disk_grow_and_shrink() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let backend = rig.start(Options { check: 0, ..Options::default() });
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let sectors = format!("{}/sectors", VBD.backend_path());
    let queue = &mut front.queues[0];
    assert_eq!(queue.read(2048, 8), Err(Status::Error));

    let file = File::options().write(true).open(&image).unwrap();
    file.set_len(2 * MIB as u64).unwrap();
    backend.stop.reload();
    rig.await_node(&sectors, |value| value == "4096");
    assert_eq!(queue.read(2048, 8).unwrap(), [0; 4096]);
    assert_eq!(queue.write(RwOp::Write, 4088, &[3; 4096]), Status::Okay);

    file.set_len(MIB as u64 / 2).unwrap();
    backend.stop.reload();
    rig.await_node(&sectors, |value| value == "1024");
    assert_eq!(queue.read(1024, 8), Err(Status::Error));
    assert_eq!(queue.read(1016, 8).unwrap(), pattern(1016 * 512, 4096));
}

/// Only a lower bound on time can be tested: a slow machine is no fault.
#[test]
fn limits_hold_and_can_be_changed() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let socket = rig.dir.path().join("stats");
    let _backend = rig.start(Options { stats: Some(socket.clone()), ..Options::default() });
    rig.plug(&image, &[(keys::IOPS_LIMIT, "100"), (keys::IOPS_BURST, "10")]);
    let mut front = Frontend::connect(&rig, Wanted::default());
    let queue = &mut front.queues[0];
    let took = |queue: &mut rig::FrontQueue, requests| {
        let began = Instant::now();
        for _ in 0..requests {
            queue.read(0, 8).unwrap();
        }
        began.elapsed()
    };
    let time = took(queue, 40);
    assert!(time >= Duration::from_millis(280), "30 requests beyond the burst took {time:?}");
    let json = fetch_stats(&socket, Format::Json).unwrap();
    let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
    // On a slow machine fewer requests come too early.
    let throttled = disks[0]["queues"][0]["throttled"].as_u64().unwrap();
    assert!(throttled >= 20 || time >= Duration::from_millis(330), "in {time:?}: {json}");

    // 64 KiB a second: 32 reads of 4 KiB are two seconds' worth, half a second's may come at once.
    rig.write_back_key("iops-limit", "0");
    rig.write_back_key("bandwidth-burst", "32768");
    rig.write_back_key("bandwidth-limit", "262144");
    let time = took(queue, 40);
    assert!(time >= Duration::from_millis(300), "128 KiB beyond the burst took {time:?}");
}

/// Queues of a disk share its limits, and none of them waits for ever while another has its fill.
#[test]
fn no_queue_starves_at_the_limit() {
    let rig = Rig::new();
    let _backend = rig.start(Options::default());
    rig.plug(&rig.image("disk", MIB), &[(keys::IOPS_LIMIT, "200"), (keys::IOPS_BURST, "1")]);
    let mut front = Frontend::connect(&rig, Wanted { queues: 4, ..Wanted::default() });
    let mut answers = [0; 4];
    let send = |queue: &mut rig::FrontQueue| {
        let request = queue.rw(RwOp::Read, 0, &queue.segments(0, 8));
        queue.ring.push(&request).unwrap();
        queue.publish();
    };
    for queue in &mut front.queues {
        (0..4).for_each(|_| send(queue));
    }
    let end = Instant::now() + rig::PATIENCE;
    while answers.iter().sum::<u32>() < 160 {
        assert!(Instant::now() < end, "{answers:?}");
        for (queue, count) in front.queues.iter_mut().zip(&mut answers) {
            while queue.ring.pop().unwrap().is_some() {
                *count += 1;
                send(queue);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(answers.iter().all(|count| *count >= 20), "{answers:?}");
}

#[test]
fn statistics_count_what_happened() {
    let rig = Rig::new();
    let image = rig.image("disk", MIB);
    let socket = rig.dir.path().join("stats");
    let _backend = rig.start(Options { stats: Some(socket.clone()), ..Options::default() });
    rig.plug(&image, &[]);
    let mut front = Frontend::connect(&rig, Wanted { queues: 2, ..Wanted::default() });
    let queue = &mut front.queues[1];
    for sector in 0..5 {
        queue.read(sector, 8).unwrap();
    }
    assert_eq!(queue.write(RwOp::Write, 0, &[1; 8192]), Status::Okay);
    assert_eq!(queue.read(5000, 8), Err(Status::Error));
    let json = fetch_stats(&socket, Format::Json).unwrap();
    let disks: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (idle, busy) = (&disks[0]["queues"][0], &disks[0]["queues"][1]);
    assert_eq!((&idle["reads"], &idle["batches"]), (&0.into(), &0.into()));
    for (name, expected) in [
        ("reads", 5),
        ("read_sectors", 40),
        ("writes", 1),
        ("written_sectors", 16),
        ("refused", 1),
        ("mapped_grants", 2),
        ("other_syscalls", 2),
        ("persistent_pages", 7),
        ("copied_pages", 0),
        ("in_flight", 0),
    ] {
        assert_eq!(busy[name], expected, "{name} in {json}");
    }
    assert!(fetch_stats(&socket, Format::Table).unwrap().contains("2/51712"));
    let text = fetch_stats(&socket, Format::Prometheus).unwrap();
    assert!(
        text.contains("causeway_block_reads_total{frontend=\"2\",device=\"51712\",queue=\"1\"} 5")
    );
}
