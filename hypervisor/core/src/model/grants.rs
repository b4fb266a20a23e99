// SPDX-License-Identifier: MIT OR Apache-2.0

//! Grants against a model: what an entry allows, what stays mapped, what the granter sees, and how long frames live.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use ring_proto::xen::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK,
    GTF_WRITING, GrantError,
};
use ring_proto::xen::{DomId, Errno, GrantRef};

use super::{FRAMES, check, config, domid, end};
use crate::grant::{CopyEnd, Handle, MapGrant};
use crate::machine::{FrameUse, Gfn, Machine, Mfn, PAGE_SIZE};
use crate::ram::{Ram, status_v2, write_v1, write_v2};
use crate::{DomainKind, Hypervisor};

const GREFS: u32 = 12;

/// What a granter writes. Its meaning depends on the version of its table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    flags: u16,
    domid: u16,
    /// Begin and length of the part, or the domain that granted.
    part: (u16, u16),
    /// The frame, or that domain's reference.
    frame: u32,
}

#[derive(Clone, Debug)]
enum Op {
    Create(u8, bool),
    Destroy(u8),
    Version(u8, u32),
    Write(u8, u32, Entry),
    Swap(u8, u32, u32),
    Map { caller: u8, granter: u8, gref: u32, readonly: bool, gfn: u64 },
    Unmap { caller: u8, handle: u32, gfn: u64 },
    Copy { caller: u8, source: (End, u16), dest: (End, u16), len: u16 },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Grant(u8, u32),
    Own(u64),
}

fn entry() -> impl Strategy<Value = Entry> {
    let flags = prop_oneof![
        6 => Just(GTF_PERMIT_ACCESS),
        2 => Just(GTF_PERMIT_ACCESS | GTF_READONLY),
        1 => Just(GTF_PERMIT_ACCESS | GTF_SUB_PAGE),
        2 => Just(GTF_TRANSITIVE),
        1 => any::<u16>(),
    ];
    let part = prop_oneof![Just((1u16, 8u16)), Just((2, 0)), (any::<u16>(), any::<u16>())];
    (flags, 0..4u16, part, 0..5u32).prop_map(|(flags, domid, part, frame)| {
        // The frame of a transitive entry is a reference of the domain in `part`.
        Entry { flags, domid, part, frame }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let (domain, gref, gfn) = (|| 0..3u8, || 0..GREFS + 1, || 3..8u64);
    let end = || {
        prop_oneof![
            3 => (domain(), gref()).prop_map(|(domain, gref)| End::Grant(domain, gref)),
            1 => (0..5u64).prop_map(End::Own),
        ]
    };
    let offset = || prop_oneof![4 => 0..8u16, 1 => any::<u16>()];
    let len = prop_oneof![4 => 0..8u16, 1 => any::<u16>()];
    prop_oneof![
        1 => (domain(), any::<bool>()).prop_map(|(domain, pvh)| Op::Create(domain, pvh)),
        1 => domain().prop_map(Op::Destroy),
        2 => (domain(), 0..4u32).prop_map(|(domain, version)| Op::Version(domain, version)),
        12 => (domain(), 0..GREFS, entry())
            .prop_map(|(domain, gref, entry)| Op::Write(domain, gref, entry)),
        2 => (domain(), gref(), gref()).prop_map(|(domain, a, b)| Op::Swap(domain, a, b)),
        16 => (domain(), domain(), gref(), any::<bool>(), gfn()).prop_map(
            |(caller, granter, gref, readonly, gfn)| {
                Op::Map { caller, granter, gref, readonly, gfn }
            }
        ),
        8 => (domain(), 0..5u32, gfn())
            .prop_map(|(caller, handle, gfn)| Op::Unmap { caller, handle, gfn }),
        12 => (domain(), (end(), offset()), (end(), offset()), len)
            .prop_map(|(caller, source, dest, len)| Op::Copy { caller, source, dest, len }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    handle: u32,
    caller: DomId,
    granter: DomId,
    gref: u32,
    readonly: bool,
    mfn: Mfn,
}

#[derive(Debug)]
struct Domain {
    kind: DomainKind,
    version: u32,
    /// Its memory, by guest frame.
    frames: Vec<Mfn>,
    /// Where it mapped what.
    placed: BTreeMap<u64, (Mfn, bool)>,
    /// What stands in its table, the flags of use included in both versions.
    entries: BTreeMap<u32, Entry>,
}

/// What lives, and all that is mapped.
#[derive(Debug, Default)]
struct Model {
    domains: BTreeMap<DomId, Domain>,
    mappings: Vec<Mapping>,
}

const USE: u16 = GTF_READING | GTF_WRITING;
const REFUSED: GrantError = GrantError::GeneralError;

impl Model {
    fn of(&self, granter: DomId, gref: u32) -> Vec<Mapping> {
        let of = |it: &&Mapping| it.granter == granter && it.gref == gref;
        self.mappings.iter().filter(of).copied().collect()
    }

    /// How many entries a table has; it never grows here.
    fn entries(&self, id: DomId) -> u32 {
        if self.domains[&id].version == 1 { 512 } else { 256 }
    }

    fn entry(&mut self, id: DomId, gref: u32) -> &mut Entry {
        self.domains.get_mut(&id).unwrap().entries.entry(gref).or_default()
    }

    /// Flags of use that the mappings of an entry need.
    fn reduce(&mut self, granter: DomId, gref: u32, readonly: bool) {
        let mappings = self.of(granter, gref);
        if !self.domains.contains_key(&granter) {
            return;
        }
        let entry = self.entry(granter, gref);
        if mappings.is_empty() {
            entry.flags &= !GTF_READING;
        }
        if !readonly && mappings.iter().all(|it| it.readonly) {
            entry.flags &= !GTF_WRITING;
        }
    }

    /// Whether an entry allows a use that its present mappings do not cover, and marks it.
    fn pin(
        &mut self,
        caller: DomId,
        (granter, gref): (DomId, u32),
        readonly: bool,
        copy: bool,
    ) -> Result<Entry, GrantError> {
        let pinned = !self.of(granter, gref).is_empty();
        let version = self.domains[&granter].version;
        let entry = self.entry(granter, gref);
        let kind = entry.flags & GTF_TYPE_MASK;
        let whole = copy || entry.flags & GTF_SUB_PAGE == 0;
        let right_kind =
            kind == GTF_PERMIT_ACCESS && whole || copy && version == 2 && kind == GTF_TRANSITIVE;
        if !(pinned || right_kind && entry.domid == caller.0)
            || !readonly && entry.flags & GTF_READONLY != 0
        {
            return Err(REFUSED);
        }
        entry.flags |= if readonly { GTF_READING } else { USE };
        Ok(*entry)
    }

    fn map(
        &mut self,
        caller: DomId,
        granter: DomId,
        gref: u32,
        readonly: bool,
        gfn: u64,
    ) -> Result<Mfn, GrantError> {
        if !self.domains.contains_key(&caller) || !self.domains.contains_key(&granter) {
            return Err(GrantError::BadDomain);
        }
        if gref >= self.entries(granter) {
            return Err(GrantError::BadGntref);
        }
        let mappings = self.of(granter, gref);
        if mappings.iter().any(|it| it.caller != caller) {
            return Err(REFUSED);
        }
        let covered = !mappings.is_empty() && (readonly || mappings.iter().any(|it| !it.readonly));
        let frame =
            if covered { 0 } else { self.pin(caller, (granter, gref), readonly, false)?.frame };
        let own = self.domains[&granter].frames.get(frame as usize).copied();
        let mfn = mappings.first().map(|it| it.mfn).or(own);
        let local = self.domains.get_mut(&caller).unwrap();
        let taken =
            local.kind == DomainKind::Pvh && (gfn < FRAMES || local.placed.contains_key(&gfn));
        let result = match mfn {
            None => Err(GrantError::BadPage),
            Some(_) if taken => Err(REFUSED),
            Some(mfn) => Ok(mfn),
        };
        let Ok(mfn) = result else {
            self.reduce(granter, gref, readonly);
            return result;
        };
        if local.kind == DomainKind::Pvh {
            local.placed.insert(gfn, (mfn, readonly));
        }
        let mut handles = 0..;
        let mine = |it: &Mapping, handle| it.caller == caller && it.handle == handle;
        let handle = handles.find(|handle| !self.mappings.iter().any(|it| mine(it, *handle)));
        let handle = handle.unwrap();
        self.mappings.push(Mapping { handle, caller, granter, gref, readonly, mfn });
        Ok(mfn)
    }

    fn unmap(&mut self, caller: DomId, handle: u32, gfn: u64) -> Result<Mfn, GrantError> {
        let local = self.domains.get_mut(&caller).ok_or(GrantError::BadDomain)?;
        let mut all = self.mappings.iter();
        let index = all.position(|it| it.caller == caller && it.handle == handle);
        let index = index.ok_or(GrantError::BadHandle)?;
        let Mapping { granter, gref, readonly, mfn, .. } = self.mappings[index];
        if local.kind == DomainKind::Pvh {
            if local.placed.get(&gfn) != Some(&(mfn, readonly)) {
                return Err(REFUSED);
            }
            local.placed.remove(&gfn);
        }
        self.mappings.remove(index);
        self.reduce(granter, gref, readonly);
        Ok(mfn)
    }

    /// The frame and bytes that an end of a copy may touch.
    fn claim(
        &mut self,
        caller: DomId,
        (granter, gref): (DomId, u32),
        readonly: bool,
        first: bool,
    ) -> Result<(Mfn, u32, u32), GrantError> {
        if gref >= self.entries(granter) {
            return Err(GrantError::BadGntref);
        }
        let mappings = self.of(granter, gref);
        if mappings.iter().any(|it| it.caller != caller) {
            return Err(REFUSED);
        }
        if let Some(mapping) = mappings.first()
            && (readonly || mappings.iter().any(|it| !it.readonly))
        {
            return Ok((mapping.mfn, 0, PAGE_SIZE as u32));
        }
        let entry = self.pin(caller, (granter, gref), readonly, true)?;
        let version = self.domains[&granter].version;
        let result = if version == 2 && entry.flags & GTF_TYPE_MASK == GTF_TRANSITIVE {
            let third = DomId(entry.part.0);
            if !first
                || !mappings.is_empty()
                || third == granter
                || !self.domains.contains_key(&third)
            {
                Err(REFUSED)
            } else {
                self.claim(granter, (third, entry.frame), readonly, false)
            }
        } else {
            match self.domains[&granter].frames.get(entry.frame as usize) {
                None => Err(GrantError::BadPage),
                Some(mfn) if mappings.iter().any(|it| it.mfn != *mfn) => Err(REFUSED),
                Some(mfn) if version == 2 && entry.flags & GTF_SUB_PAGE != 0 => {
                    let (begin, len) = entry.part;
                    Ok((*mfn, begin.into(), u32::from(begin) + u32::from(len)))
                }
                Some(mfn) => Ok((*mfn, 0, PAGE_SIZE as u32)),
            }
        };
        // A copy is over before anything else happens.
        self.reduce(granter, gref, readonly);
        result
    }

    fn copy(
        &mut self,
        caller: DomId,
        source: (End, u16),
        dest: (End, u16),
        len: u16,
    ) -> Result<Option<(Mfn, Mfn)>, GrantError> {
        if len == 0 {
            return Ok(None);
        }
        for (end, _) in [source, dest] {
            if matches!(end, End::Grant(granter, _) if !self.domains.contains_key(&domid(granter)))
            {
                return Err(GrantError::BadDomain);
            }
        }
        let mut claim = |end, readonly| match end {
            End::Grant(granter, gref) => self.claim(caller, (domid(granter), gref), readonly, true),
            End::Own(gfn) => {
                let frames = self.domains.get(&caller).map(|domain| &domain.frames);
                let frame = frames.and_then(|frames| frames.get(gfn as usize));
                frame.map(|mfn| (*mfn, 0, PAGE_SIZE as u32)).ok_or(GrantError::BadPage)
            }
        };
        let ends = [(claim(source.0, true)?, source.1), (claim(dest.0, false)?, dest.1)];
        let range = |offset: u16| (u32::from(offset), u32::from(offset) + u32::from(len));
        if ends.iter().any(|(_, offset)| range(*offset).1 > PAGE_SIZE as u32) {
            return Err(GrantError::BadCopyArg);
        }
        for ((_, begin, end), offset) in &ends {
            let (first, last) = range(*offset);
            if first < *begin || last > *end {
                return Err(REFUSED);
            }
        }
        Ok(Some((ends[0].0.0, ends[1].0.0)))
    }

    fn version(&mut self, id: DomId, version: u32) -> Result<(), Errno> {
        let mappings = &self.mappings;
        let domain = self.domains.get_mut(&id).ok_or(Errno::ESRCH)?;
        if version != 1 && version != 2 {
            return Err(Errno::EINVAL);
        }
        if domain.version == version {
            return Ok(());
        }
        if mappings.iter().any(|it| it.granter == id && it.gref >= 8) {
            return Err(Errno::EBUSY);
        }
        let kind = |entry: &Entry| entry.flags & GTF_TYPE_MASK;
        domain.entries.retain(|gref, _| *gref < 8);
        if version == 1 {
            if domain.entries.values().any(|entry| kind(entry) == GTF_TRANSITIVE) {
                // The entries that are not reserved are still there.
                return Err(Errno::ERANGE);
            }
            domain.entries.retain(|_, entry| kind(entry) == GTF_PERMIT_ACCESS);
        }
        for entry in domain.entries.values_mut() {
            entry.part = (0, 0);
        }
        domain.version = version;
        Ok(())
    }
}

/// Writes an entry as its domain would.
fn write(hv: &Hypervisor<Ram>, id: DomId, version: u32, gref: u32, entry: Entry) {
    let Entry { flags, domid, part, frame } = entry;
    if version == 1 {
        let entry = ring_proto::xen::grant_table::EntryV1 { flags, domid, frame };
        write_v1(hv, id, gref, entry);
        return;
    }
    let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    let words = if flags & GTF_TYPE_MASK == GTF_TRANSITIVE {
        [pair(flags, domid), part.0.into(), frame, 0]
    } else {
        [pair(flags, domid), pair(part.0, part.1), frame, 0]
    };
    write_v2(hv, id, gref, words);
}

/// Flags of an entry as its domain reads them, those of use included.
fn flags(hv: &Hypervisor<Ram>, id: DomId, gref: u32) -> u16 {
    let grants = &hv.domains[&id].grants;
    if grants.status.is_empty() {
        return crate::ram::flags_v1(hv, id, gref);
    }
    let own = hv.machine().load(grants.shared[0], gref as usize * 16) as u16;
    own & !USE | status_v2(hv, id, gref)
}

fn run(hv: &mut Hypervisor<Ram>, model: &mut Model, op: &Op) {
    match *op {
        Op::Create(index, pvh) => {
            let (id, kind) =
                (domid(index), if pvh { DomainKind::Pvh } else { DomainKind::Process });
            let known = model.domains.contains_key(&id)
                || model.mappings.iter().any(|mapping| mapping.granter == id);
            let created = hv.create_domain(id, &config(kind));
            assert_eq!(created, if known { Err(Errno::EEXIST) } else { Ok(()) });
            if !known {
                let frames = (0..FRAMES).map(|gfn| hv.frame_at(id, Gfn(gfn)).unwrap()).collect();
                let (placed, entries) = Default::default();
                model.domains.insert(id, Domain { kind, version: 1, frames, placed, entries });
            }
        }
        Op::Destroy(index) => {
            let id = domid(index);
            let died = hv.destroy_domain(id);
            if model.domains.remove(&id).is_none() {
                assert_eq!(died, Err(Errno::ESRCH));
                return;
            }
            let (mine, others): (Vec<_>, Vec<_>) =
                model.mappings.iter().partition(|mapping| mapping.caller == id);
            model.mappings = others;
            for mapping in &mine {
                model.reduce(mapping.granter, mapping.gref, mapping.readonly);
            }
            let died = died.unwrap();
            let others = model.mappings.iter().filter(|mapping| mapping.granter == id);
            assert_eq!(died.mapped_by, others.map(|mapping| mapping.caller).collect());
            let granters = mine.iter().map(|mapping| mapping.granter).filter(|it| *it != id);
            assert_eq!(died.had_mapped, granters.collect());
        }
        Op::Version(index, version) => {
            let id = domid(index);
            let before: Option<Vec<(u32, Entry)>> =
                model.domains.get(&id).map(|it| it.entries.clone().into_iter().collect());
            let expected = model.version(id, version);
            if let (Err(_), Some(before)) = (expected, before) {
                model.domains.get_mut(&id).unwrap().entries = before.into_iter().collect();
            }
            assert_eq!(hv.set_grant_table_version(id, version), expected);
        }
        Op::Write(index, gref, entry) => {
            let id = domid(index);
            let Some(domain) = model.domains.get(&id) else { return };
            let version = domain.version;
            let there = model.entry(id, gref);
            // In version 1 the flags of use are the granter's to overwrite; in version 2 they stand elsewhere.
            let (own, flags) = match version {
                1 => (entry.flags, entry.flags),
                _ => (entry.flags & !USE, entry.flags & !USE | there.flags & USE),
            };
            write(hv, id, version, gref, Entry { flags: own, ..entry });
            *there = Entry { flags, ..entry };
        }
        Op::Swap(index, a, b) => {
            let id = domid(index);
            let done = hv.swap_grant_refs(id, GrantRef(a), GrantRef(b));
            if !model.domains.contains_key(&id) {
                assert_eq!(done, Err(GrantError::BadDomain));
            } else if a == b {
                assert_eq!(done, Ok(()));
            } else if !model.of(id, a).is_empty() || !model.of(id, b).is_empty() {
                assert_eq!(done, Err(GrantError::Eagain));
            } else {
                assert_eq!(done, Ok(()));
                let one = *model.entry(id, a);
                let other = core::mem::replace(model.entry(id, b), one);
                *model.entry(id, a) = other;
            }
        }
        Op::Map { caller, granter, gref, readonly, gfn } => {
            let (caller, granter) = (domid(caller), domid(granter));
            let process =
                model.domains.get(&caller).is_some_and(|it| it.kind == DomainKind::Process);
            let at = (!process).then_some(Gfn(gfn));
            let wish = MapGrant { granter, gref: GrantRef(gref), readonly, at };
            let mapped = hv.map_grant(caller, wish);
            let expected = model.map(caller, granter, gref, readonly, gfn);
            assert_eq!(mapped.map(|mapped| mapped.mfn), expected);
            if let Ok(mapped) = mapped {
                assert_eq!(mapped.handle.0, model.mappings.last().unwrap().handle);
                assert_eq!(hv.frame_at(granter, mapped.gfn), Some(mapped.mfn));
            }
        }
        Op::Unmap { caller, handle, gfn } => {
            let caller = domid(caller);
            let process =
                model.domains.get(&caller).is_some_and(|it| it.kind == DomainKind::Process);
            let at = (!process).then_some(Gfn(gfn));
            let expected = model.unmap(caller, handle, gfn);
            assert_eq!(hv.unmap_grant(caller, Handle(handle), at), expected);
        }
        Op::Copy { caller, source, dest, len } => {
            let caller = domid(caller);
            if !model.domains.contains_key(&caller) {
                return;
            }
            let end = |end| match end {
                End::Grant(granter, gref) => CopyEnd::Grant(domid(granter), GrantRef(gref)),
                End::Own(gfn) => CopyEnd::Own(Gfn(gfn)),
            };
            let expected = model.copy(caller, source, dest, len);
            let frames = hv.frames().iter();
            let frames = frames.filter(|(_, frame)| matches!(frame.usage(), FrameUse::Memory(_)));
            let frames: Vec<Mfn> = frames.map(|(mfn, _)| mfn).collect();
            let bytes = |hv: &Hypervisor<Ram>, (mfn, offset): (Mfn, u16)| -> Vec<u8> {
                let offset = usize::from(offset);
                (offset..offset + usize::from(len)).map(|at| hv.machine().byte(mfn, at)).collect()
            };
            // Something to copy, and to see that nothing else changes.
            if let Ok(Some((from, _))) = expected {
                hv.machine().set_byte(from, source.1.into(), len as u8 | 1);
            }
            // All of a frame would take long; its beginning, and a word here and there, are where offsets point to.
            let sum = |hv: &Hypervisor<Ram>, mfn: Mfn| -> u64 {
                let offsets = (0..32).step_by(4).chain((32..PAGE_SIZE).step_by(256));
                let words = offsets.map(|at| hv.machine().load(mfn, at));
                words.fold(0, |sum, word| (sum * 31).wrapping_add(word.into()) % 0xffff_fffb)
            };
            let sums: Vec<u64> = frames.iter().map(|mfn| sum(hv, *mfn)).collect();
            let wanted = match expected {
                Ok(Some((from, _))) => bytes(hv, (from, source.1)),
                _ => Vec::new(),
            };
            let (from, into) = ((end(source.0), source.1), (end(dest.0), dest.1));
            assert_eq!(hv.copy_grant(caller, from, into, len), expected.map(drop));
            let changed = match expected {
                Ok(Some((_, into))) => {
                    assert_eq!(bytes(hv, (into, dest.1)), wanted);
                    Some(into)
                }
                _ => None,
            };
            for (mfn, before) in frames.iter().zip(sums) {
                if Some(*mfn) != changed {
                    assert_eq!(sum(hv, *mfn), before, "{mfn} changed");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(super::cases(256))]

    #[test]
    fn grants_agree_with_the_model(ops in prop::collection::vec(op(), 1..100)) {
        let mut hv = Hypervisor::new(Ram::new(1000));
        let mut model = Model::default();
        for index in 0..3 {
            run(&mut hv, &mut model, &Op::Create(index, index == 1));
        }
        for op in &ops {
            run(&mut hv, &mut model, op);
            check(&hv);
            for (id, domain) in &model.domains {
                for (gref, entry) in &domain.entries {
                    assert_eq!(flags(&hv, *id, *gref), entry.flags, "entry {gref} of {id}");
                }
            }
        }
        end(&mut hv);
    }
}
