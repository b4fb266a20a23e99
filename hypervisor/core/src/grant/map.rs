// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mapping and unmapping grants.

use alloc::collections::BTreeSet;

use ring_proto::xen::grant_table::{GTF_READING, GTF_WRITING, GrantError};
use ring_proto::xen::{DomId, GrantRef};

use super::GrantTable;
use super::active::{Active, Pins};
use super::entry::{Entry, Purpose};
use super::maptrack::{Handle, Mapping};
use crate::Hypervisor;
use crate::domain::{DomainKind, Slot};
use crate::machine::{Gfn, Machine, Mfn};

/// A wish to map a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapGrant {
    /// The domain that granted.
    pub granter: DomId,
    /// Its reference.
    pub gref: GrantRef,
    /// Map for reading only.
    pub readonly: bool,
    /// Where in the caller's guest-physical memory: a place that a PVH guest has nothing at. `None` for a process,
    /// which gets the frame's number and maps it with the embedder's help.
    pub at: Option<Gfn>,
}

/// A grant that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedGrant {
    /// Names the mapping.
    pub handle: Handle,
    /// The frame.
    pub mfn: Mfn,
    /// Whose frame it is.
    pub owner: DomId,
    /// Which of the owner's frames.
    pub gfn: Gfn,
}

impl<M: Machine> Hypervisor<M> {
    /// Maps a grant for `caller` (`GNTTABOP_map_grant_ref`).
    ///
    /// # Errors
    ///
    /// `BadDomain` if the granter does not live; `NoSpace` when the caller has no more handles; `BadGntref` beyond the
    /// end of the table; `BadPage` if the entry names no frame of the granter's memory; `GeneralError` if the entry
    /// does not grant this to the caller, keeps changing, or is mapped too often, and for a place (`at`) that the kind
    /// of domain does not have or that is taken.
    pub fn map_grant(&mut self, caller: DomId, wish: MapGrant) -> Result<MappedGrant, GrantError> {
        let local = self.live(caller).ok_or(GrantError::BadDomain)?;
        let suits_kind = match local.kind {
            DomainKind::Pvh => wish.at.is_some(),
            DomainKind::Process => wish.at.is_none(),
        };
        if !suits_kind {
            return Err(GrantError::GeneralError);
        }
        // Xen would lose the frame that a guest maps over; this refuses.
        let is_taken = wish.at.is_some_and(|gfn| local.memory.contains_key(&gfn));
        self.live(wish.granter).ok_or(GrantError::BadDomain)?;
        let local = self.live_mut(caller).ok_or(GrantError::BadDomain)?;
        let handle = local.grants.maptrack.free_handle().ok_or(GrantError::NoSpace)?;

        let MapGrant { granter, gref, readonly, at } = wish;
        let (mfn, gfn) = self.pin_for_map(caller, wish)?;
        let mapping = Mapping { granter, gref, readonly };
        if is_taken {
            self.unpin(&mapping);
            return Err(GrantError::GeneralError);
        }
        let local = self.live_mut(caller).ok_or(GrantError::BadDomain)?;
        local.grants.maptrack.insert(handle, mapping);
        if let Some(at) = at {
            local.memory.insert(at, Slot::Grant(mfn, mapping.writable()));
            self.machine.remap(caller, at, Some((mfn, mapping.writable())));
        }
        Ok(MappedGrant { handle, mfn, owner: granter, gfn })
    }

    /// Judges and pins the entry, and takes a reference of its frame.
    fn pin_for_map(&mut self, caller: DomId, wish: MapGrant) -> Result<(Mfn, Gfn), GrantError> {
        let MapGrant { gref: GrantRef(gref), readonly, .. } = wish;
        let granter = self.domains.get_mut(&wish.granter).ok_or(GrantError::BadDomain)?;
        let entry = Entry::find(&granter.grants, gref).ok_or(GrantError::BadGntref)?;
        let active = granter.grants.active.get(&gref);
        let pins = active.map_or(Pins::default(), |active| active.pins);
        if active.is_some_and(|active| active.grantee != caller || pins.is_full(readonly)) {
            return Err(GrantError::GeneralError);
        }
        if !pins.any() || (!readonly && !pins.any_write()) {
            entry.pin(&self.machine, pins.any(), caller, readonly, Purpose::Map)?;
        }
        let (frame, gfn) = match active {
            Some(active) => (Some(active.mfn), active.gfn),
            None => {
                let gfn = entry.gfn(&self.machine);
                (granter.own(gfn), gfn)
            }
        };
        let held = frame.filter(|mfn| self.frames.hold(*mfn, !readonly));
        let Some(mfn) = held else {
            reduce_status(&self.machine, &granter.grants, gref, readonly);
            return Err(GrantError::BadPage);
        };
        let new = Active { pins, grantee: caller, mfn, gfn };
        granter.grants.active.entry(gref).or_insert(new).pins.add(readonly);
        Ok((mfn, gfn))
    }

    /// Unmaps what `handle` names for `caller` (`GNTTABOP_unmap_grant_ref`). `at` is where it was mapped to, `None`
    /// for a process. Returns the frame, which the owner may reuse from now on.
    ///
    /// # Errors
    ///
    /// `BadHandle` for a handle that names nothing; `GeneralError` if another frame, or none, is mapped `at`,
    /// or with another access.
    pub fn unmap_grant(
        &mut self,
        caller: DomId,
        handle: Handle,
        at: Option<Gfn>,
    ) -> Result<Mfn, GrantError> {
        self.live(caller).ok_or(GrantError::BadDomain)?;
        let mfn = self.mapped_frame(caller, handle).ok_or(GrantError::BadHandle)?;
        let local = self.live_mut(caller).ok_or(GrantError::BadDomain)?;
        let mapping = *local.grants.maptrack.get(handle).ok_or(GrantError::BadHandle)?;
        match at {
            // Xen asks only for the frame, and so would let a writable mapping outlive its right to write.
            Some(at) if local.memory.get(&at) == Some(&Slot::Grant(mfn, mapping.writable())) => {
                local.memory.remove(&at);
                self.machine.remap(caller, at, None);
            }
            None if local.kind == DomainKind::Process => {}
            _ => return Err(GrantError::GeneralError),
        }
        let local = self.live_mut(caller).ok_or(GrantError::BadDomain)?;
        local.grants.maptrack.remove(handle);
        self.unpin(&mapping);
        Ok(mfn)
    }

    /// The frame that a handle of a domain stands for.
    pub fn mapped_frame(&self, id: DomId, handle: Handle) -> Option<Mfn> {
        let mapping = self.live(id)?.grants.maptrack.get(handle)?;
        let granter = self.domains.get(&mapping.granter)?;
        granter.grants.active.get(&mapping.gref.0).map(|active| active.mfn)
    }

    /// Ends a mapping's use of its grant.
    fn unpin(&mut self, mapping: &Mapping) {
        let Some(granter) = self.domains.get_mut(&mapping.granter) else { return };
        let gref = mapping.gref.0;
        let Some(active) = granter.grants.active.get_mut(&gref) else { return };
        let mfn = active.mfn;
        active.pins.remove(mapping.readonly);
        if !active.pins.any() {
            granter.grants.active.remove(&gref);
        }
        reduce_status(&self.machine, &granter.grants, gref, mapping.readonly);
        self.release(mfn, !mapping.readonly);
    }

    /// Drops all that a dying domain has mapped. Tells whose grants these were.
    pub(crate) fn release_mappings(&mut self, id: DomId, granters: &mut BTreeSet<DomId>) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        for mapping in domain.grants.maptrack.take().into_values() {
            granters.insert(mapping.granter);
            self.unpin(&mapping);
        }
        granters.remove(&id);
    }

    /// What a domain has mapped: handle, granter, reference and whether it can only be read.
    pub fn mappings(
        &self,
        id: DomId,
    ) -> impl Iterator<Item = (Handle, DomId, GrantRef, bool)> + '_ {
        let maptrack = self.domains.get(&id).map(|domain| &domain.grants.maptrack);
        maptrack
            .into_iter()
            .flat_map(|maptrack| maptrack.iter())
            .map(|(handle, mapping)| (handle, mapping.granter, mapping.gref, mapping.readonly))
    }
}

/// After a use ended: clears those flags of the entry that no other use needs.
pub(super) fn reduce_status<M: Machine>(
    machine: &M,
    table: &GrantTable,
    gref: u32,
    readonly: bool,
) {
    let Some(entry) = Entry::find(table, gref) else { return };
    let pins = table.active.get(&gref).map_or(Pins::default(), |active| active.pins);
    let mut bits = 0;
    if !pins.any() {
        bits |= GTF_READING;
    }
    if !readonly && !pins.any_write() {
        bits |= GTF_WRITING;
    }
    entry.clear_status(machine, bits);
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::grant_table::{GTF_PERMIT_ACCESS, GTF_READONLY, GTF_SUB_PAGE};

    use super::*;
    use crate::DomainConfig;
    use crate::machine::Writable;
    use crate::ram::{A, B, C, Ram, domains, flags_v1, grant_v1, processes};

    fn wish(granter: DomId, gref: GrantRef, readonly: bool) -> MapGrant {
        MapGrant { granter, gref, readonly, at: None }
    }

    #[test]
    fn maps_and_tells_the_granter() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let read = hv.map_grant(B, wish(A, gref, true)).unwrap();
        assert_eq!((read.owner, read.gfn), (A, Gfn(3)));
        assert_eq!(Some(read.mfn), hv.frame_at(A, Gfn(3)));
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS | GTF_READING);

        let write = hv.map_grant(B, wish(A, gref, false)).unwrap();
        assert_ne!(read.handle, write.handle);
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        let frame = hv.frames().get(read.mfn).unwrap();
        assert_eq!((frame.references(), frame.writers()), (3, 1));

        assert_eq!(hv.unmap_grant(B, write.handle, None), Ok(read.mfn));
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS | GTF_READING);
        assert_eq!(hv.unmap_grant(B, write.handle, None), Err(GrantError::BadHandle));
        assert_eq!(hv.unmap_grant(B, read.handle, None), Ok(read.mfn));
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS);
        assert_eq!(hv.frames().get(read.mfn).unwrap().references(), 1);
    }

    #[test]
    fn refuses_what_was_not_granted() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, GTF_READONLY);
        let sub_page = grant_v1(&hv, A, 10, B, 3, GTF_SUB_PAGE);
        let no_frame = grant_v1(&hv, A, 11, B, 99, 0);
        let map = |hv: &mut Hypervisor<Ram>, caller, wish| hv.map_grant(caller, wish).unwrap_err();
        assert_eq!(map(&mut hv, B, wish(A, gref, false)), GrantError::GeneralError);
        assert_eq!(map(&mut hv, C, wish(A, gref, true)), GrantError::GeneralError);
        assert_eq!(map(&mut hv, B, wish(A, GrantRef(8), true)), GrantError::GeneralError);
        assert_eq!(map(&mut hv, B, wish(A, sub_page, true)), GrantError::GeneralError);
        assert_eq!(map(&mut hv, B, wish(A, GrantRef(512), true)), GrantError::BadGntref);
        assert_eq!(map(&mut hv, B, wish(A, no_frame, false)), GrantError::BadPage);
        assert_eq!(flags_v1(&hv, A, 11), GTF_PERMIT_ACCESS, "a refused mapping leaves no flag");
        assert_eq!(map(&mut hv, B, wish(DomId(77), gref, true)), GrantError::BadDomain);
        let placed = MapGrant { at: Some(Gfn(20)), ..wish(A, gref, true) };
        assert_eq!(map(&mut hv, B, placed), GrantError::GeneralError);
        assert_eq!(hv.mappings(B).count(), 0);
    }

    #[test]
    fn what_the_granter_writes_later_changes_nothing() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let first = hv.map_grant(B, wish(A, gref, false)).unwrap();
        grant_v1(&hv, A, 9, C, 4, 0);
        let second = hv.map_grant(B, wish(A, gref, false)).unwrap();
        assert_eq!(second.mfn, first.mfn);
        assert_eq!(hv.map_grant(C, wish(A, gref, true)), Err(GrantError::GeneralError));
        for mapped in [first, second] {
            hv.unmap_grant(B, mapped.handle, None).unwrap();
        }
        assert_eq!(hv.map_grant(C, wish(A, gref, true)).unwrap().gfn, Gfn(4));
    }

    #[test]
    fn counts_of_an_entry_are_bounded() {
        let mut hv = processes();
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        for _ in 0..128 {
            hv.map_grant(B, wish(A, gref, true)).unwrap();
        }
        assert_eq!(hv.map_grant(B, wish(A, gref, true)), Err(GrantError::GeneralError));
        assert!(hv.map_grant(B, wish(A, gref, false)).is_ok(), "writing is counted by itself");
    }

    #[test]
    fn a_guest_maps_at_a_free_place() {
        let mut hv = domains(DomainKind::Pvh);
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let at = |gfn| MapGrant { at: Some(Gfn(gfn)), ..wish(A, gref, false) };
        assert_eq!(hv.map_grant(B, wish(A, gref, false)), Err(GrantError::GeneralError));
        assert_eq!(
            hv.map_grant(B, at(7)),
            Err(GrantError::GeneralError),
            "its own memory is there"
        );
        let mapped = hv.map_grant(B, at(8)).unwrap();
        assert_eq!(hv.frame_at(B, Gfn(8)), Some(mapped.mfn));
        assert_eq!(hv.machine().mapped[&(B, Gfn(8))], (mapped.mfn, Writable::Yes));
        assert_eq!(hv.map_grant(B, at(8)), Err(GrantError::GeneralError));
        assert_eq!(hv.unmap_grant(B, mapped.handle, Some(Gfn(9))), Err(GrantError::GeneralError));
        assert_eq!(hv.unmap_grant(B, mapped.handle, Some(Gfn(8))), Ok(mapped.mfn));
        assert_eq!(hv.frame_at(B, Gfn(8)), None);
        assert!(hv.machine().mapped.is_empty());

        // A mapped frame is not the mapper's to grant.
        hv.map_grant(B, at(8)).unwrap();
        let again = grant_v1(&hv, B, 9, C, 8, 0);
        let wish = MapGrant { granter: B, gref: again, readonly: true, at: Some(Gfn(50)) };
        assert_eq!(hv.map_grant(C, wish), Err(GrantError::BadPage));
    }

    #[test]
    fn handles_are_limited_and_used_anew() {
        let mut hv = processes();
        let id = DomId(9);
        let config =
            DomainConfig { max_maptrack_frames: 1, ..DomainConfig::new(DomainKind::Process, 1) };
        hv.create_domain(id, &config).unwrap();
        let grefs = [9, 10].map(|gref| grant_v1(&hv, A, gref, id, 3, 0));
        for handle in 0..256 {
            let mapped = hv.map_grant(id, wish(A, grefs[handle as usize / 128], true)).unwrap();
            assert_eq!(mapped.handle, Handle(handle));
        }
        assert_eq!(hv.map_grant(id, wish(A, grefs[0], false)), Err(GrantError::NoSpace));
        hv.unmap_grant(id, Handle(200), None).unwrap();
        hv.unmap_grant(id, Handle(100), None).unwrap();
        let again = hv.map_grant(id, wish(A, grefs[0], false)).unwrap();
        assert_eq!(again.handle, Handle(100));
    }
}
