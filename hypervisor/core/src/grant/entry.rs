// SPDX-License-Identifier: MIT OR Apache-2.0

//! A grant entry in the page that the granter writes at any moment: judge it, pin it, unpin it.

use ring_proto::xen::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK,
    GTF_WRITING, GrantError, STATUS_PER_PAGE, STATUS_SIZE, V1_PER_PAGE, V2_PER_PAGE,
};
use ring_proto::xen::{DomId, GrantRef};

use super::table::Reserved;
use super::{GrantTable, Version};
use crate::machine::{Gfn, Machine, Mfn, PAGE_SIZE};

/// Where an entry stands. Such a value exists only for a reference inside the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    version: Version,
    /// Frame and offset of the entry.
    at: (Mfn, usize),
    /// Frame and offset of the 16 bits in which the hypervisor tells of its use.
    status: (Mfn, usize),
}

/// What for an entry is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To map it: it has to grant a whole page.
    Map,
    /// To copy: it may grant a part of a page, or be transitive.
    Copy,
}

/// Flags and domain of an entry, read as one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    flags: u16,
    domid: u16,
}

impl Header {
    fn from_word(word: u32) -> Self {
        Self { flags: (word & 0xffff) as u16, domid: (word >> 16) as u16 }
    }

    /// Whether the entry passes on what a third domain granted. Version 1 has no such entries.
    pub(super) fn is_transitive(self, version: Version) -> bool {
        version == Version::V2 && self.flags & GTF_TYPE_MASK == GTF_TRANSITIVE
    }

    /// Whether the entry lets this domain do this.
    fn grants(self, version: Version, grantee: DomId, purpose: Purpose) -> bool {
        let kind = self.flags & GTF_TYPE_MASK;
        let right_kind = match purpose {
            Purpose::Map => kind == GTF_PERMIT_ACCESS && self.flags & GTF_SUB_PAGE == 0,
            Purpose::Copy => kind == GTF_PERMIT_ACCESS || self.is_transitive(version),
        };
        right_kind && self.domid == grantee.0
    }
}

impl Entry {
    /// The entry of a reference, if the table is that long.
    pub(crate) fn find(table: &GrantTable, gref: u32) -> Option<Self> {
        let at = |pages: &[Mfn], per_page: u32, size: usize| {
            let mfn = *pages.get((gref / per_page) as usize)?;
            Some((mfn, (gref % per_page) as usize * size))
        };
        let (at, status) = match table.version {
            Version::V1 => {
                let at = at(&table.shared, V1_PER_PAGE, 8)?;
                (at, at)
            }
            Version::V2 => (
                at(&table.shared, V2_PER_PAGE, 16)?,
                at(&table.status, STATUS_PER_PAGE, STATUS_SIZE)?,
            ),
        };
        Some(Self { version: table.version, at, status })
    }

    fn header<M: Machine>(&self, machine: &M) -> Header {
        Header::from_word(machine.load(self.at.0, self.at.1))
    }

    /// The guest frame that it grants, as it stands there now.
    pub(crate) fn gfn<M: Machine>(&self, machine: &M) -> Gfn {
        let (mfn, offset) = self.at;
        match self.version {
            Version::V1 => Gfn(machine.load(mfn, offset + 4).into()),
            Version::V2 => {
                let low: u64 = machine.load(mfn, offset + 8).into();
                let high: u64 = machine.load(mfn, offset + 12).into();
                Gfn(low | high << 32)
            }
        }
    }

    /// The guest frame that it grants, and which of its bytes: the first, and the one after the last.
    pub(super) fn part<M: Machine>(&self, machine: &M, header: Header) -> (Gfn, (u32, u32)) {
        let (mfn, offset) = self.at;
        let mut bounds = (0, PAGE_SIZE as u32);
        if self.version == Version::V2 && header.flags & GTF_SUB_PAGE != 0 {
            let word = machine.load(mfn, offset + 4);
            bounds = (word & 0xffff, (word & 0xffff) + (word >> 16));
        }
        (self.gfn(machine), bounds)
    }

    /// The grant of a third domain that a transitive entry passes on.
    pub(super) fn passes_on<M: Machine>(&self, machine: &M) -> (DomId, GrantRef) {
        let (mfn, offset) = self.at;
        let domid = machine.load(mfn, offset + 4) & 0xffff;
        (DomId(domid as u16), GrantRef(machine.load(mfn, offset + 8)))
    }

    /// The entry as both versions can tell it.
    pub(super) fn save<M: Machine>(&self, machine: &M) -> Reserved {
        let header = machine.load(self.at.0, self.at.1) | u32::from(self.status(machine));
        Reserved { header, frame: self.gfn(machine).0 }
    }

    /// Writes an entry into a table that was cleared.
    pub(super) fn restore<M: Machine>(&self, machine: &M, entry: Reserved) {
        let (mfn, offset) = self.at;
        match self.version {
            Version::V1 => machine.store(mfn, offset + 4, entry.frame as u32),
            Version::V2 => {
                machine.store(mfn, offset + 8, entry.frame as u32);
                machine.store(mfn, offset + 12, (entry.frame >> 32) as u32);
                self.replace_status(machine, entry.header as u16);
            }
        }
        let flags = match self.version {
            Version::V1 => entry.header,
            Version::V2 => entry.header & !u32::from(Reserved::STATUS),
        };
        machine.store(mfn, offset, flags);
    }

    /// Swaps two entries that are not in use.
    pub(super) fn swap<M: Machine>(&self, other: &Self, machine: &M) {
        let size = match self.version {
            Version::V1 => 8,
            Version::V2 => 16,
        };
        for offset in (0..size).step_by(4) {
            let (here, there) =
                ((self.at.0, self.at.1 + offset), (other.at.0, other.at.1 + offset));
            let word = machine.load(here.0, here.1);
            machine.store(here.0, here.1, machine.load(there.0, there.1));
            machine.store(there.0, there.1, word);
        }
        if self.version == Version::V2 {
            // Nobody uses them, but their domain may have written there.
            let (here, there) = (self.status(machine), other.status(machine));
            self.replace_status(machine, there);
            other.replace_status(machine, here);
        }
    }

    /// Tells the granter that its entry is in use, if it grants what is asked, and returns what was judged. An entry
    /// that is `pinned` already was judged then; only whether it may be written is asked anew.
    pub(crate) fn pin<M: Machine>(
        &self,
        machine: &M,
        pinned: bool,
        grantee: DomId,
        readonly: bool,
        purpose: Purpose,
    ) -> Result<Header, GrantError> {
        let uses = if readonly { GTF_READING } else { GTF_READING | GTF_WRITING };
        let allows = |header: Header| {
            (pinned || header.grants(self.version, grantee, purpose))
                && (readonly || header.flags & GTF_READONLY == 0)
        };
        match self.version {
            Version::V1 => self.pin_v1(machine, uses, allows),
            Version::V2 => self.pin_v2(machine, uses, pinned, allows),
        }
    }

    /// Version 1: the flag goes into the very word that was judged. The granter may legally change that word at the
    /// same time (to add [`GTF_READONLY`], say), but one who does so for ever is not waited for.
    fn pin_v1<M: Machine>(
        &self,
        machine: &M,
        uses: u16,
        allows: impl Fn(Header) -> bool,
    ) -> Result<Header, GrantError> {
        const TRIES: u32 = 5;
        let (mfn, offset) = self.at;
        let mut word = machine.load(mfn, offset);
        for _ in 0..TRIES {
            let header = Header::from_word(word);
            if !allows(header) {
                return Err(GrantError::GeneralError);
            }
            match machine.compare_exchange(mfn, offset, word, word | u32::from(uses)) {
                Ok(_) => return Ok(header),
                Err(now) => word = now,
            }
        }
        Err(GrantError::GeneralError)
    }

    /// Version 2: the flag goes into the status word; the entry is judged before, and once more after the granter can
    /// see the flag. A granter revokes by clearing the entry and then looking at the flag, so one of both sees the
    /// other.
    fn pin_v2<M: Machine>(
        &self,
        machine: &M,
        uses: u16,
        pinned: bool,
        allows: impl Fn(Header) -> bool,
    ) -> Result<Header, GrantError> {
        if !allows(self.header(machine)) {
            return Err(GrantError::GeneralError);
        }
        self.set_status(machine, uses);
        let header = self.header(machine);
        if allows(header) {
            return Ok(header);
        }
        // Reading is in use for as long as the entry is pinned by somebody.
        self.clear_status(machine, if pinned { GTF_WRITING } else { GTF_READING | GTF_WRITING });
        Err(GrantError::GeneralError)
    }

    /// Bits of the status, shifted to where they stand in their word, and where the word is.
    fn status_word(&self, bits: u16) -> (Mfn, usize, u32) {
        let (mfn, offset) = self.status;
        (mfn, offset & !3, u32::from(bits) << (8 * (offset & 2)))
    }

    /// The bits that tell of the entry's use.
    fn status<M: Machine>(&self, machine: &M) -> u16 {
        let (mfn, offset, _) = self.status_word(0);
        let word = machine.load(mfn, offset) >> (8 * (self.status.1 & 2));
        word as u16 & Reserved::STATUS
    }

    fn replace_status<M: Machine>(&self, machine: &M, bits: u16) {
        self.clear_status(machine, Reserved::STATUS & !bits);
        self.set_status(machine, Reserved::STATUS & bits);
    }

    fn set_status<M: Machine>(&self, machine: &M, bits: u16) {
        let (mfn, offset, bits) = self.status_word(bits);
        machine.fetch_or(mfn, offset, bits);
    }

    /// Tells the granter that its entry is no longer in use in these ways.
    pub(crate) fn clear_status<M: Machine>(&self, machine: &M, bits: u16) {
        let (mfn, offset, bits) = self.status_word(bits);
        if bits != 0 {
            machine.fetch_and(mfn, offset, !bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hypervisor;
    use crate::grant::MapGrant;
    use crate::ram::{A, B, C, Ram, flags_v1, grant_v1, grant_v2, processes, status_v2};

    const GREF: u32 = 9;

    /// Maps while the granter writes these headers into its entry, one just before each change by the hypervisor.
    fn map(hv: &mut Hypervisor<Ram>, readonly: bool, headers: &[u32]) -> Result<(), GrantError> {
        let table = hv.domains[&A].grants.shared[0];
        let size = if hv.domains[&A].grants.version == Version::V1 { 8 } else { 16 };
        let races = headers.iter().map(|header| (table, GREF as usize * size, *header));
        hv.machine().races.borrow_mut().extend(races);
        let wish = MapGrant { granter: A, gref: GrantRef(GREF), readonly, at: None };
        let mapped = hv.map_grant(B, wish).map(drop);
        hv.machine().races.borrow_mut().clear();
        mapped
    }

    fn header(flags: u16, to: DomId) -> u32 {
        u32::from(flags) | u32::from(to.0) << 16
    }

    #[test]
    fn a_version_1_entry_that_changes() {
        let plain = header(GTF_PERMIT_ACCESS, B);
        let readonly = header(GTF_PERMIT_ACCESS | GTF_READONLY, B);
        let (foreign, nothing) = (header(GTF_PERMIT_ACCESS, C), 0);
        let refused = Err(GrantError::GeneralError);
        for (wish_readonly, headers, expected) in [
            (true, &[readonly][..], Ok(())),
            (true, &[readonly, plain, readonly, plain][..], Ok(())),
            (true, &[readonly, plain, readonly, plain, readonly][..], refused),
            (false, &[readonly][..], refused),
            (true, &[foreign][..], refused),
            (true, &[nothing][..], refused),
            (true, &[readonly, nothing, plain][..], refused),
        ] {
            let mut hv = processes();
            grant_v1(&hv, A, GREF, B, 3, 0);
            assert_eq!(map(&mut hv, wish_readonly, headers), expected, "{headers:x?}");
            let in_use = flags_v1(&hv, A, GREF) & (GTF_READING | GTF_WRITING);
            assert_eq!(in_use, if expected.is_ok() { GTF_READING } else { 0 }, "{headers:x?}");
            assert_eq!(hv.mappings(B).count(), usize::from(expected.is_ok()));
        }
    }

    #[test]
    fn a_version_2_entry_that_is_revoked_meanwhile() {
        for headers in [[0], [header(GTF_PERMIT_ACCESS, C)], [header(GTF_SUB_PAGE | 1, B)]] {
            let mut hv = processes();
            hv.set_grant_table_version(A, 2).unwrap();
            grant_v2(&hv, A, GREF, B, 3, 0);
            assert_eq!(map(&mut hv, true, &headers), Err(GrantError::GeneralError));
            assert_eq!(status_v2(&hv, A, GREF), 0);
        }
        // What is mapped stays in use when a second mapping is refused.
        let mut hv = processes();
        hv.set_grant_table_version(A, 2).unwrap();
        grant_v2(&hv, A, GREF, B, 3, 0);
        assert_eq!(map(&mut hv, true, &[]), Ok(()));
        let readonly = header(GTF_PERMIT_ACCESS | GTF_READONLY, B);
        assert_eq!(map(&mut hv, false, &[readonly]), Err(GrantError::GeneralError));
        assert_eq!(status_v2(&hv, A, GREF), GTF_READING);
    }
}
