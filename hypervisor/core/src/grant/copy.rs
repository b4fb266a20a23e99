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
