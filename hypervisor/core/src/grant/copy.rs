// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copying between frames that are granted, or the caller's own.

use ring_proto::xen::grant_table::GrantError;
use ring_proto::xen::{DomId, GrantRef};

use super::active::Pins;
use super::entry::{Entry, Purpose};
use super::map::reduce_status;
use crate::Hypervisor;
use crate::machine::{Gfn, Machine, Mfn, PAGE_SIZE};

/// One end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// What a domain granted to the caller. `SELF` is the caller.
    Grant(DomId, GrantRef),
    /// A frame of the caller's own memory.
    Own(Gfn),
}

/// Bytes that one end of a copy may touch, and the entries that say so.
#[derive(Debug)]
struct Claim {
    mfn: Mfn,
    /// The first byte, and the one after the last.
    bounds: (u32, u32),
    /// Entries whose granters were told that they are in use: the one that was named, and the one it passes on.
    entries: [Option<(DomId, GrantRef)>; 2],
    readonly: bool,
}

impl<M: Machine> Hypervisor<M> {
    /// Copies `len` bytes for `caller` (`GNTTABOP_copy`). Offsets are in bytes, in the frame. Nothing is copied unless
    /// all is. The granters' entries tell of their use while it lasts.
    ///
    /// # Errors
    ///
    /// `BadDomain` for a granter that does not live; `BadGntref` beyond the end of a table; `BadPage` for a frame that
    /// is none of its domain's memory; `BadCopyArg` if a range crosses the end of the page; `GeneralError` if an entry
    /// does not grant it. Copying nothing is no error, whatever the ends.
    pub fn copy_grant(
        &mut self,
        caller: DomId,
        source: (CopyEnd, u16),
        dest: (CopyEnd, u16),
        len: u16,
    ) -> Result<(), GrantError> {
        if len == 0 {
            return Ok(());
        }
        for (end, _) in [source, dest] {
            if let CopyEnd::Grant(granter, _) = end {
                self.resolve(caller, granter).map_err(|_| GrantError::BadDomain)?;
            }
        }
        let from = self.claim(caller, source.0, true)?;
        let into = match self.claim(caller, dest.0, false) {
            Ok(into) => into,
            Err(error) => {
                self.end_claim(&from);
                return Err(error);
            }
        };
        let done = range(source.1, len)
            .and_then(|from_range| Ok((from_range, range(dest.1, len)?)))
            .and_then(|(from_range, into_range)| {
                from.allows(from_range)?;
                into.allows(into_range)
            });
        if done.is_ok() {
            let (source_at, dest_at) = (usize::from(source.1), usize::from(dest.1));
            self.machine.copy((from.mfn, source_at), (into.mfn, dest_at), usize::from(len));
        }
        self.end_claim(&from);
        self.end_claim(&into);
        done
    }

    fn claim(&self, caller: DomId, end: CopyEnd, readonly: bool) -> Result<Claim, GrantError> {
        match end {
            CopyEnd::Grant(granter, gref) => {
                let granter = self.resolve(caller, granter).map_err(|_| GrantError::BadDomain)?;
                self.claim_grant(caller, granter, gref, readonly, true)
            }
            CopyEnd::Own(gfn) => {
                let own = self.live(caller).and_then(|domain| domain.own(gfn));
                let mfn = own.ok_or(GrantError::BadPage)?;
                Ok(Claim::page(mfn, readonly))
            }
        }
    }

    /// Judges an entry and tells its granter. `transitive` is false for an entry that another passes on.
    fn claim_grant(
        &self,
        caller: DomId,
        granter: DomId,
        gref: GrantRef,
        readonly: bool,
        transitive: bool,
    ) -> Result<Claim, GrantError> {
        let machine = &self.machine;
        let domain = self.live(granter).ok_or(GrantError::BadDomain)?;
        let table = &domain.grants;
        let entry = Entry::find(table, gref.0).ok_or(GrantError::BadGntref)?;
        let active = table.active.get(&gref.0);
        let pins = active.map_or(Pins::default(), |active| active.pins);
        if active.is_some_and(|active| active.grantee != caller || pins.is_full(readonly)) {
            return Err(GrantError::GeneralError);
        }
        if let Some(active) = active.filter(|_| readonly || pins.any_write()) {
            // It is mapped, and may be used as it was when it was mapped.
            return Ok(Claim::page(active.mfn, readonly));
        }
        let header = entry.pin(machine, pins.any(), caller, readonly, Purpose::Copy)?;
        let claim = match active {
            _ if !header.is_transitive(table.version) => {
                let (gfn, bounds) = entry.part(machine, header);
                match domain.own(gfn) {
                    None => Err(GrantError::BadPage),
                    Some(mfn) if active.is_some_and(|active| active.mfn != mfn) => {
                        Err(GrantError::GeneralError)
                    }
                    Some(mfn) => Ok(Claim { bounds, ..Claim::page(mfn, readonly) }),
                }
            }
            None if transitive => self.pass_on(granter, &entry, readonly),
            // An entry that is mapped was not transitive, whatever its granter made of it since.
            _ => Err(GrantError::GeneralError),
        };
        match claim {
            Ok(mut claim) => {
                claim.entries.rotate_right(1);
                claim.entries[0] = Some((granter, gref));
                Ok(claim)
            }
            Err(error) => {
                reduce_status(machine, table, gref.0, readonly);
                Err(error)
            }
        }
    }

    /// Follows a transitive entry of `granter` to the grant that it got.
    fn pass_on(&self, granter: DomId, entry: &Entry, readonly: bool) -> Result<Claim, GrantError> {
        let (domid, gref) = entry.passes_on(&self.machine);
        if domid == granter || self.live(domid).is_none() {
            return Err(GrantError::GeneralError);
        }
        self.claim_grant(granter, domid, gref, readonly, false)
    }

    fn end_claim(&self, claim: &Claim) {
        for (granter, GrantRef(gref)) in claim.entries.into_iter().flatten() {
            if let Some(domain) = self.domains.get(&granter) {
                reduce_status(&self.machine, &domain.grants, gref, claim.readonly);
            }
        }
    }
}

impl Claim {
    /// A whole page, of which nobody has to be told.
    fn page(mfn: Mfn, readonly: bool) -> Self {
        Self { mfn, bounds: (0, PAGE_SIZE as u32), entries: [None; 2], readonly }
    }

    fn allows(&self, range: (u32, u32)) -> Result<(), GrantError> {
        if range.0 < self.bounds.0 || range.1 > self.bounds.1 {
            return Err(GrantError::GeneralError);
        }
        Ok(())
    }
}

/// The bytes of a frame that are meant: the first, and the one after the last.
fn range(offset: u16, len: u16) -> Result<(u32, u32), GrantError> {
    let (first, end) = (u32::from(offset), u32::from(offset) + u32::from(len));
    if end > PAGE_SIZE as u32 { Err(GrantError::BadCopyArg) } else { Ok((first, end)) }
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::grant_table::{
        GTF_PERMIT_ACCESS, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE,
    };

    use super::*;
    use crate::grant::MapGrant;
    use crate::ram::{A, B, C, Ram, flags_v1, grant_v1, grant_v2, processes, status_v2, write_v2};

    const OWN: CopyEnd = CopyEnd::Own(Gfn(0));

    fn fill(hv: &Hypervisor<Ram>, id: DomId, gfn: u64) {
        let mfn = hv.frame_at(id, Gfn(gfn)).unwrap();
        for offset in 0..PAGE_SIZE {
            hv.machine().set_byte(mfn, offset, offset as u8 ^ 0x5a);
        }
    }

    fn bytes(
        hv: &Hypervisor<Ram>,
        id: DomId,
        gfn: u64,
        offset: usize,
        len: usize,
    ) -> std::vec::Vec<u8> {
        let mfn = hv.frame_at(id, Gfn(gfn)).unwrap();
        (offset..offset + len).map(|offset| hv.machine().byte(mfn, offset)).collect()
    }

    #[test]
    fn copies_both_ways_and_leaves_no_trace() {
        let mut hv = processes();
        fill(&hv, A, 3);
        let read = CopyEnd::Grant(A, grant_v1(&hv, A, 9, B, 3, GTF_READONLY));
        let write = CopyEnd::Grant(A, grant_v1(&hv, A, 10, B, 4, 0));
        assert_eq!(hv.copy_grant(B, (read, 1001), (OWN, 3), 777), Ok(()));
        assert_eq!(bytes(&hv, B, 0, 3, 777), bytes(&hv, A, 3, 1001, 777));
        assert_eq!(bytes(&hv, B, 0, 0, 3), [0; 3]);
        assert_eq!(bytes(&hv, B, 0, 780, 9), [0; 9]);
        assert_eq!(hv.copy_grant(B, (OWN, 3), (write, 0), 777), Ok(()));
        assert_eq!(bytes(&hv, A, 4, 0, 777), bytes(&hv, A, 3, 1001, 777));
        assert_eq!(hv.copy_grant(B, (write, 0), (write, 4000), 96), Ok(()), "one page with itself");
        assert_eq!(flags_v1(&hv, A, 9), GTF_PERMIT_ACCESS | GTF_READONLY);
        assert_eq!(flags_v1(&hv, A, 10), GTF_PERMIT_ACCESS);
    }

    #[test]
    fn refuses_what_was_not_granted() {
        let mut hv = processes();
        let read = CopyEnd::Grant(A, grant_v1(&hv, A, 9, B, 3, GTF_READONLY));
        let nothing = CopyEnd::Grant(A, grant_v1(&hv, A, 10, B, 99, 0));
        let write = CopyEnd::Grant(A, grant_v1(&hv, A, 11, B, 3, 0));
        let mut copy = |caller, source, dest, len| hv.copy_grant(caller, source, dest, len);
        let start = (OWN, 0);
        assert_eq!(copy(B, start, (read, 0), 1), Err(GrantError::GeneralError));
        assert_eq!(copy(C, (read, 0), start, 1), Err(GrantError::GeneralError));
        assert_eq!(copy(B, (nothing, 0), start, 1), Err(GrantError::BadPage));
        assert_eq!(copy(B, start, (nothing, 0), 1), Err(GrantError::BadPage));
        assert_eq!(copy(B, (CopyEnd::Own(Gfn(99)), 0), start, 1), Err(GrantError::BadPage));
        let beyond = CopyEnd::Grant(A, GrantRef(512));
        assert_eq!(copy(B, (beyond, 0), start, 1), Err(GrantError::BadGntref));
        let nobody = CopyEnd::Grant(DomId(77), GrantRef(1));
        assert_eq!(copy(B, (nobody, 0), start, 1), Err(GrantError::BadDomain));
        assert_eq!(copy(B, (beyond, 0), (nobody, 0), 1), Err(GrantError::BadDomain));
        assert_eq!(copy(B, (read, 4095), start, 2), Err(GrantError::BadCopyArg));
        assert_eq!(copy(B, (read, 0), (write, 65535), 65535), Err(GrantError::BadCopyArg));
        assert_eq!(copy(B, (beyond, 65535), (nobody, 0), 0), Ok(()), "nothing is copied");
        for gref in [9, 10, 11] {
            let access = if gref == 9 { GTF_READONLY } else { 0 };
            assert_eq!(flags_v1(&hv, A, gref), GTF_PERMIT_ACCESS | access);
        }
    }

    #[test]
    fn what_is_mapped_is_copied_as_it_was_mapped() {
        let mut hv = processes();
        fill(&hv, A, 3);
        let gref = grant_v1(&hv, A, 9, B, 3, 0);
        let wish = MapGrant { granter: A, gref, readonly: true, at: None };
        hv.map_grant(B, wish).unwrap();
        grant_v1(&hv, A, 9, B, 4, 0);
        let end = CopyEnd::Grant(A, gref);
        assert_eq!(hv.copy_grant(B, (end, 0), (OWN, 0), 9), Ok(()));
        assert_eq!(bytes(&hv, B, 0, 0, 9), bytes(&hv, A, 3, 0, 9));
        assert_eq!(hv.copy_grant(B, (OWN, 0), (end, 0), 9), Err(GrantError::GeneralError));
        assert_eq!(hv.copy_grant(C, (end, 0), (OWN, 0), 9), Err(GrantError::GeneralError));
        grant_v1(&hv, A, 9, B, 3, 0);
        assert_eq!(hv.copy_grant(B, (OWN, 0), (end, 0), 9), Ok(()));
    }

    #[test]
    fn a_part_of_a_page() {
        let mut hv = processes();
        fill(&hv, A, 3);
        hv.set_grant_table_version(A, 2).unwrap();
        let header = u32::from(GTF_PERMIT_ACCESS | GTF_SUB_PAGE) | u32::from(B.0) << 16;
        write_v2(&hv, A, 9, [header, 100 | 50 << 16, 3, 0]);
        let part = CopyEnd::Grant(A, GrantRef(9));
        assert_eq!(hv.copy_grant(B, (part, 100), (OWN, 0), 50), Ok(()));
        assert_eq!(bytes(&hv, B, 0, 0, 50), bytes(&hv, A, 3, 100, 50));
        for (offset, len) in [(99, 2), (100, 51), (150, 1), (0, 4096)] {
            let done = hv.copy_grant(B, (part, offset), (OWN, 0), len);
            assert_eq!(done, Err(GrantError::GeneralError), "{len} bytes from {offset}");
        }
        write_v2(&hv, A, 9, [header, 4000 | 500 << 16, 3, 0]);
        assert_eq!(hv.copy_grant(B, (part, 4000), (OWN, 0), 96), Ok(()));
        assert_eq!(hv.copy_grant(B, (part, 4000), (OWN, 0), 97), Err(GrantError::BadCopyArg));
        assert_eq!(status_v2(&hv, A, 9), 0);
    }

    #[test]
    fn a_grant_is_passed_on_once() {
        let mut hv = processes();
        fill(&hv, A, 3);
        for id in [A, B, C] {
            hv.set_grant_table_version(id, 2).unwrap();
        }
        let transitive = |to: DomId| u32::from(GTF_TRANSITIVE) | u32::from(to.0) << 16;
        grant_v2(&hv, A, 9, B, 3, GTF_READONLY);
        write_v2(&hv, B, 10, [transitive(C), u32::from(A.0), 9, 0]);
        let passed = CopyEnd::Grant(B, GrantRef(10));
        assert_eq!(hv.copy_grant(C, (passed, 7), (OWN, 0), 20), Ok(()));
        assert_eq!(bytes(&hv, C, 0, 0, 20), bytes(&hv, A, 3, 7, 20));
        assert_eq!(hv.copy_grant(C, (OWN, 0), (passed, 7), 20), Err(GrantError::GeneralError));
        assert_eq!(hv.copy_grant(A, (passed, 7), (OWN, 0), 20), Err(GrantError::GeneralError));
        let wish = MapGrant { granter: B, gref: GrantRef(10), readonly: true, at: None };
        assert_eq!(hv.map_grant(C, wish), Err(GrantError::GeneralError), "never mapped");

        // Twice is too far, and so is oneself.
        write_v2(&hv, C, 11, [transitive(A), u32::from(B.0), 10, 0]);
        let twice = CopyEnd::Grant(C, GrantRef(11));
        assert_eq!(hv.copy_grant(A, (twice, 0), (OWN, 0), 1), Err(GrantError::GeneralError));
        write_v2(&hv, B, 12, [transitive(C), u32::from(B.0), 12, 0]);
        let itself = CopyEnd::Grant(B, GrantRef(12));
        assert_eq!(hv.copy_grant(C, (itself, 0), (OWN, 0), 1), Err(GrantError::GeneralError));
        write_v2(&hv, B, 13, [transitive(C), 77, 9, 0]);
        let nobody = CopyEnd::Grant(B, GrantRef(13));
        assert_eq!(hv.copy_grant(C, (nobody, 0), (OWN, 0), 1), Err(GrantError::GeneralError));
        for (id, gref) in [(A, 9), (B, 10), (C, 11), (B, 12), (B, 13)] {
            assert_eq!(status_v2(&hv, id, gref), 0);
        }
        // The one who granted first ends it for all.
        write_v2(&hv, A, 9, [0; 4]);
        assert_eq!(hv.copy_grant(C, (passed, 7), (OWN, 0), 20), Err(GrantError::GeneralError));
    }
}
