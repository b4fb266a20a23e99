// SPDX-License-Identifier: MIT OR Apache-2.0

//! A domain: how it comes and goes, and its guest-physical memory.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use ring_proto::xen::shared_info::LEGACY_MAX_VCPUS;
use ring_proto::xen::{DomId, Errno, Port};

use crate::event::EventChannels;
use crate::frame::FrameTable;
use crate::grant::GrantTable;
use crate::machine::{FrameUse, Gfn, Machine, Mfn, Writable};

/// What a domain is to its hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// A PVH guest: grants are mapped into its guest-physical memory (`GNTMAP_host_map`), events are delivered through
    /// its shared pages.
    Pvh,
    /// A process of the embedder's operating system, that has no guest-physical address space: it holds a grant by its
    /// handle and frame (`GNTMAP_device_map`) and maps the frame with the embedder's help; events go through
    /// [`Machine::ring`].
    Process,
}

/// What a domain gets, and how much of it at most.
#[derive(Clone, Debug)]
pub struct DomainConfig {
    /// What it is.
    pub kind: DomainKind,
    /// Whether it may act for other domains (a control domain).
    pub privileged: bool,
    /// Frames of memory, at guest frame 0 and up.
    pub frames: u64,
    /// Virtual CPUs: 1 to 32, as many as the shared information page has room for.
    pub vcpus: u32,
    /// The highest version of its grant table: 1 or 2.
    pub max_grant_version: u32,
    /// Frames of its grant table at most (512 entries of version 1 each).
    pub max_grant_frames: u32,
    /// Frames of its mapping table at most: it can hold 256 times as many mappings of others' grants.
    pub max_maptrack_frames: u32,
    /// The highest port it may have.
    pub max_port: u32,
}

impl DomainConfig {
    /// A domain of this kind with `frames` frames of memory, one virtual CPU, no privilege, and Xen's default limits.
    pub fn new(kind: DomainKind, frames: u64) -> Self {
        Self {
            kind,
            privileged: false,
            frames,
            vcpus: 1,
            max_grant_version: 2,
            max_grant_frames: 64,
            max_maptrack_frames: 1024,
            max_port: 1023,
        }
    }
}

/// What stands at a place of a domain's guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A frame that was allocated for the domain.
    Own(Mfn),
    /// Another domain's frame, through a grant.
    Grant(Mfn, Writable),
    /// A frame that the domain shares with the hypervisor.
    Shared(Mfn),
}

/// One domain.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) kind: DomainKind,
    pub(crate) privileged: bool,
    pub(crate) vcpus: u32,
    /// It is gone; only frames that others still map remain.
    pub(crate) dying: bool,
    /// Frames of the machine that were allocated for it and are not yet free.
    pub(crate) frames: u64,
    pub(crate) memory: BTreeMap<Gfn, Slot>,
    /// Where the frames stand that it shares with the hypervisor, as far as it gave them a place.
    pub(crate) placed: BTreeMap<Mfn, Gfn>,
    pub(crate) grants: GrantTable,
    pub(crate) events: EventChannels,
}

impl Domain {
    /// The domain's own frame of memory at this place.
    pub(crate) fn own(&self, gfn: Gfn) -> Option<Mfn> {
        match self.memory.get(&gfn) {
            Some(Slot::Own(mfn)) => Some(*mfn),
            _ => None,
        }
    }
}

/// What the death of a domain did to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Ports of other domains that were connected to it, and now are unbound.
    pub unbound: Vec<(DomId, Port)>,
    /// Domains that still map some of its frames. The frames live until these let go.
    pub mapped_by: BTreeSet<DomId>,
    /// Domains whose grants it had mapped.
    pub had_mapped: BTreeSet<DomId>,
}

/// All domains of a machine.
#[derive(Debug)]
pub struct Hypervisor<M> {
    pub(crate) machine: M,
    pub(crate) frames: FrameTable,
    pub(crate) domains: BTreeMap<DomId, Domain>,
    /// The domain that handles each global virtual interrupt, where it is not domain 0.
    pub(crate) virq_handlers: BTreeMap<u32, DomId>,
}

impl<M: Machine> Hypervisor<M> {
    /// A hypervisor without domains.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            frames: FrameTable::default(),
            domains: BTreeMap::new(),
            virq_handlers: BTreeMap::new(),
        }
    }

    /// The machine below.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine below, to change.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// All frames in use.
    pub fn frames(&self) -> &FrameTable {
        &self.frames
    }

    /// The domains that live.
    pub fn domains(&self) -> impl Iterator<Item = DomId> + '_ {
        self.domains.iter().filter(|(_, domain)| !domain.dying).map(|(id, _)| *id)
    }

    /// How many domains there are, with those that are dead while others still map their frames.
    pub fn domain_count(&self) -> usize {
        self.domains.len()
    }

    /// Whether this domain is dead, while others still map its frames. Its id is not free yet.
    pub fn is_dying(&self, id: DomId) -> bool {
        self.domains.get(&id).is_some_and(|domain| domain.dying)
    }

    /// Creates a domain with its memory and the first frame of its grant table.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a reserved id, too few or too many virtual CPUs, or a grant table without frames or of no known
    /// version; `EEXIST` if the id is in use, be it by a domain that is gone but whose frames are still mapped;
    /// `ENOMEM` when the machine has no more frames, and then nothing stays allocated.
    pub fn create_domain(&mut self, id: DomId, config: &DomainConfig) -> Result<(), Errno> {
        if id >= DomId::FIRST_RESERVED
            || !(1..=LEGACY_MAX_VCPUS).contains(&config.vcpus)
            || config.max_grant_frames == 0
            || !(1..=2).contains(&config.max_grant_version)
        {
            return Err(Errno::EINVAL);
        }
        let Entry::Vacant(place) = self.domains.entry(id) else { return Err(Errno::EEXIST) };
        place.insert(Domain {
            kind: config.kind,
            privileged: config.privileged,
            vcpus: config.vcpus,
            dying: false,
            frames: 0,
            memory: BTreeMap::new(),
            placed: BTreeMap::new(),
            grants: GrantTable::new(config),
            events: EventChannels::new(config),
        });
        let populated = self.populate(id, config.frames);
        if populated.is_err() {
            self.destroy_domain(id)?;
        }
        populated
    }

    fn populate(&mut self, id: DomId, frames: u64) -> Result<(), Errno> {
        for gfn in (0..frames).map(Gfn) {
            let mfn = self.allocate(id, FrameUse::Memory(gfn))?;
            if let Some(domain) = self.domains.get_mut(&id) {
                domain.memory.insert(gfn, Slot::Own(mfn));
            }
        }
        if self.domains.get(&id).is_some_and(|domain| domain.kind == DomainKind::Pvh) {
            let mfn = self.allocate(id, FrameUse::SharedInfo)?;
            if let Some(domain) = self.domains.get_mut(&id) {
                domain.events.shared_info = Some(mfn);
            }
        }
        self.grow_grant_table(id, 1)
    }

    /// Ends a domain: its ports are closed, its mappings dropped, its grants revoked, its memory freed. A frame that
    /// another domain still maps lives until the last mapping goes; until then the id stays in use. The embedder has
    /// stopped the domain before, so that it does not write to frames that are free.
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives.
    pub fn destroy_domain(&mut self, id: DomId) -> Result<Departure, Errno> {
        let domain =
            self.domains.get_mut(&id).filter(|domain| !domain.dying).ok_or(Errno::ESRCH)?;
        domain.dying = true;
        domain.placed.clear();
        let mut own = Vec::new();
        for (gfn, slot) in core::mem::take(&mut domain.memory) {
            match slot {
                Slot::Own(mfn) => own.push(mfn),
                Slot::Grant(..) | Slot::Shared(_) => self.machine.remap(id, gfn, None),
            }
        }
        let mut departure = Departure::default();
        self.release_events(id, &mut departure.unbound);
        self.release_mappings(id, &mut departure.had_mapped);
        if let Some(domain) = self.domains.get_mut(&id) {
            departure.mapped_by = domain.grants.grantees();
            own.extend(domain.grants.take_frames());
        }
        for mfn in own {
            self.release(mfn, false);
        }
        // A domain that never got a frame has none to wait for.
        if self.domains.get(&id).is_some_and(|domain| domain.frames == 0) {
            self.domains.remove(&id);
        }
        Ok(departure)
    }

    /// The frame that stands at a place of a domain's memory, its own or mapped.
    pub fn frame_at(&self, id: DomId, gfn: Gfn) -> Option<Mfn> {
        match self.domains.get(&id)?.memory.get(&gfn)? {
            Slot::Own(mfn) | Slot::Grant(mfn, _) | Slot::Shared(mfn) => Some(*mfn),
        }
    }

    /// Puts a frame that a PVH guest shares with the hypervisor to a place of its memory (`XENMEM_add_to_physmap`),
    /// where there is nothing. A frame has one place: it leaves the one that it had. A grant table grows to the frame
    /// asked for.
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives; `EINVAL` for a frame that the domain does not share, or may not have, for a
    /// process, and if something else is at the place.
    pub fn place_frame(&mut self, id: DomId, usage: FrameUse, gfn: Gfn) -> Result<(), Errno> {
        let domain = self.live(id).ok_or(Errno::ESRCH)?;
        if domain.kind != DomainKind::Pvh {
            return Err(Errno::EINVAL);
        }
        let mfn = match usage {
            FrameUse::Memory(_) => None,
            FrameUse::SharedInfo => domain.events.shared_info,
            FrameUse::GrantStatus(index) => domain.grants.status.get(index as usize).copied(),
            FrameUse::GrantTable(index) => {
                let frames = index.checked_add(1).ok_or(Errno::EINVAL)?;
                let frames = self.grant_table_frames(id, frames).map_err(|_| Errno::EINVAL)?;
                frames.get(index as usize).copied()
            }
        };
        let mfn = mfn.ok_or(Errno::EINVAL)?;
        let domain = self.live(id).ok_or(Errno::ESRCH)?;
        if domain.memory.get(&gfn).is_some_and(|slot| *slot != Slot::Shared(mfn)) {
            return Err(Errno::EINVAL);
        }
        self.displace_frame(id, mfn);
        let domain = self.live_mut(id).ok_or(Errno::ESRCH)?;
        domain.memory.insert(gfn, Slot::Shared(mfn));
        domain.placed.insert(mfn, gfn);
        self.machine.remap(id, gfn, Some((mfn, Writable::Yes)));
        Ok(())
    }

    /// Takes a shared frame out of a guest's memory.
    pub(crate) fn displace_frame(&mut self, id: DomId, mfn: Mfn) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        if let Some(gfn) = domain.placed.remove(&mfn) {
            domain.memory.remove(&gfn);
            self.machine.remap(id, gfn, None);
        }
    }

    /// A domain that lives.
    pub(crate) fn live(&self, id: DomId) -> Option<&Domain> {
        self.domains.get(&id).filter(|domain| !domain.dying)
    }

    /// A domain that lives, to change.
    pub(crate) fn live_mut(&mut self, id: DomId) -> Option<&mut Domain> {
        self.domains.get_mut(&id).filter(|domain| !domain.dying)
    }

    /// Allocates a frame for a domain.
    pub(crate) fn allocate(&mut self, id: DomId, usage: FrameUse) -> Result<Mfn, Errno> {
        let domain = self.domains.get_mut(&id).ok_or(Errno::ESRCH)?;
        let mfn = self.frames.allocate(&mut self.machine, id, usage).ok_or(Errno::ENOMEM)?;
        domain.frames += 1;
        Ok(mfn)
    }

    /// Drops a reference of a frame; a dead domain goes with its last frame.
    pub(crate) fn release(&mut self, mfn: Mfn, writable: bool) {
        let Some(owner) = self.frames.release(&mut self.machine, mfn, writable) else { return };
        let Some(domain) = self.domains.get_mut(&owner) else { return };
        domain.frames = domain.frames.saturating_sub(1);
        if domain.dying && domain.frames == 0 {
            self.domains.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::grant_table::{GTF_PERMIT_ACCESS, GrantError};

    use super::*;
    use crate::event::Binding;
    use crate::grant::MapGrant;
    use crate::ram::{A, B, Ram, flags_v1, grant_v1, processes};

    #[test]
    fn frames_of_the_dead_live_while_mapped() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let wish = MapGrant { granter: A, gref, readonly: false, at: None };
        let mapped = hv.map_grant(B, wish).unwrap();
        hv.machine().store(mapped.mfn, 0, 0xdead_beef);
        let used = hv.machine().used();

        let departure = hv.destroy_domain(A).unwrap();
        assert_eq!(departure.mapped_by, BTreeSet::from([B]));
        assert!(hv.is_dying(A));
        assert_eq!(hv.machine().used(), used - 8, "seven frames of memory and a grant frame");
        assert_eq!(hv.machine().load(mapped.mfn, 0), 0xdead_beef);
        assert_eq!(hv.map_grant(B, wish), Err(GrantError::BadDomain));
        let config = DomainConfig::new(DomainKind::Process, 1);
        assert_eq!(hv.create_domain(A, &config), Err(Errno::EEXIST));
        assert_eq!(hv.destroy_domain(A), Err(Errno::ESRCH));

        assert_eq!(hv.unmap_grant(B, mapped.handle, None), Ok(mapped.mfn));
        assert!(!hv.is_dying(A));
        assert_eq!(hv.machine().used(), used - 9);
        assert_eq!(hv.create_domain(A, &config), Ok(()));
    }

    #[test]
    fn the_dead_let_go_of_what_they_held() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let wish = MapGrant { granter: A, gref, readonly: false, at: None };
        let mapped = hv.map_grant(B, wish).unwrap();
        let port = hv.alloc_unbound(A, DomId::SELF, B).unwrap();
        hv.bind_interdomain(B, A, port).unwrap();
        let waiting = hv.alloc_unbound(B, DomId::SELF, A).unwrap();

        let departure = hv.destroy_domain(B).unwrap();
        assert_eq!(departure.unbound, [(A, port)]);
        assert_eq!(departure.had_mapped, BTreeSet::from([A]));
        assert!(departure.mapped_by.is_empty());
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS);
        assert_eq!(hv.frames().get(mapped.mfn).unwrap().references(), 1);
        assert_eq!(hv.binding(A, port), Some(Binding::Unbound { remote: B }));
        assert_eq!(hv.bind_interdomain(A, B, waiting), Err(Errno::ESRCH));
        assert_eq!(hv.domains().collect::<Vec<_>>(), [A, DomId(3)]);
    }

    #[test]
    fn a_domain_that_does_not_fit_leaves_nothing() {
        let mut hv = Hypervisor::new(Ram::new(4));
        let config = DomainConfig::new(DomainKind::Process, 4);
        assert_eq!(hv.create_domain(A, &config), Err(Errno::ENOMEM));
        assert_eq!(hv.machine().used(), 0);
        assert_eq!(hv.create_domain(A, &DomainConfig { frames: 3, ..config.clone() }), Ok(()));
        assert_eq!(hv.create_domain(A, &config), Err(Errno::EEXIST));
        assert_eq!(hv.create_domain(DomId::SELF, &config), Err(Errno::EINVAL));
        for vcpus in [0, 33] {
            let config = DomainConfig { vcpus, ..config.clone() };
            assert_eq!(hv.create_domain(B, &config), Err(Errno::EINVAL));
        }
    }
}
