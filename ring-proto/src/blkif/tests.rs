// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::ring::RingError;
use crate::shared::{bytes_of, from_bytes, SharedMemory};
use crate::testing::Local;
use crate::xen::GrantRef;

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), 0u8..8, 0u8..8)
        .prop_map(|(gref, a, b)| Segment::new(GrantRef(gref), a.min(b), a.max(b)).unwrap())
}

fn segments() -> impl Strategy<Value = Segments> {
    let direct = prop::collection::vec(segment(), 1..=MAX_SEGMENTS)
        .prop_map(|segments| Segments::Direct(SegmentArray::new(&segments).unwrap()));
    let indirect = (1..=MAX_INDIRECT_SEGMENTS, prop::array::uniform8(any::<u32>())).prop_map(
        |(count, grefs)| {
            let pages = usize::from(count).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
            Segments::Indirect(Indirect::new(count, &grefs.map(GrantRef)[..pages]).unwrap())
        },
    );
    prop_oneof![direct, indirect]
}

fn request() -> impl Strategy<Value = Request> {
    let op = prop::sample::select(std::vec![
        RwOp::Read,
        RwOp::Write,
        RwOp::WriteBarrier,
        RwOp::FlushWrite
    ]);
    let rw = (any::<u64>(), op, any::<u16>(), any::<u64>(), segments()).prop_map(
        |(id, op, handle, sector, segments)| {
            // Only reads and plain writes have an indirect form.
            let indirect = matches!(segments, Segments::Indirect(_));
            let op = if indirect && op != RwOp::Read { RwOp::Write } else { op };
            Request::Rw(Rw { id, op, handle, sector, segments })
        },
    );
    let flush =
        (any::<u64>(), any::<bool>()).prop_map(|(id, barrier)| Request::Flush { id, barrier });
    let discard = (any::<u64>(), any::<u16>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
        |(id, handle, sector, count, secure)| {
            Request::Discard(Discard { id, handle, sector, count, secure })
        },
    );
    prop_oneof![4 => rw, 1 => flush, 1 => discard]
}

/// Any bytes, but of an operation and with segments that have a chance to be legal.
fn slot() -> impl Strategy<Value = RawRequest> {
    (prop::array::uniform32(any::<[u8; 4]>()), 0u8..8, 0u8..14, 0u8..9, any::<bool>()).prop_map(
        |(words, operation, count, bound, wild)| {
            let bytes: Vec<u8> = words.concat();
            let mut slot: RawRequest = from_bytes(&bytes).unwrap();
            if !wild {
                (slot.operation, slot.nr_segments) = (operation, count);
                for segment in &mut slot.seg {
                    segment.first_sect %= 8;
                    segment.last_sect = bound.max(segment.first_sect);
                }
            }
            slot
        },
    )
}

proptest! {
    #[test]
    fn an_encoded_request_decodes_to_itself_in_either_layout(request in request()) {
        let slot = RawRequest::from(&request);
        prop_assert_eq!(slot.check(MAX_INDIRECT_SEGMENTS), Ok(request));
        let narrow = RawRequest32::from(slot);
        prop_assert_eq!(RawRequest::from(narrow).check(MAX_INDIRECT_SEGMENTS), Ok(request));
    }

    #[test]
    fn an_accepted_slot_keeps_the_promises(
        slot in slot(),
        limit in prop::sample::select(std::vec![0u16, 1, 256, u16::MAX]),
    ) {
        match slot.check(limit) {
            Ok(request) => {
                prop_assert_eq!(request.tag().id, slot.id);
                if let Request::Rw(rw) = request {
                    match rw.segments {
                        Segments::Direct(array) => {
                            prop_assert!((1..=MAX_SEGMENTS).contains(&array.len()));
                            for segment in array.iter() {
                                prop_assert!(segment.first() <= segment.last() && segment.last() < SECTORS_PER_PAGE);
                                prop_assert!(segment.offset() + segment.byte_len() <= PAGE_SIZE);
                            }
                        }
                        Segments::Indirect(indirect) => {
                            let count = usize::from(indirect.count());
                            prop_assert!(count >= 1 && indirect.count() <= limit);
                            prop_assert!((1..=MAX_INDIRECT_PAGES).contains(&indirect.pages().len()));
                            let in_pages: usize = (0..10).map(|page| indirect.in_page(page)).sum();
                            prop_assert_eq!(in_pages, count);
                            prop_assert!(!matches!(rw.op, RwOp::WriteBarrier | RwOp::FlushWrite));
                        }
                    }
                }
                prop_assert_eq!(RawRequest::from(&request).check(limit), Ok(request));
            }
            Err(bad) => {
                prop_assert_eq!(bad.tag.id, slot.id);
                prop_assert_ne!(bad.status(), Status::Okay);
                let echoed = if slot.operation == 6 { slot.as_indirect().indirect_op } else { slot.operation };
                prop_assert_eq!(bad.tag.operation, echoed);
            }
        }
    }

    #[test]
    fn descriptors_of_any_bytes_are_within_their_pages(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut count = 0;
        for (index, segment) in descriptors(&bytes).enumerate() {
            let raw: RawSegment = from_bytes(&bytes[index * 8..]).unwrap();
            match segment {
                Ok(segment) => prop_assert_eq!(RawSegment { pad: raw.pad, ..segment.into() }, raw),
                Err(problem) => prop_assert_eq!(
                    problem,
                    Problem::SegmentRange { index: index as u16, first: raw.first_sect, last: raw.last_sect }
                ),
            }
            count += 1;
        }
        prop_assert_eq!(count, bytes.len() / 8);
    }

    #[test]
    fn the_disk_accepts_just_what_fits(
        capacity in prop_oneof![0u64..64, Just(u64::MAX)],
        start in prop_oneof![0u64..64, (u64::MAX - 64)..=u64::MAX],
        parts in prop::collection::vec(segment(), 1..5),
        count in prop_oneof![0u64..64, Just(u64::MAX)],
        wide in any::<bool>(),
    ) {
        let logical = if wide { 4096 } else { 512 };
        let disk = Disk { capacity, logical, read_only: false, flush: true, barrier: true, discard: true };
        let unit = u128::from(logical) / 512;
        let fits = |count: u128| {
            u128::from(start) + count <= u128::from(capacity) && u128::from(start) % unit == 0 && count % unit == 0
        };
        let sectors: u32 = parts.iter().map(Segment::sectors).sum();
        let whole = |part: &Segment| {
            u128::from(part.first()) % unit == 0 && (u128::from(part.last()) + 1) % unit == 0
        };
        let legal = parts.iter().all(whole) && fits(sectors.into());
        let judged = disk.check_rw(RwOp::Read, start, &parts);
        prop_assert_eq!(judged.is_ok(), legal, "{:?}", judged);
        if let Ok(counted) = judged {
            prop_assert_eq!(counted, sectors);
        }
        let discard = Discard { id: 0, handle: 0, sector: start, count, secure: false };
        prop_assert_eq!(disk.check_discard(&discard).is_ok(), fits(count.into()));
    }

    #[test]
    fn a_response_decodes_to_what_was_encoded(id: u64, operation: u8, status in prop::sample::select(std::vec![
        Status::Okay, Status::Error, Status::NotSupported,
    ])) {
        let raw = RawResponse::new(Tag { id, operation }, status);
        prop_assert_eq!(RawResponse::from(RawResponse32::from(raw)), raw);
        match Operation::from_raw(operation).filter(|operation| *operation != Operation::Indirect) {
            Some(operation) => prop_assert_eq!(raw.check(), Ok(Response { id, operation, status })),
            None => prop_assert_eq!(raw.check(), Err(BadResponse { id, operation })),
        }
    }

    #[test]
    fn an_unknown_status_is_a_failure(id: u64, status in 1u16..0xfffe) {
        let raw = RawResponse { id, status, ..RawResponse::default() };
        let operation = Operation::Read;
        prop_assert_eq!(raw.check(), Ok(Response { id, operation, status: Status::Error }));
    }
}

fn one_sector(op: RwOp) -> Request {
    let part = Segment::new(GrantRef(9), 0, 0).unwrap();
    let segments = Segments::Direct(SegmentArray::new(&[part]).unwrap());
    Request::Rw(Rw { id: 7, op, handle: 0, sector: 0, segments })
}

#[test]
fn a_refusal_says_how_to_answer() {
    let slot = |operation, nr_segments| RawRequest {
        operation,
        nr_segments,
        id: 5,
        ..RawRequest::default()
    };
    let refused = |slot: RawRequest, limit| slot.check(limit).unwrap_err();

    let unknown = refused(slot(4, 1), 0);
    assert_eq!(
        (unknown.problem, unknown.status()),
        (Problem::UnknownOperation(4), Status::NotSupported)
    );
    assert_eq!(unknown.tag, Tag { id: 5, operation: 4 });

    let many = refused(slot(1, 12), 0);
    assert_eq!(
        (many.problem, many.status()),
        (Problem::SegmentCount { count: 12, limit: 11 }, Status::Error)
    );
    assert_eq!(refused(slot(0, 0), 0).problem, Problem::SegmentCount { count: 0, limit: 11 });

    let indirect =
        RawIndirect { operation: 6, indirect_op: 1, nr_segments: 12, id: 5, ..Default::default() };
    let not_offered = refused(indirect.into(), 0);
    assert_eq!(not_offered.problem, Problem::NotOffered(Operation::Indirect));
    assert_eq!((not_offered.tag.operation, not_offered.status()), (1, Status::NotSupported));
    assert_eq!(
        refused(indirect.into(), 11).problem,
        Problem::SegmentCount { count: 12, limit: 11 }
    );
    let flush = RawIndirect { indirect_op: 3, ..indirect };
    assert_eq!(refused(flush.into(), 256).problem, Problem::IndirectOperation(3));
    assert_eq!(
        std::format!("{}", refused(flush.into(), 256)),
        "request 0x5 refused: operation 3 cannot be indirect"
    );
}

#[test]
fn a_flush_may_carry_data_and_a_barrier_may_carry_none() {
    let flush = RawRequest { operation: 3, ..RawRequest::default() };
    assert_eq!(flush.check(0), Ok(Request::Flush { id: 0, barrier: false }));
    let barrier = RawRequest { operation: 2, ..RawRequest::default() };
    assert_eq!(barrier.check(0), Ok(Request::Flush { id: 0, barrier: true }));
    let data = RawRequest { operation: 3, nr_segments: 1, ..RawRequest::default() };
    assert!(matches!(data.check(0), Ok(Request::Rw(Rw { op: RwOp::FlushWrite, .. }))));
}

#[test]
fn the_disk_refuses_what_it_did_not_offer() {
    let part = [Segment::new(GrantRef(9), 0, 7).unwrap()];
    let disk = Disk {
        capacity: 64,
        logical: 512,
        read_only: false,
        flush: false,
        barrier: false,
        discard: false,
    };
    let barrier = disk.check_rw(RwOp::WriteBarrier, 0, &part).unwrap_err();
    assert_eq!(barrier, Problem::NotOffered(Operation::WriteBarrier));
    assert_eq!(disk.check_flush(false).unwrap_err().status(), Status::NotSupported);
    let discard = Discard { id: 0, handle: 0, sector: 0, count: 8, secure: false };
    assert_eq!(disk.check_discard(&discard), Err(Problem::NotOffered(Operation::Discard)));

    let read_only = Disk { read_only: true, discard: true, ..disk };
    let refused = read_only.check_rw(RwOp::Write, 0, &part).unwrap_err();
    assert_eq!((refused, refused.status()), (Problem::ReadOnly(Operation::Write), Status::Error));
    assert_eq!(read_only.check_discard(&discard), Err(Problem::ReadOnly(Operation::Discard)));
    assert_eq!(read_only.check_rw(RwOp::Read, 56, &part), Ok(8));
    assert_eq!(
        read_only.check_rw(RwOp::Read, 57, &part),
        Err(Problem::BeyondEnd { sector: 57, count: 8, capacity: 64 })
    );
    let wide = Disk { logical: 4096, ..disk };
    let odd = [part[0], Segment::new(GrantRef(9), 0, 6).unwrap()];
    let refused = wide.check_rw(RwOp::Read, 0, &odd).unwrap_err();
    assert_eq!(refused, Problem::UnalignedSegment { first: 0, last: 6, logical: 4096 });
}

#[test]
fn both_ends_speak_each_layout() {
    for (abi, slots) in [(Abi::X86_64, 32), (Abi::X86_32, 32)] {
        let page = Local::new(PAGE_SIZE);
        let mut front = FrontRing::new(page.clone(), abi).unwrap();
        let mut back = BackRing::attach(page, abi, 0).unwrap();
        assert_eq!((front.size(), back.size()), (slots, slots));
        for round in 0..3 * slots {
            let request = one_sector(if round % 2 == 0 { RwOp::Read } else { RwOp::Write });
            front.push(&request).unwrap();
            assert!(front.publish());
            assert_eq!(back.pop().unwrap(), Some(Ok(request)));
            assert!(!back.final_check().unwrap());
            back.push(request.tag(), Status::Error).unwrap();
            assert!(back.publish());
            let response = front.pop().unwrap().unwrap().unwrap();
            assert_eq!((response.id, response.status), (7, Status::Error));
            assert_eq!(response.operation as u8, request.tag().operation);
            assert!(!front.final_check().unwrap());
        }
    }
}

#[test]
fn a_bad_request_is_handed_out_and_an_overflow_ends_the_ring() {
    let page = Local::new(PAGE_SIZE);
    let mut front = FrontRing::new(page.clone(), Abi::NATIVE).unwrap();
    let mut back = BackRing::attach(page.clone(), Abi::NATIVE, 0).unwrap();
    front.push(&one_sector(RwOp::Read)).unwrap();
    page.copy_in(64, &[99]);
    let _ = front.publish();
    let bad = back.pop().unwrap().unwrap().unwrap_err();
    assert_eq!(bad.tag, Tag { id: 7, operation: 99 });
    back.push(bad.tag, bad.status()).unwrap();
    let _ = back.publish();
    assert_eq!(front.pop().unwrap(), Some(Err(BadResponse { id: 7, operation: 99 })));
    page.store(0, 40);
    assert!(matches!(back.pop(), Err(RingError::Overflow { producer: 40, .. })));
}

#[test]
fn the_protocol_key_names_the_layout() {
    assert_eq!(Abi::from_protocol("x86_64-abi"), Some(Abi::X86_64));
    assert_eq!(Abi::from_protocol("x86_32-abi"), Some(Abi::X86_32));
    assert_eq!(Abi::from_protocol("x86-abi"), None);
    assert_eq!(Abi::from_protocol(Abi::NATIVE.protocol()), Some(Abi::NATIVE));
}

#[test]
fn a_discard_lies_where_c_has_it() {
    let request =
        Request::Discard(Discard { id: 0x11, handle: 3, sector: 0x22, count: 0x33, secure: true });
    let slot = RawRequest::from(&request);
    let bytes = bytes_of(&slot);
    assert_eq!(
        (bytes[0], bytes[1], bytes[2], bytes[8], bytes[16], bytes[24]),
        (5, 1, 3, 0x11, 0x22, 0x33)
    );
    let narrow = RawRequest32::from(slot);
    let bytes = bytes_of(&narrow);
    assert_eq!(
        (bytes[0], bytes[1], bytes[2], bytes[4], bytes[12], bytes[20]),
        (5, 1, 3, 0x11, 0x22, 0x33)
    );
}
