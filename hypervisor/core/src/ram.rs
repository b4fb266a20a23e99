// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine made of vectors, for tests.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU32, Ordering};

use ring_proto::xen::grant_table::{EntryV1, GTF_PERMIT_ACCESS};
use ring_proto::xen::{DomId, GrantRef, Port};

use crate::machine::{FrameUse, Gfn, Machine, Mfn, PAGE_SIZE, Writable};
use crate::{DomainConfig, DomainKind, Hypervisor};

/// Memory, and a record of what the hypervisor did to the machine.
pub(crate) struct Ram {
    frames: BTreeMap<Mfn, Box<[AtomicU32]>>,
    next: u64,
    /// Frames that are left.
    pub(crate) left: u64,
    /// Words that a guest writes just before the hypervisor changes one, one each time.
    pub(crate) races: RefCell<VecDeque<(Mfn, usize, u32)>>,
    pub(crate) rung: Vec<(DomId, Port)>,
    pub(crate) upcalls: Vec<(DomId, u32)>,
    pub(crate) mapped: BTreeMap<(DomId, Gfn), (Mfn, Writable)>,
}

impl Ram {
    pub(crate) fn new(frames: u64) -> Self {
        Self {
            frames: BTreeMap::new(),
            next: 0x100,
            left: frames,
            races: RefCell::default(),
            rung: Vec::new(),
            upcalls: Vec::new(),
            mapped: BTreeMap::new(),
        }
    }

    /// Frames in use.
    pub(crate) fn used(&self) -> usize {
        self.frames.len()
    }

    #[track_caller]
    fn word(&self, mfn: Mfn, offset: usize) -> &AtomicU32 {
        assert_eq!(offset % 4, 0);
        &self.frames.get(&mfn).expect("the frame is in use")[offset / 4]
    }

    fn race(&self) {
        if let Some((mfn, offset, value)) = self.races.borrow_mut().pop_front() {
            self.store(mfn, offset, value);
        }
    }

    pub(crate) fn byte(&self, mfn: Mfn, offset: usize) -> u8 {
        self.load(mfn, offset & !3).to_le_bytes()[offset & 3]
    }

    pub(crate) fn set_byte(&self, mfn: Mfn, offset: usize, value: u8) {
        let mut bytes = self.load(mfn, offset & !3).to_le_bytes();
        bytes[offset & 3] = value;
        self.store(mfn, offset & !3, u32::from_le_bytes(bytes));
    }
}

impl Machine for Ram {
    fn allocate(&mut self, _owner: DomId, _usage: FrameUse) -> Option<Mfn> {
        self.left = self.left.checked_sub(1)?;
        let mfn = Mfn(self.next);
        self.next += 1;
        self.frames.insert(mfn, (0..PAGE_SIZE / 4).map(|_| AtomicU32::new(0)).collect());
        Some(mfn)
    }

    fn free(&mut self, mfn: Mfn) {
        let frame = self.frames.remove(&mfn).expect("the frame is in use");
        assert!(frame.iter().all(|word| word.load(Ordering::Relaxed) == 0), "freed with contents");
        self.left += 1;
    }

    fn load(&self, mfn: Mfn, offset: usize) -> u32 {
        self.word(mfn, offset).load(Ordering::SeqCst)
    }

    fn store(&self, mfn: Mfn, offset: usize, value: u32) {
        self.word(mfn, offset).store(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, mfn: Mfn, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        self.race();
        self.word(mfn, offset).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_or(&self, mfn: Mfn, offset: usize, bits: u32) -> u32 {
        self.race();
        self.word(mfn, offset).fetch_or(bits, Ordering::SeqCst)
    }

    fn fetch_and(&self, mfn: Mfn, offset: usize, bits: u32) -> u32 {
        self.race();
        self.word(mfn, offset).fetch_and(bits, Ordering::SeqCst)
    }

    fn copy(&self, source: (Mfn, usize), dest: (Mfn, usize), len: usize) {
        assert!(source.1 + len <= PAGE_SIZE && dest.1 + len <= PAGE_SIZE);
        let bytes: Vec<u8> = (0..len).map(|at| self.byte(source.0, source.1 + at)).collect();
        for (at, byte) in bytes.into_iter().enumerate() {
            self.set_byte(dest.0, dest.1 + at, byte);
        }
    }

    fn zero(&self, mfn: Mfn) {
        for word in self.frames.get(&mfn).expect("the frame is in use") {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn ring(&mut self, domain: DomId, port: Port) {
        self.rung.push((domain, port));
    }

    fn upcall(&mut self, domain: DomId, vcpu: u32) {
        self.upcalls.push((domain, vcpu));
    }

    fn remap(&mut self, domain: DomId, gfn: Gfn, frame: Option<(Mfn, Writable)>) {
        match frame {
            Some(frame) => self.mapped.insert((domain, gfn), frame),
            None => self.mapped.remove(&(domain, gfn)),
        };
    }
}

pub(crate) const A: DomId = DomId(1);
pub(crate) const B: DomId = DomId(2);
pub(crate) const C: DomId = DomId(3);

/// Three processes with eight frames each.
pub(crate) fn processes() -> Hypervisor<Ram> {
    domains(DomainKind::Process)
}

/// Three domains with eight frames each.
pub(crate) fn domains(kind: DomainKind) -> Hypervisor<Ram> {
    let mut hypervisor = Hypervisor::new(Ram::new(1000));
    for id in [A, B, C] {
        hypervisor.create_domain(id, &DomainConfig::new(kind, 8)).expect("there is room");
    }
    hypervisor
}

/// As `owner`, writes an entry of version 1.
pub(crate) fn write_v1(hypervisor: &Hypervisor<Ram>, owner: DomId, gref: u32, entry: EntryV1) {
    let table = hypervisor.domains[&owner].grants.shared[(gref / 512) as usize];
    let offset = (gref % 512 * 8) as usize;
    hypervisor.machine.store(table, offset + 4, entry.frame);
    hypervisor.machine.store(table, offset, u32::from(entry.flags) | u32::from(entry.domid) << 16);
}

/// As `owner`, grants a frame.
pub(crate) fn grant_v1(
    hypervisor: &Hypervisor<Ram>,
    owner: DomId,
    gref: u32,
    to: DomId,
    gfn: u32,
    flags: u16,
) -> GrantRef {
    let entry = EntryV1 { flags: GTF_PERMIT_ACCESS | flags, domid: to.0, frame: gfn };
    write_v1(hypervisor, owner, gref, entry);
    GrantRef(gref)
}

/// As `owner`, reads the flags of an entry of version 1.
pub(crate) fn flags_v1(hypervisor: &Hypervisor<Ram>, owner: DomId, gref: u32) -> u16 {
    let table = hypervisor.domains[&owner].grants.shared[(gref / 512) as usize];
    hypervisor.machine.load(table, (gref % 512 * 8) as usize) as u16
}

/// As `owner`, writes an entry of version 2: the header last, as a guest does.
pub(crate) fn write_v2(hypervisor: &Hypervisor<Ram>, owner: DomId, gref: u32, words: [u32; 4]) {
    let table = hypervisor.domains[&owner].grants.shared[(gref / 256) as usize];
    let offset = (gref % 256 * 16) as usize;
    for index in [1, 2, 3, 0] {
        hypervisor.machine.store(table, offset + index * 4, words[index]);
    }
}

/// As `owner`, grants a frame in an entry of version 2.
pub(crate) fn grant_v2(
    hypervisor: &Hypervisor<Ram>,
    owner: DomId,
    gref: u32,
    to: DomId,
    gfn: u32,
    flags: u16,
) -> GrantRef {
    let header = u32::from(GTF_PERMIT_ACCESS | flags) | u32::from(to.0) << 16;
    write_v2(hypervisor, owner, gref, [header, 0, gfn, 0]);
    GrantRef(gref)
}

/// As `owner`, reads the status of an entry of version 2.
pub(crate) fn status_v2(hypervisor: &Hypervisor<Ram>, owner: DomId, gref: u32) -> u16 {
    let page = hypervisor.domains[&owner].grants.status[(gref / 2048) as usize];
    let offset = (gref % 2048 * 2) as usize;
    u16::from(hypervisor.machine.byte(page, offset))
        | u16::from(hypervisor.machine.byte(page, offset + 1)) << 8
}
