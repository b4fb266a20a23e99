// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Block requests and responses, in either ABI.

use ring_proto::blkif::{
    Abi, BackRing, Disk, FrontRing, Request, Segment, Segments, Status, descriptors,
};
use ring_proto::shared::PAGE_SIZE;

use crate::memory::Play;

fn abi(byte: u8) -> Abi {
    if byte & 1 == 0 { Abi::X86_64 } else { Abi::X86_32 }
}

/// A backend, down to the segments in indirect pages and the bounds of the disk.
pub fn back(data: &[u8]) {
    let play = Play::new(data);
    let [first, capacity, limit, steps @ ..] = play.steps else { return };
    let limit = u16::from(*limit) * 3;
    let Ok(mut ring) = BackRing::attach(play.memory(PAGE_SIZE), abi(*first), limit) else { return };
    let disk = Disk {
        capacity: u64::from(*capacity) << 3,
        logical: if first & 2 == 0 { 512 } else { 4096 },
        read_only: first & 4 != 0,
        flush: first & 8 != 0,
        barrier: first & 16 != 0,
        discard: first & 32 != 0,
    };
    for &step in steps {
        let tag = match ring.pop() {
            Err(_) => return,
            Ok(None) => continue,
            Ok(Some(Err(bad))) => bad.tag,
            Ok(Some(Ok(request))) => {
                inspect(&request, &disk, limit, play.script);
                request.tag()
            }
        };
        ring.push(tag, Status::Okay).expect("a request taken can be answered");
        if step & 1 == 0 {
            let _ = ring.publish();
        }
    }
}

/// Checks what the types promise.
fn inspect(request: &Request, disk: &Disk, limit: u16, indirect_page: &[u8]) {
    match request {
        Request::Rw(rw) => {
            let mut segments: Vec<Segment> = Vec::new();
            match &rw.segments {
                Segments::Direct(array) => {
                    assert!((1..=11).contains(&array.len()));
                    segments.extend(array.iter());
                }
                Segments::Indirect(indirect) => {
                    assert!(indirect.count() >= 1 && indirect.count() <= limit);
                    let pages = indirect.pages().len();
                    assert!((1..=8).contains(&pages));
                    let held: usize = (0..pages).map(|page| indirect.in_page(page)).sum();
                    assert_eq!(held, usize::from(indirect.count()));
                    let page = &indirect_page[..indirect_page.len().min(indirect.in_page(0) * 8)];
                    segments.extend(descriptors(page).filter_map(Result::ok));
                }
            }
            for segment in &segments {
                assert!(segment.first() <= segment.last() && segment.last() < 8);
            }
            if let Ok(count) = disk.check_rw(rw.op, rw.sector, &segments) {
                let sum: u32 = segments.iter().map(Segment::sectors).sum();
                assert_eq!(count, sum);
                let end = rw.sector.checked_add(u64::from(count)).expect("beyond all disks");
                assert!(end <= disk.capacity);
                assert_eq!(rw.sector * 512 % u64::from(disk.logical), 0);
            }
        }
        Request::Flush { barrier, .. } => {
            let offered = if *barrier { disk.barrier } else { disk.flush };
            assert_eq!(disk.check_flush(*barrier).is_ok(), offered);
        }
        Request::Discard(discard) => {
            if disk.check_discard(discard).is_ok() {
                assert!(disk.discard && !disk.read_only);
                let end = discard.sector.checked_add(discard.count).expect("beyond all disks");
                assert!(end <= disk.capacity);
            }
        }
    }
}

/// A frontend, whose backend answers anything.
pub fn front(data: &[u8]) {
    let play = Play::new(data);
    let (first, steps) = play.steps.split_first().unwrap_or((&0, &[]));
    let Ok(mut ring) = FrontRing::new(play.memory(PAGE_SIZE), abi(*first)) else { return };
    for &step in steps {
        if step & 1 == 0 {
            let flush = Request::Flush { id: u64::from(step), barrier: step & 2 != 0 };
            let room = ring.free() > 0;
            assert_eq!(ring.push(&flush).is_ok(), room);
            let _ = ring.publish();
            continue;
        }
        if ring.pop().is_err() {
            return;
        }
        assert!(ring.outstanding() <= ring.size());
    }
}
