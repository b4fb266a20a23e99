// SPDX-License-Identifier: MIT OR Apache-2.0

//! A grant entry in the page that the granter writes at any moment: judge it, pin it, unpin it.

use ring_proto::xen::DomId;
use ring_proto::xen::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK,
    GTF_WRITING, GrantError, STATUS_PER_PAGE, STATUS_SIZE, V1_PER_PAGE, V2_PER_PAGE,
};

use super::{GrantTable, Version};
use crate::machine::{Gfn, Machine, Mfn};

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
    pub(crate) flags: u16,
    domid: u16,
}

impl Header {
    fn from_word(word: u32) -> Self {
        Self { flags: (word & 0xffff) as u16, domid: (word >> 16) as u16 }
    }

    /// Whether the entry lets this domain do this.
    fn grants(self, version: Version, grantee: DomId, purpose: Purpose) -> bool {
        let kind = self.flags & GTF_TYPE_MASK;
        let right_kind = match purpose {
            Purpose::Map => kind == GTF_PERMIT_ACCESS && self.flags & GTF_SUB_PAGE == 0,
            Purpose::Copy => {
                kind == GTF_PERMIT_ACCESS || (version == Version::V2 && kind == GTF_TRANSITIVE)
            }
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

    pub(crate) fn header<M: Machine>(&self, machine: &M) -> Header {
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

    /// Tells the granter that its entry is in use, if it grants what is asked. An entry that is `pinned` already was
    /// judged then; only whether it may be written is asked anew.
    pub(crate) fn pin<M: Machine>(
        &self,
        machine: &M,
        pinned: bool,
        grantee: DomId,
        readonly: bool,
        purpose: Purpose,
    ) -> Result<(), GrantError> {
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
    ) -> Result<(), GrantError> {
        const TRIES: u32 = 5;
        let (mfn, offset) = self.at;
        let mut word = machine.load(mfn, offset);
        for _ in 0..TRIES {
            if !allows(Header::from_word(word)) {
                return Err(GrantError::GeneralError);
            }
            match machine.compare_exchange(mfn, offset, word, word | u32::from(uses)) {
                Ok(_) => return Ok(()),
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
    ) -> Result<(), GrantError> {
        if !allows(self.header(machine)) {
            return Err(GrantError::GeneralError);
        }
        self.set_status(machine, uses);
        if allows(self.header(machine)) {
            return Ok(());
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
