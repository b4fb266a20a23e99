// SPDX-License-Identifier: MIT OR Apache-2.0

//! This domain's side of its grant table, version 1: what it writes there itself, without a hypercall.

use ring_proto::shared::SharedMemory;
use ring_proto::xen::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, NR_RESERVED_ENTRIES,
};
use ring_proto::xen::{DomId, GrantRef};

use crate::Access;

const ENTRY_SIZE: usize = 8;
const FRAME_OFFSET: usize = 4;
/// How often ending a grant is tried while the hypervisor changes the entry under it.
const ATTEMPTS: usize = 16;

/// The entries of a table, in whatever memory it lies.
#[derive(Debug)]
pub(super) struct GrantTable<M> {
    memory: M,
}

impl<M: SharedMemory> GrantTable<M> {
    pub fn new(memory: M) -> Self {
        Self { memory }
    }

    /// The references that this domain may use, lowest last.
    pub fn free_refs(&self) -> Vec<GrantRef> {
        let entries = u32::try_from(self.memory.len() / ENTRY_SIZE).unwrap_or(u32::MAX);
        (NR_RESERVED_ENTRIES..entries).rev().map(GrantRef).collect()
    }

    /// Lets `peer` map `frame`. The entry must be free.
    pub fn permit(&self, gref: GrantRef, peer: DomId, frame: u32, access: Access) {
        let readonly = if access == Access::ReadOnly { GTF_READONLY } else { 0 };
        let entry = entry_offset(gref);
        self.memory.store(entry + FRAME_OFFSET, frame);
        // The flags go last: with them the entry becomes valid, and the frame must be there by then.
        self.memory.store_release(
            entry,
            u32::from(GTF_PERMIT_ACCESS | readonly) | u32::from(peer.0) << 16,
        );
    }

    /// Takes a grant back, unless the peer holds the page mapped. Returns whether it is ended.
    pub fn end(&self, gref: GrantRef) -> bool {
        let entry = entry_offset(gref);
        let mut seen = self.memory.load(entry);
        for _ in 0..ATTEMPTS {
            if seen & u32::from(GTF_READING | GTF_WRITING) != 0 {
                return false;
            }
            match self.memory.compare_exchange(entry, seen, 0) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }
}

fn entry_offset(gref: GrantRef) -> usize {
    gref.0 as usize * ENTRY_SIZE
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use ring_proto::shared::Region;

    use super::*;

    fn with_table(test: impl FnOnce(&GrantTable<Region<'_>>, Region<'_>)) {
        let mut memory = vec![0u64; 512];
        // SAFETY: the vector outlives the region and is used through it only.
        let region =
            unsafe { Region::new(NonNull::new(memory.as_mut_ptr().cast()).unwrap(), 4096) };
        test(&GrantTable::new(region), region);
        drop(memory);
    }

    #[test]
    fn entry_is_laid_out_as_xen_has_it() {
        with_table(|table, region| {
            table.permit(GrantRef(9), DomId(0x1234), 0xaabb_ccdd, Access::ReadOnly);
            let mut bytes = [0; 8];
            region.copy_out(72, &mut bytes);
            assert_eq!(bytes, [0x05, 0x00, 0x34, 0x12, 0xdd, 0xcc, 0xbb, 0xaa]);
            assert!(table.end(GrantRef(9)));
            assert_eq!(region.load(72), 0);
        });
    }

    #[test]
    fn mapped_grant_does_not_end() {
        with_table(|table, region| {
            for flag in [GTF_READING, GTF_WRITING] {
                table.permit(GrantRef(8), DomId(1), 7, Access::ReadWrite);
                let entry = region.load(64);
                region.store(64, entry | u32::from(flag));
                assert!(!table.end(GrantRef(8)));
                assert_eq!(region.load(64), entry | u32::from(flag), "the entry stays as it is");
                region.store(64, entry);
                assert!(table.end(GrantRef(8)));
            }
        });
    }

    #[test]
    fn reserved_references_are_not_used() {
        with_table(|table, _| {
            let refs = table.free_refs();
            assert_eq!(refs.len(), 504);
            assert_eq!((refs.first(), refs.last()), (Some(&GrantRef(511)), Some(&GrantRef(8))));
        });
    }
}
