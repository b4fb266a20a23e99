// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be done to a backend, each with a name.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ring_proto::blkif::{Abi, Discard, Operation, RawIndirect, RawRequest, Request, Status};
use ring_proto::shared::{SharedMemory, bytes_of, from_bytes, zeroed};
use ring_proto::xen::grant_table::NR_RESERVED_ENTRIES;
use ring_proto::xenbus::State;

use crate::front::{Front, Outcome, SLOTS, Shared};
use crate::random::Random;

/// An attack.
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    run: fn(&mut Front, &mut Random) -> anyhow::Result<Outcome>,
}

impl Attack {
    /// Does it, once. Returns how the backend took it.
    ///
    /// # Errors
    ///
    /// When the backend does not even do what it should before.
    pub fn run(&self, front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
        (self.run)(front, random)
    }
}

/// All of them.
pub const ATTACKS: [Attack; 16] = [
    Attack { name: "garbage", about: "slots of any bytes", run: garbage },
    Attack { name: "ahead", about: "a producer index that the ring has no room for", run: ahead },
    Attack { name: "behind", about: "a producer index that goes back", run: behind },
    Attack {
        name: "segments",
        about: "0, 12, 255 segments; indirect: 0, 257, 65535",
        run: segments,
    },
    Attack { name: "sectors", about: "sector ranges beyond page, disk and number", run: sectors },
    Attack { name: "grants", about: "references of pages that are not granted", run: grants },
    Attack { name: "indirect", about: "indirect pages of any bytes", run: indirect },
    Attack { name: "revoke", about: "grants that end while they are in use", run: revoke },
    Attack { name: "events", about: "the doorbell, all the time, for nothing", run: events },
    Attack { name: "keys", about: "any bytes in each key of the handshake", run: keys },
    Attack { name: "states", about: "states in any order, and the doorbell", run: states },
    Attack { name: "hasty", about: "other rings while the backend is connecting some", run: hasty },
    Attack { name: "rare", about: "what few frontends ask for, offered or not", run: rare },
    Attack { name: "narrow", about: "the ring of a frontend of 32 bits", run: narrow },
    Attack { name: "write", about: "all that changes data, on a disk of either kind", run: write },
    Attack { name: "whole", about: "one discard of the whole disk, whatever its size", run: whole },
];

/// A legal request of one page.
fn request(shared: &Shared, random: &mut Random, operation: Operation) -> RawRequest {
    let mut raw = RawRequest {
        operation: operation as u8,
        nr_segments: 1,
        id: random.any(),
        sector_number: random.below((shared.geometry.sectors / 8).max(1)) * 8,
        ..zeroed()
    };
    raw.seg[0] = shared.segment(random.below(16) as usize);
    raw
}

fn any_data_operation(random: &mut Random) -> Operation {
    *random.one_of(&[Operation::Read, Operation::Write])
}

fn garbage(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for _ in 0..=random.below(u64::from(SLOTS)) {
        let mut raw: RawRequest =
            from_bytes(&random.bytes(size_of::<RawRequest>())).context("a slot")?;
        if random.below(2) == 0 {
            raw.operation = random.below(8) as u8;
        }
        shared.ask(&raw);
    }
    shared.ring()?;
    front.answers()
}

fn ahead(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    let far = [SLOTS + 1, 1 << 16, 1 << 31, u32::MAX];
    shared.produced = *random.one_of(&far);
    shared.ring()?;
    front.outcome()
}

fn behind(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for _ in 0..16 {
        let raw = request(shared, random, Operation::Read);
        shared.ask(&raw);
    }
    shared.ring()?;
    if front.outcome()? == Outcome::Answered {
        let shared = front.shared.as_mut().context("connected")?;
        shared.produced -= 1 + random.below(16) as u32;
        shared.ring()?;
    }
    front.outcome()
}

fn segments(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for count in [0, 12, 13, 127, 255] {
        let operation = any_data_operation(random);
        let mut raw = request(shared, random, operation);
        raw.nr_segments = count;
        shared.ask(&raw);
    }
    for count in [0, 257, 512, 513, 4096, u16::MAX] {
        let mut raw = RawIndirect {
            operation: Operation::Indirect as u8,
            indirect_op: *random.one_of(&[0, 1, 2, 3, 5, 6, 255]),
            nr_segments: count,
            id: random.any(),
            ..zeroed()
        };
        for (page, gref) in raw.indirect_grefs.iter_mut().enumerate() {
            *gref = shared.gref(page);
        }
        shared.ask(&raw.into());
    }
    shared.ring()?;
    front.answers()
}

fn sectors(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for _ in 0..SLOTS {
        let operation = *random.one_of(&[Operation::Read, Operation::Write, Operation::Discard]);
        let mut raw = request(shared, random, operation);
        match random.below(3) {
            0 => raw.sector_number = random.nasty(),
            1 => raw.sector_number = shared.geometry.sectors.wrapping_sub(random.below(9)),
            _ => {
                raw.seg[0].first_sect = random.nasty() as u8;
                raw.seg[0].last_sect = random.nasty() as u8;
            }
        }
        if operation == Operation::Discard {
            let (id, sector) = (raw.id, raw.sector_number);
            let count = if random.below(2) == 0 { 8 } else { random.nasty() };
            let discard = Discard { id, handle: 0, sector, count, secure: false };
            raw = RawRequest::from(&Request::Discard(discard));
        }
        shared.ask(&raw);
    }
    shared.ring()?;
    front.answers()
}

fn grants(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for _ in 0..SLOTS {
        let operation = any_data_operation(random);
        let mut raw = request(shared, random, operation);
        raw.nr_segments = 1 + random.below(11) as u8;
        for segment in &mut raw.seg {
            *segment = shared.segment(random.below(16) as usize);
            // Those below are granted: the rings of the console and of xenstore. To read into them is to wait for one's own
            // xenstore for ever; to read into this ring, to ask for anything.
            let gref = (random.nasty() as u32).max(NR_RESERVED_ENTRIES);
            if random.below(2) == 0 && !shared.is_ring(gref) {
                segment.gref = gref;
            }
        }
        shared.ask(&raw);
    }
    shared.ring()?;
    front.answers()
}

fn indirect(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for page in 0..8 {
        let bytes = random.bytes(4096);
        if let Some(data) = &shared.data {
            data.copy_in(page * 4096, &bytes);
            // Some of them legal.
            for at in 0..random.below(512) as usize {
                data.copy_in(page * 4096 + at * 8, bytes_of(&shared.segment(8 + at % 8)));
            }
        }
    }
    for _ in 0..SLOTS {
        let mut raw = RawIndirect {
            operation: Operation::Indirect as u8,
            indirect_op: any_data_operation(random) as u8,
            nr_segments: 1 + random.below(256) as u16,
            id: random.any(),
            sector_number: random.below(shared.geometry.sectors.max(1)),
            ..zeroed()
        };
        for gref in &mut raw.indirect_grefs {
            *gref = match random.below(8) {
                0 => random.nasty() as u32,
                _ => shared.gref(random.below(8) as usize),
            };
        }
        shared.ask(&raw.into());
    }
    shared.ring()?;
    front.answers()
}

fn revoke(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for _ in 0..SLOTS {
        let operation = any_data_operation(random);
        let raw = request(shared, random, operation);
        shared.put(&raw);
    }
    shared.ring()?;
    std::thread::sleep(Duration::from_micros(random.below(2000)));
    shared.data = None;
    front.outcome()
}

fn events(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    for number in 0..20_000 {
        shared.notify()?;
        if number % 1000 == 0 {
            let raw = request(shared, random, Operation::Read);
            shared.ask(&raw);
            shared.ring()?;
        }
    }
    front.answers()
}

/// The keys that a frontend writes.
const KEYS: [&str; 10] = [
    "ring-ref",
    "ring-ref0",
    "ring-page-order",
    "event-channel",
    "protocol",
    "feature-persistent",
    "multi-queue-num-queues",
    "queue-0/ring-ref",
    "queue-0/event-channel",
    "queue-1/ring-ref",
];

fn keys(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    front.publish_twisted(|store, path| {
        for _ in 0..=random.below(3) {
            let key = format!("{path}/{}", random.one_of(&KEYS));
            match random.below(4) {
                0 => store.write(&key, random.nasty().to_string())?,
                1 => store.write(&key, format!("-{}", random.nasty()))?,
                2 => {
                    let len = random.below(64) as usize;
                    store.write(&key, random.bytes(len))?;
                }
                // There may be none.
                _ => drop(store.rm(&key)),
            }
        }
        Ok(())
    })?;
    // Some of it is legal all the same, and some is none of the backend's business.
    let state = front.await_peer(|state| state != State::InitWait)?;
    Ok(if state == State::Connected { Outcome::Answered } else { Outcome::Closed })
}

/// Begins anew while the backend is about to connect it. Not even wrong: whoever is connected in the end is served.
fn hasty(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Closed;
    for _ in 0..8 {
        front.publish_twisted(|_, _| Ok(()))?;
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        front.publish_anew()?;
        let state = front.await_peer(|state| state != State::InitWait)?;
        if state == State::Connected {
            front.write_state(State::Connected)?;
            let shared = front.shared.as_mut().context("published")?;
            let raw = request(shared, random, Operation::Read);
            shared.put(&raw);
            shared.ring()?;
            outcome = front.outcome()?;
            ensure!(!matches!(outcome, Outcome::Silent { .. }), "connected, and not served");
        }
    }
    Ok(outcome)
}

/// Barriers, a flush that carries data and a secure discard, one after the other. Legal: each is done if it was offered,
/// and refused as nothing that this backend has if not.
fn rare(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    let offered = shared.offered;
    let secure = shared.geometry.discard.is_some_and(|discard| discard.secure);
    let barrier =
        RawRequest { sector_number: 8, ..request(shared, random, Operation::WriteBarrier) };
    let flush =
        RawRequest { sector_number: 16, ..request(shared, random, Operation::FlushDiskcache) };
    let discard = Discard { id: random.any(), handle: 0, sector: 8, count: 16, secure: true };
    for (index, (raw, offered)) in (0..).zip([
        (barrier, offered.barrier),
        (flush, offered.flush_cache),
        (RawRequest { nr_segments: 0, ..barrier }, offered.barrier),
        (RawRequest::from(&Request::Discard(discard)), secure),
    ]) {
        let shared = front.shared.as_mut().context("connected")?;
        shared.put(&raw);
        shared.ring()?;
        let outcome = front.outcome()?;
        if outcome != Outcome::Answered {
            return Ok(outcome);
        }
        let answer = front.shared.as_ref().context("connected")?.answer(index);
        let status = if offered { Status::Okay } else { Status::NotSupported };
        ensure!(
            Status::from_raw(answer.status as i16) == Some(status),
            "operation {}, which was {}offered, has {answer:?}",
            raw.operation,
            if offered { "" } else { "not " },
        );
    }
    Ok(Outcome::Answered)
}

/// What a frontend of 32 bits writes, it reads again. Legal: the slots are others.
fn narrow(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    front.abi = Abi::X86_32;
    let outcome = narrow_pages(front, random);
    front.abi = Abi::NATIVE;
    outcome
}

fn narrow_pages(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    front.connect()?;
    let (written, mut read) = (random.bytes(4096), vec![0; 4096]);
    for (index, operation) in [(0, Operation::Write), (1, Operation::Read)] {
        let shared = front.shared.as_mut().context("connected")?;
        let data = shared.data.as_ref().context("granted")?;
        data.copy_in(index as usize * 4096, if index == 0 { &written } else { &read });
        let mut raw = RawRequest { sector_number: 8, ..request(shared, random, operation) };
        raw.seg[0] = shared.segment(index as usize);
        shared.put_narrow(&raw);
        shared.ring()?;
        let outcome = front.outcome()?;
        if outcome != Outcome::Answered {
            return Ok(outcome);
        }
        let answer = front.shared.as_ref().context("connected")?.answer_narrow(index);
        ensure!(answer.id == raw.id && answer.status == 0, "{operation} has {answer:?}");
    }
    let data = front.shared.as_ref().and_then(|shared| shared.data.as_ref());
    data.context("granted")?.copy_out(4096, &mut read);
    ensure!(written == read, "what was written is not what is read");
    Ok(Outcome::Answered)
}

/// Writes of every kind, a discard and one that is to be secure. A disk that is only to be read has the data of before
/// afterwards, each other one what was written.
fn write(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    const BEFORE: usize = 0;
    const WRITTEN: usize = 1;
    const AFTER: usize = 2;
    const DESCRIPTORS: usize = 3;
    front.connect()?;
    ask_pages(front, random, &[(Operation::Read, BEFORE)])?;
    let shared = front.shared.as_mut().context("connected")?;
    let data = shared.data.as_ref().context("granted")?;
    data.copy_in(WRITTEN * 4096, &random.bytes(4096));
    data.copy_in(DESCRIPTORS * 4096, bytes_of(&shared.segment(WRITTEN)));
    let mut indirect = RawIndirect {
        operation: Operation::Indirect as u8,
        indirect_op: Operation::Write as u8,
        nr_segments: 1,
        id: random.any(),
        ..zeroed()
    };
    indirect.indirect_grefs[0] = shared.gref(DESCRIPTORS);
    shared.ask(&indirect.into());
    for secure in [false, true] {
        let discard = Discard { id: random.any(), handle: 0, sector: 8, count: 16, secure };
        shared.ask(&RawRequest::from(&Request::Discard(discard)));
    }
    let writes = [Operation::Write, Operation::WriteBarrier, Operation::FlushDiskcache];
    ask_pages(front, random, &writes.map(|operation| (operation, WRITTEN)))?;
    let outcome = ask_pages(front, random, &[(Operation::Read, AFTER)])?;

    let shared = front.shared.as_ref().context("connected")?;
    let page = |number: usize| -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        shared.data.as_ref().context("granted")?.copy_out(number * 4096, &mut bytes);
        Ok(bytes)
    };
    let (kind, wanted) = match shared.geometry.read_only {
        true => ("that is only to be read", BEFORE),
        false => ("that may be written", WRITTEN),
    };
    ensure!(page(AFTER)? == page(wanted)?, "the data of a disk {kind} are wrong after writes");
    Ok(outcome)
}

/// More than 4 GiB are more than one operation of Linux's block layer can say. Legal: it is done, or not offered.
fn whole(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    let shared = front.connect()?;
    let offered = shared.geometry.discard.is_some();
    let (id, count) = (random.any(), shared.geometry.sectors);
    let discard = Discard { id, handle: 0, sector: 0, count, secure: false };
    shared.ask(&RawRequest::from(&Request::Discard(discard)));
    shared.ring()?;
    let outcome = front.answers()?;
    let answer = front.shared.as_ref().context("connected")?.answer(0);
    let done = Status::from_raw(answer.status as i16) == Some(Status::Okay);
    ensure!(done == offered, "a discard of {count} sectors has {answer:?}");
    Ok(outcome)
}

/// Reads or writes the first page of the disk, out of or into pages of data, and waits for all answers.
fn ask_pages(
    front: &mut Front,
    random: &mut Random,
    asks: &[(Operation, usize)],
) -> anyhow::Result<Outcome> {
    let shared = front.shared.as_mut().context("connected")?;
    for (operation, page) in asks {
        let mut raw = RawRequest { sector_number: 0, ..request(shared, random, *operation) };
        raw.seg[0] = shared.segment(*page);
        shared.ask(&raw);
    }
    shared.ring()?;
    front.answers()
}

/// How long a backend may take until its state is that of what a frontend did last.
const SETTLE: Duration = Duration::from_millis(200);

fn states(front: &mut Front, random: &mut Random) -> anyhow::Result<Outcome> {
    front.connect()?;
    for _ in 0..16 {
        let raw = random.below(9);
        if let Some(state) = State::from_raw(raw).filter(|state| *state != State::Unknown) {
            front.write_state(state)?;
        }
        let end = Instant::now() + Duration::from_millis(random.below(20));
        while Instant::now() < end {
            // The backend may be closing the channel at this moment, or has.
            let _ = front.shared.as_ref().map(Shared::notify);
        }
    }
    front.write_state(State::Closed)?;
    // In InitWait it may be about to connect rings of before: a frontend that begins anew at that moment has to begin once
    // more.
    std::thread::sleep(SETTLE);
    front.await_peer(|state| matches!(state, State::Closed | State::InitWait))?;
    Ok(Outcome::Closed)
}

/// A disk serves a frontend that keeps the rules, whatever was before.
///
/// # Errors
///
/// When it does not.
pub fn probe(front: &mut Front, random: &mut Random) -> anyhow::Result<()> {
    let shared = front.connect()?;
    let raw = request(shared, random, Operation::Read);
    shared.put(&raw);
    shared.ring()?;
    let outcome = front.outcome()?;
    let shared = front.shared.as_ref().context("connected")?;
    let answer = shared.answer(0);
    anyhow::ensure!(
        outcome == Outcome::Answered && answer.id == raw.id && answer.status == 0,
        "a legal read is {outcome:?}, with {answer:?}"
    );
    Ok(())
}
