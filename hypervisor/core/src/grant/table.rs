// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table itself: its size, its version, its entries as such.

use alloc::vec::Vec;

use ring_proto::xen::grant_table::{
    GTF_INVALID, GTF_PERMIT_ACCESS, GTF_READING, GTF_TRANSITIVE, GTF_TYPE_MASK, GTF_WRITING,
    GrantError, NR_RESERVED_ENTRIES, STATUS_PER_PAGE, V2_PER_PAGE,
};
use ring_proto::xen::{DomId, Errno, GrantRef};

use super::Version;
use super::entry::Entry;
use crate::Hypervisor;
use crate::machine::{FrameUse, Machine, Mfn};

/// Size of a grant table in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Frames that it has.
    pub frames: u32,
    /// Frames that it may have.
    pub max_frames: u32,
}

impl<M: Machine> Hypervisor<M> {
    /// The frames of a domain's grant table, after it grew to `frames` frames if it had fewer.
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives; `EINVAL` above the domain's limit; `ENOMEM` when the machine has no more
    /// frames, and the table then has as many as it could get.
    pub fn grant_table_frames(&mut self, id: DomId, frames: u32) -> Result<&[Mfn], Errno> {
        self.grow_grant_table(id, frames)?;
        Ok(self.live(id).map_or(&[], |domain| &domain.grants.shared))
    }

    /// The frames of the status words of a domain's grant table; none in version 1.
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives.
    pub fn grant_status_frames(&self, id: DomId) -> Result<&[Mfn], Errno> {
        self.live(id).map(|domain| domain.grants.status.as_slice()).ok_or(Errno::ESRCH)
    }

    /// How large a domain's grant table is, and may be (`GNTTABOP_query_size`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives.
    pub fn grant_table_size(&self, id: DomId) -> Result<TableSize, Errno> {
        let table = &self.live(id).ok_or(Errno::ESRCH)?.grants;
        let frames = u32::try_from(table.shared.len()).unwrap_or(u32::MAX);
        Ok(TableSize { frames, max_frames: table.max_frames })
    }

    /// Version of a domain's grant table (`GNTTABOP_get_version`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if no such domain lives.
    pub fn grant_table_version(&self, id: DomId) -> Result<u32, Errno> {
        let table = &self.live(id).ok_or(Errno::ESRCH)?.grants;
        Ok(match table.version {
            Version::V1 => 1,
            Version::V2 => 2,
        })
    }

    /// Sees to it that a domain's grant table has at least `frames` frames, and the status frames that go with them.
    pub(crate) fn grow_grant_table(&mut self, id: DomId, frames: u32) -> Result<(), Errno> {
        let table = &self.live(id).ok_or(Errno::ESRCH)?.grants;
        if frames > table.max_frames {
            return Err(Errno::EINVAL);
        }
        let now = u32::try_from(table.shared.len()).unwrap_or(u32::MAX);
        // Status frames first: an entry never exists without its status word.
        if table.version == Version::V2 {
            self.add_status_frames(id, frames.max(now))?;
        }
        for index in now..frames {
            let mfn = self.allocate(id, FrameUse::GrantTable(index))?;
            self.live_mut(id).ok_or(Errno::ESRCH)?.grants.shared.push(mfn);
        }
        Ok(())
    }

    /// Sees to it that there is a status word for each entry of version 2 in `frames` frames.
    fn add_status_frames(&mut self, id: DomId, frames: u32) -> Result<(), Errno> {
        let table = &self.live(id).ok_or(Errno::ESRCH)?.grants;
        let now = u32::try_from(table.status.len()).unwrap_or(u32::MAX);
        for index in now..frames.saturating_mul(V2_PER_PAGE).div_ceil(STATUS_PER_PAGE) {
            let mfn = self.allocate(id, FrameUse::GrantStatus(index))?;
            self.live_mut(id).ok_or(Errno::ESRCH)?.grants.status.push(mfn);
        }
        Ok(())
    }

    /// Changes the version of the caller's table (`GNTTABOP_set_version`). All entries but the eight reserved ones are
    /// cleared.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a version that does not exist; `ENOSYS` for 2 if the domain may only have 1; `EBUSY` while an entry
    /// that is not reserved is in use; `ERANGE` if a reserved entry cannot be told in version 1; `ENOMEM` without
    /// frames for status words.
    pub fn set_grant_table_version(&mut self, caller: DomId, version: u32) -> Result<(), Errno> {
        let table = &self.live(caller).ok_or(Errno::ESRCH)?.grants;
        let version = match version {
            1 => Version::V1,
            2 if table.max_version < 2 => return Err(Errno::ENOSYS),
            2 => Version::V2,
            _ => return Err(Errno::EINVAL),
        };
        if table.version == version {
            return Ok(());
        }
        if table.active.range(NR_RESERVED_ENTRIES..).next().is_some() {
            return Err(Errno::EBUSY);
        }
        let reserved = match version {
            Version::V2 => {
                let frames = u32::try_from(table.shared.len()).unwrap_or(u32::MAX);
                self.add_status_frames(caller, frames)?;
                self.reserved_entries(caller)
            }
            Version::V1 => self.reserved_entries_for_v1(caller)?,
        };
        let mut unused = Vec::new();
        if let Some(domain) = self.live_mut(caller) {
            domain.grants.version = version;
            if version == Version::V1 {
                unused = core::mem::take(&mut domain.grants.status);
            }
        }
        for mfn in unused {
            self.displace_frame(caller, mfn);
            self.release(mfn, false);
        }
        let Some(domain) = self.live(caller) else { return Ok(()) };
        for mfn in &domain.grants.shared {
            self.machine.zero(*mfn);
        }
        for (gref, words) in (0..).zip(reserved) {
            if let Some(entry) = Entry::find(&domain.grants, gref) {
                entry.restore(&self.machine, words);
            }
        }
        Ok(())
    }

    fn reserved_entries(&self, id: DomId) -> Vec<Reserved> {
        let Some(domain) = self.live(id) else { return Vec::new() };
        let entries = (0..NR_RESERVED_ENTRIES).map_while(|gref| Entry::find(&domain.grants, gref));
        entries.map(|entry| entry.save(&self.machine)).collect()
    }

    /// The reserved entries, if version 1 can tell them all.
    fn reserved_entries_for_v1(&self, id: DomId) -> Result<Vec<Reserved>, Errno> {
        let mut entries = self.reserved_entries(id);
        for entry in &mut entries {
            match entry.header as u16 & GTF_TYPE_MASK {
                GTF_TRANSITIVE => return Err(Errno::ERANGE),
                GTF_PERMIT_ACCESS if entry.frame >> 32 != 0 => return Err(Errno::ERANGE),
                GTF_PERMIT_ACCESS => {}
                _ => *entry = Reserved { header: u32::from(GTF_INVALID), frame: 0 },
            }
        }
        Ok(entries)
    }

    /// Swaps two entries of the caller's table (`GNTTABOP_swap_grant_ref`).
    ///
    /// # Errors
    ///
    /// `BadGntref` beyond the end of the table; `Eagain` while one of them is in use.
    pub fn swap_grant_refs(
        &mut self,
        caller: DomId,
        one: GrantRef,
        other: GrantRef,
    ) -> Result<(), GrantError> {
        let table = &self.live(caller).ok_or(GrantError::BadDomain)?.grants;
        let find = |gref| Entry::find(table, gref).ok_or(GrantError::BadGntref);
        let (first, second) = (find(one.0)?, find(other.0)?);
        if one == other {
            return Ok(());
        }
        if table.active.contains_key(&one.0) || table.active.contains_key(&other.0) {
            return Err(GrantError::Eagain);
        }
        first.swap(&second, &self.machine);
        Ok(())
    }
}

/// An entry on its way from one version to the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    /// Domain and flags, as version 1 has them: with those of its use.
    pub(super) header: u32,
    pub(super) frame: u64,
}

impl Reserved {
    /// Flags that stand in the status word of version 2.
    pub(super) const STATUS: u16 = GTF_READING | GTF_WRITING;
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::grant_table::{EntryV1, GTF_READONLY, GTF_SUB_PAGE};

    use super::*;
    use crate::grant::MapGrant;
    use crate::ram::{
        A, B, Ram, domains, flags_v1, grant_v1, grant_v2, processes, status_v2, write_v1, write_v2,
    };
    use crate::{DomainConfig, DomainKind, Gfn};

    fn map(gref: u32, readonly: bool) -> MapGrant {
        MapGrant { granter: A, gref: GrantRef(gref), readonly, at: None }
    }

    #[test]
    fn grows_to_its_limit() {
        let mut hv = processes();
        assert_eq!(hv.grant_table_size(A), Ok(TableSize { frames: 1, max_frames: 64 }));
        let gref = grant_v1(&hv, A, 500, B, 1, 0);
        assert_eq!(hv.grant_table_frames(A, 3).map(<[_]>::len), Ok(3));
        assert_eq!(hv.grant_table_frames(A, 0).map(<[_]>::len), Ok(3), "it never shrinks");
        grant_v1(&hv, A, 1535, B, 2, 0);
        assert_eq!(hv.map_grant(B, map(gref.0, true)).unwrap().gfn, Gfn(1));
        assert_eq!(hv.map_grant(B, map(1535, true)).unwrap().gfn, Gfn(2));
        assert_eq!(hv.map_grant(B, map(1536, true)), Err(GrantError::BadGntref));
        assert_eq!(hv.grant_table_frames(A, 65), Err(Errno::EINVAL));
        hv.machine_mut().left = 1;
        assert_eq!(hv.grant_table_frames(A, 6), Err(Errno::ENOMEM));
        assert_eq!(hv.grant_table_size(A).unwrap().frames, 4);
    }

    #[test]
    fn version_2_keeps_its_status_apart() {
        let mut hv = processes();
        hv.set_grant_table_version(A, 2).unwrap();
        assert_eq!(hv.grant_table_version(A), Ok(2));
        hv.grant_table_frames(A, 9).unwrap();
        assert_eq!(hv.grant_status_frames(A).unwrap().len(), 2, "2304 entries");
        for gref in [9, 10, 2047, 2048] {
            grant_v2(&hv, A, gref, B, 3, 0);
            let read = hv.map_grant(B, map(gref, true)).unwrap();
            assert_eq!(status_v2(&hv, A, gref), GTF_READING);
            let write = hv.map_grant(B, map(gref, false)).unwrap();
            assert_eq!(status_v2(&hv, A, gref), GTF_READING | GTF_WRITING);
            assert_eq!(status_v2(&hv, A, gref ^ 1), 0, "the neighbour's stays");
            hv.unmap_grant(B, read.handle, None).unwrap();
            assert_eq!(status_v2(&hv, A, gref), GTF_READING | GTF_WRITING);
            hv.unmap_grant(B, write.handle, None).unwrap();
            assert_eq!(status_v2(&hv, A, gref), 0);
        }
        assert_eq!(hv.map_grant(B, map(2304, true)), Err(GrantError::BadGntref));
        grant_v2(&hv, A, 9, B, 3, GTF_READONLY);
        grant_v2(&hv, A, 10, B, 3, GTF_SUB_PAGE);
        write_v2(&hv, A, 11, [1 | 2 << 16, 0, 3, 1]);
        for (gref, readonly) in [(9, false), (10, true)] {
            assert_eq!(hv.map_grant(B, map(gref, readonly)), Err(GrantError::GeneralError));
        }
        assert_eq!(hv.map_grant(B, map(11, false)), Err(GrantError::BadPage), "64-bit frames");
        for gref in [9, 10, 11] {
            assert_eq!(status_v2(&hv, A, gref), 0);
        }
    }

    #[test]
    fn a_change_of_version_keeps_only_reserved_entries() {
        let mut hv = domains(DomainKind::Pvh);
        grant_v1(&hv, A, 1, B, 5, 0);
        grant_v1(&hv, A, 8, B, 6, 0);
        let at = |gref, gfn| MapGrant { at: Some(Gfn(gfn)), ..map(gref, false) };
        let mapped = hv.map_grant(B, at(1, 100)).unwrap();
        let busy = hv.map_grant(B, at(8, 101)).unwrap();
        assert_eq!(hv.set_grant_table_version(A, 3), Err(Errno::EINVAL));
        assert_eq!(hv.set_grant_table_version(A, 2), Err(Errno::EBUSY));
        hv.unmap_grant(B, busy.handle, Some(Gfn(101))).unwrap();
        assert_eq!(hv.set_grant_table_version(A, 2), Ok(()));
        assert_eq!(status_v2(&hv, A, 1), GTF_READING | GTF_WRITING);
        assert_eq!(hv.map_grant(B, at(8, 101)), Err(GrantError::GeneralError), "cleared");

        let status = FrameUse::GrantStatus(0);
        hv.place_frame(A, status, Gfn(200)).unwrap();
        let used = hv.machine().used();
        assert_eq!(hv.set_grant_table_version(A, 1), Ok(()));
        assert_eq!(hv.machine().used(), used - 1, "the status frame");
        assert_eq!(hv.frame_at(A, Gfn(200)), None);
        assert_eq!(flags_v1(&hv, A, 1), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        hv.unmap_grant(B, mapped.handle, Some(Gfn(100))).unwrap();
        assert_eq!(flags_v1(&hv, A, 1), GTF_PERMIT_ACCESS);
        assert_eq!(hv.map_grant(B, at(1, 100)).unwrap().gfn, Gfn(5));
    }

    #[test]
    fn version_1_cannot_tell_all() {
        let mut hv = processes();
        hv.set_grant_table_version(A, 2).unwrap();
        write_v2(&hv, A, 0, [u32::from(GTF_TRANSITIVE), 0, 0, 0]);
        assert_eq!(hv.set_grant_table_version(A, 1), Err(Errno::ERANGE));
        write_v2(&hv, A, 0, [u32::from(GTF_PERMIT_ACCESS), 0, 0, 1]);
        assert_eq!(hv.set_grant_table_version(A, 1), Err(Errno::ERANGE));
        assert_eq!(hv.grant_table_version(A), Ok(2));
        write_v2(&hv, A, 0, [u32::from(GTF_PERMIT_ACCESS), 0, 7, 0]);
        assert_eq!(hv.set_grant_table_version(A, 1), Ok(()));

        let mut hv = Hypervisor::new(Ram::new(10));
        let config =
            DomainConfig { max_grant_version: 1, ..DomainConfig::new(DomainKind::Process, 1) };
        hv.create_domain(A, &config).unwrap();
        assert_eq!(hv.set_grant_table_version(A, 2), Err(Errno::ENOSYS));
    }

    #[test]
    fn swaps_entries() {
        let mut hv = processes();
        grant_v1(&hv, A, 9, B, 3, 0);
        write_v1(&hv, A, 10, EntryV1 { flags: 0, domid: 7, frame: 8 });
        let swap = |hv: &mut Hypervisor<Ram>, one, other| {
            hv.swap_grant_refs(A, GrantRef(one), GrantRef(other))
        };
        assert_eq!(swap(&mut hv, 9, 10), Ok(()));
        let mapped = hv.map_grant(B, map(10, false)).unwrap();
        assert_eq!(mapped.gfn, Gfn(3));
        assert_eq!(swap(&mut hv, 10, 9), Err(GrantError::Eagain));
        assert_eq!(swap(&mut hv, 9, 10), Err(GrantError::Eagain));
        assert_eq!(swap(&mut hv, 10, 10), Ok(()), "nothing to do");
        assert_eq!(swap(&mut hv, 9, 512), Err(GrantError::BadGntref));
        assert_eq!(swap(&mut hv, 512, 9), Err(GrantError::BadGntref));
    }

    #[test]
    fn shared_frames_have_one_place() {
        let mut hv = domains(DomainKind::Pvh);
        let table = FrameUse::GrantTable(1);
        assert_eq!(hv.place_frame(A, table, Gfn(7)), Err(Errno::EINVAL), "memory is there");
        hv.place_frame(A, table, Gfn(50)).unwrap();
        let mfn = hv.frame_at(A, Gfn(50)).unwrap();
        assert_eq!(hv.grant_table_frames(A, 2).unwrap()[1], mfn);
        hv.place_frame(A, table, Gfn(51)).unwrap();
        assert_eq!((hv.frame_at(A, Gfn(50)), hv.frame_at(A, Gfn(51))), (None, Some(mfn)));
        assert_eq!(hv.place_frame(A, FrameUse::SharedInfo, Gfn(51)), Err(Errno::EINVAL));
        assert_eq!(hv.place_frame(A, FrameUse::GrantStatus(0), Gfn(52)), Err(Errno::EINVAL));
        assert_eq!(hv.place_frame(A, FrameUse::GrantTable(64), Gfn(52)), Err(Errno::EINVAL));
        assert_eq!(hv.place_frame(A, FrameUse::Memory(Gfn(1)), Gfn(52)), Err(Errno::EINVAL));
        // Such a frame is not the domain's to grant.
        grant_v1(&hv, A, 9, B, 51, 0);
        let wish = MapGrant { at: Some(Gfn(60)), ..map(9, true) };
        assert_eq!(hv.map_grant(B, wish), Err(GrantError::BadPage));
    }
}
