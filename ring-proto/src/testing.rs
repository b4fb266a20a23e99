// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Memory to share between both ends in one test, without threads and without `unsafe`.

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use crate::shared::SharedMemory;

/// Memory of which all clones are the same. An access outside of it fails the test.
#[derive(Clone, Debug)]
pub struct Local(Rc<RefCell<Vec<u8>>>);

impl Local {
    /// `len` zero bytes.
    pub fn new(len: usize) -> Self {
        Self(Rc::new(RefCell::new(std::vec![0; len])))
    }
}

impl SharedMemory for Local {
    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    fn load(&self, offset: usize) -> u32 {
        assert_eq!(offset % 4, 0, "offset of a word");
        let mut word = [0; 4];
        self.copy_out(offset, &mut word);
        u32::from_ne_bytes(word)
    }

    fn load_acquire(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    fn store(&self, offset: usize, value: u32) {
        assert_eq!(offset % 4, 0, "offset of a word");
        self.copy_in(offset, &value.to_ne_bytes());
    }

    fn store_release(&self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    fn publish(&self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        let now = self.load(offset);
        if now != old {
            return Err(now);
        }
        self.store(offset, new);
        Ok(old)
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
}
