// SPDX-License-Identifier: MIT OR Apache-2.0

//! Persistent grants: pages of the frontend that stay mapped from one request to the next (`feature-persistent`).
//!
//! The table has a limit. When it is full, the grant that was not used for longest makes room, but only once it is
//! stale: a frontend that uses more grants than the limit would otherwise have one unmapped for each one mapped, which
//! costs more than having the hypervisor copy the page.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ring_proto::xen::GrantRef;

/// No entry.
const NONE: u32 = u32::MAX;

/// A grant may be dropped for another when so many times the limit were used since.
const STALE_AFTER: u64 = 4;

/// Ticks of the table's clock for the use of a mapped grant. One that is not mapped is one tick: a frontend that went
/// over to other grants altogether gets those mapped in the end, while one that goes round more grants than the limit,
/// and will come back to each, has nothing dropped.
const USE: u64 = 16;

/// Spreads grant references, which are small numbers close together. A frontend that picks them to collide slows down
/// its own queue.
#[derive(Default)]
struct RefHasher(u64);

impl Hasher for RefHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[derive(Debug)]
struct Entry<M> {
    gref: GrantRef,
    mapping: M,
    /// Segments under way that use it.
    users: u32,
    /// The table's clock when it was last used.
    used_at: u64,
    newer: u32,
    older: u32,
}

/// The mapped grants of one queue. `M` is what keeps one mapped.
#[derive(Debug)]
pub(crate) struct GrantTable<M> {
    places: HashMap<GrantRef, u32, BuildHasherDefault<RefHasher>>,
    entries: Vec<Entry<M>>,
    limit: usize,
    newest: u32,
    oldest: u32,
    /// Uses so far, in ticks.
    clock: u64,
    evicted: u64,
}

impl<M> GrantTable<M> {
    /// A table of at most `limit` grants.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            // Twice the room, so that the map tidies itself up in place and never grows.
            places: HashMap::with_capacity_and_hasher(2 * limit, BuildHasherDefault::default()),
            entries: Vec::new(),
            limit,
            newest: NONE,
            oldest: NONE,
            clock: 0,
            evicted: 0,
        }
    }

    /// How many grants are mapped.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many made room for others so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Begins a use of a grant, if it is mapped.
    #[inline]
    pub(crate) fn get(&mut self, gref: GrantRef) -> Option<u32> {
        let Some(&index) = self.places.get(&gref) else {
            self.clock += 1;
            return None;
        };
        self.clock += USE;
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
        let entry = self.entries.get_mut(index as usize)?;
        entry.used_at = self.clock;
        entry.users += 1;
        Some(index)
    }

    /// What keeps the grant of this entry mapped.
    #[inline]
    pub(crate) fn mapping(&self, index: u32) -> Option<&M> {
        self.entries.get(index as usize).map(|entry| &entry.mapping)
    }

    /// Ends a use.
    #[inline]
    pub(crate) fn put(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// Whether another grant may be mapped, now or in place of a stale one.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.limit || self.stale().is_some()
    }

    /// The entry to give up, if one is stale.
    fn stale(&self) -> Option<u32> {
        let oldest = self.entries.get(self.oldest as usize)?;
        let age = self.clock - oldest.used_at;
        (oldest.users == 0 && age > STALE_AFTER * USE * self.limit as u64).then_some(self.oldest)
    }

    /// Adds a grant that was not there, and begins a use of it. To be called when there [is room](Self::has_room).
    pub(crate) fn insert(&mut self, gref: GrantRef, mapping: M) -> Option<u32> {
        self.clock += USE;
        let entry =
            Entry { gref, mapping, users: 1, used_at: self.clock, newer: NONE, older: NONE };
        let index = if self.entries.len() < self.limit {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let index = self.stale()?;
            self.unlink(index);
            let place = self.entries.get_mut(index as usize)?;
            self.places.remove(&place.gref);
            *place = entry;
            self.evicted += 1;
            index
        };
        self.places.insert(gref, index);
        self.link_newest(index);
        Some(index)
    }

    fn unlink(&mut self, index: u32) {
        let Some(&Entry { newer, older, .. }) = self.entries.get(index as usize) else { return };
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: u32) {
        let older = std::mem::replace(&mut self.newest, index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            (entry.newer, entry.older) = (NONE, older);
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refs<M>(table: &GrantTable<M>) -> Vec<u32> {
        let mut order = Vec::new();
        let mut at = table.newest;
        while let Some(entry) = table.entries.get(at as usize) {
            order.push(entry.gref.0);
            at = entry.older;
        }
        order
    }

    #[test]
    fn the_order_is_that_of_use() {
        let mut table = GrantTable::new(3);
        for gref in 1..=3 {
            let index = table.insert(GrantRef(gref), ()).unwrap();
            table.put(index);
        }
        assert_eq!(refs(&table), [3, 2, 1]);
        table.get(GrantRef(1)).unwrap();
        assert_eq!(refs(&table), [1, 3, 2]);
        table.get(GrantRef(3)).unwrap();
        assert_eq!(refs(&table), [3, 1, 2]);
        assert!(table.get(GrantRef(9)).is_none());
    }

    #[test]
    fn only_a_stale_grant_makes_room() {
        let mut table = GrantTable::new(2);
        for gref in [1, 2] {
            let index = table.insert(GrantRef(gref), ()).unwrap();
            table.put(index);
        }
        assert!(!table.has_room() && table.insert(GrantRef(3), ()).is_none());
        for _ in 0..20 {
            let index = table.get(GrantRef(2)).unwrap();
            table.put(index);
        }
        assert!(table.has_room());
        table.insert(GrantRef(3), ()).unwrap();
        assert_eq!((refs(&table), table.evicted()), (vec![3, 2], 1));
    }

    /// Uses `grefs` in turn, `rounds` times. Returns how many of these uses found their grant mapped.
    fn go_round(table: &mut GrantTable<()>, grefs: std::ops::Range<u32>, rounds: usize) -> usize {
        let mut mapped = 0;
        for gref in (0..rounds).flat_map(|_| grefs.clone()).map(GrantRef) {
            let index = match table.get(gref) {
                Some(index) => {
                    mapped += 1;
                    Some(index)
                }
                None if table.has_room() => table.insert(gref, ()),
                None => None,
            };
            index.into_iter().for_each(|index| table.put(index));
        }
        mapped
    }

    #[test]
    fn a_frontend_that_goes_over_to_other_grants_gets_them_mapped() {
        let mut table = GrantTable::new(8);
        go_round(&mut table, 0..8, 10);
        go_round(&mut table, 8..16, 100);
        assert_eq!((go_round(&mut table, 8..16, 1), table.evicted()), (8, 8));
    }

    #[test]
    fn going_round_more_grants_than_the_limit_drops_none() {
        let mut table = GrantTable::new(8);
        assert_eq!(go_round(&mut table, 0..80, 101), 8 * 100);
        assert_eq!(table.evicted(), 0);
    }

    #[test]
    fn a_grant_in_use_stays_however_old() {
        let mut table = GrantTable::new(2);
        table.insert(GrantRef(1), ()).unwrap();
        table.insert(GrantRef(2), ()).unwrap();
        for _ in 0..100 {
            let index = table.get(GrantRef(2)).unwrap();
            table.put(index);
        }
        assert!(!table.has_room(), "grant 1 is the oldest and in use");
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn behaves_like_a_list(limit in 1usize..6, uses in prop::collection::vec(1u32..12, 0..300)) {
            let mut table = GrantTable::new(limit);
            let mut model: Vec<(u32, u64)> = Vec::new();
            let mut clock = 0;
            for gref in uses {
                if let Some(at) = model.iter().position(|entry| entry.0 == gref) {
                    clock += USE;
                    model.remove(at);
                    model.insert(0, (gref, clock));
                    let index = table.get(GrantRef(gref)).unwrap();
                    prop_assert_eq!(table.mapping(index), Some(&gref));
                    table.put(index);
                } else {
                    prop_assert!(table.get(GrantRef(gref)).is_none());
                    clock += 1;
                    let full = model.len() == limit;
                    let stale = full && clock - model[limit - 1].1 > STALE_AFTER * USE * limit as u64;
                    prop_assert_eq!(table.has_room(), !full || stale);
                    if stale {
                        model.pop();
                    }
                    if !full || stale {
                        clock += USE;
                        model.insert(0, (gref, clock));
                        let index = table.insert(GrantRef(gref), gref).unwrap();
                        table.put(index);
                    }
                }
                let order: Vec<_> = model.iter().map(|entry| entry.0).collect();
                prop_assert_eq!(refs(&table), order);
                prop_assert!(table.len() <= limit);
            }
        }
    }
}
