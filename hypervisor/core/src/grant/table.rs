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
    /// `ESRCH` if no such domain lives; `EINVAL` above the domain's limit; `ENOMEM` when the machine has no more frames,
    /// and the table then has as many as it could get.
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
    /// that is not reserved is in use; `ERANGE` if a reserved entry cannot be told in version 1; `ENOMEM` without frames
    /// for status words.
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
