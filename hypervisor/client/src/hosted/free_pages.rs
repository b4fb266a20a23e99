// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::BTreeMap;

/// Which pages of the pool are free: runs of them, first fit.
#[derive(Debug)]
pub(super) struct FreePages {
    /// First page of a run, and how many. Runs neither touch nor overlap.
    runs: BTreeMap<u32, u32>,
    free: u32,
}

impl FreePages {
    pub fn new(pages: u32) -> Self {
        let runs = if pages > 0 { BTreeMap::from([(0, pages)]) } else { BTreeMap::new() };
        Self { runs, free: pages }
    }

    /// How many are free.
    pub fn len(&self) -> u32 {
        self.free
    }

    /// Takes `count` adjacent pages and returns the first, if there are so many.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        let (&first, &len) = self.runs.iter().find(|&(_, &len)| len >= count)?;
        self.runs.remove(&first);
        if len > count {
            self.runs.insert(first + count, len - count);
        }
        self.free -= count;
        Some(first)
    }

    /// Gives `count` pages from `first` back.
    pub fn give(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        self.free += count;
        let (mut first, mut count) = (first, count);
        if let Some(after) = self.runs.remove(&(first + count)) {
            count += after;
        }
        match self.runs.range(..first).next_back() {
            Some((&before, &len)) if before + len == first => {
                first = before;
                count += len;
            }
            _ => {}
        }
        self.runs.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_page_is_handed_out_twice_and_none_is_lost(steps in prop::collection::vec((1u32..9, any::<bool>()), 1..200)) {
            let mut free = FreePages::new(64);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (count, take) in steps {
                if take {
                    let Some(first) = free.take(count) else { continue };
                    prop_assert!(first + count <= 64);
                    prop_assert!(taken.iter().all(|&(at, len)| first + count <= at || at + len <= first));
                    taken.push((first, count));
                } else if !taken.is_empty() {
                    let (first, len) = taken.swap_remove(count as usize % taken.len());
                    free.give(first, len);
                }
                prop_assert_eq!(free.len(), 64 - taken.iter().map(|&(_, len)| len).sum::<u32>());
            }
            for (first, len) in taken {
                free.give(first, len);
            }
            prop_assert_eq!(free.take(64), Some(0), "all runs have grown together again");
        }
    }

    #[test]
    fn takes_only_what_is_adjacent() {
        let mut free = FreePages::new(4);
        assert_eq!((free.take(1), free.take(1), free.take(1)), (Some(0), Some(1), Some(2)));
        free.give(0, 1);
        free.give(2, 1);
        assert_eq!(free.len(), 3);
        assert_eq!(free.take(3), None);
        assert_eq!(free.take(2), Some(2));
    }
}
