// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every frame in use: whose it is, what for, and how many hold it.

use alloc::collections::BTreeMap;

use ring_proto::xen::DomId;

use crate::machine::{FrameUse, Machine, Mfn};

/// One frame in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    owner: DomId,
    usage: FrameUse,
    /// One for its owner while that lives, and one for each mapping.
    references: u32,
    /// How many of the references may write.
    writers: u32,
}

impl Frame {
    /// The domain that it was allocated for.
    pub fn owner(&self) -> DomId {
        self.owner
    }

    /// What it is for.
    pub fn usage(&self) -> FrameUse {
        self.usage
    }

    /// How many hold it: its owner, and each mapping.
    pub fn references(&self) -> u32 {
        self.references
    }

    /// How many mappings may write it.
    pub fn writers(&self) -> u32 {
        self.writers
    }
}

/// All frames in use, by number.
#[derive(Debug, Default)]
pub struct FrameTable {
    frames: BTreeMap<Mfn, Frame>,
}

impl FrameTable {
    /// The frame of this number, if it is in use.
    pub fn get(&self, mfn: Mfn) -> Option<&Frame> {
        self.frames.get(&mfn)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Mfn, &Frame)> {
        self.frames.iter().map(|(mfn, frame)| (*mfn, frame))
    }

    /// Allocates a frame, held by its owner.
    pub(crate) fn allocate<M: Machine>(
        &mut self,
        machine: &mut M,
        owner: DomId,
        usage: FrameUse,
    ) -> Option<Mfn> {
        let mfn = machine.allocate(owner, usage)?;
        let frame = Frame { owner, usage, references: 1, writers: 0 };
        let before = self.frames.insert(mfn, frame);
        debug_assert!(before.is_none(), "{mfn} handed out twice");
        Some(mfn)
    }

    /// Takes one more reference. Returns whether there is such a frame, and room to count.
    #[must_use]
    pub(crate) fn hold(&mut self, mfn: Mfn, writable: bool) -> bool {
        let Some(frame) = self.frames.get_mut(&mfn) else { return false };
        let Some(references) = frame.references.checked_add(1) else { return false };
        frame.references = references;
        frame.writers += u32::from(writable);
        true
    }

    /// Drops a reference. With the last one the frame is zeroed and goes back to the machine; then its owner is
    /// returned.
    pub(crate) fn release<M: Machine>(
        &mut self,
        machine: &mut M,
        mfn: Mfn,
        writable: bool,
    ) -> Option<DomId> {
        let frame = self.frames.get_mut(&mfn)?;
        debug_assert!(frame.references > 0 && frame.writers >= u32::from(writable));
        frame.references = frame.references.saturating_sub(1);
        frame.writers = frame.writers.saturating_sub(u32::from(writable));
        if frame.references > 0 {
            return None;
        }
        let owner = frame.owner;
        self.frames.remove(&mfn);
        machine.zero(mfn);
        machine.free(mfn);
        Some(owner)
    }
}
