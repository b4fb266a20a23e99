// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Persistent grants: pages of the frontend that stay mapped from one request to the next (`feature-persistent`).
//!
//! The table has a limit. When it is full, the grant that was not used for longest makes room, but only once it is
//! stale: a frontend that uses more grants than the limit would otherwise have one unmapped for each one mapped, which
//! costs more than mapping or copying the page for the one request.
//!
//! It allocates nothing: its memory is what it is given at the beginning.

use core::ops::DerefMut;

use crate::xen::GrantRef;

/// No entry.
const NONE: u32 = u32::MAX;

/// A grant may be dropped for another when so many times the limit were used since.
const STALE_AFTER: u64 = 4;

/// Ticks of the table's clock for the use of a mapped grant. One that is not mapped is one tick: a frontend that went
/// over to other grants altogether gets those mapped in the end, while one that goes round more grants than the limit,
/// and will come back to each, has nothing dropped.
const USE: u64 = 16;

/// Room for a grant in a [`GrantTable`].
#[derive(Debug)]
pub struct Entry<M> {
    gref: GrantRef,
    /// What keeps it mapped; `None` when the entry is vacant.
    mapping: Option<M>,
    /// Segments under way that use it.
    users: u32,
    /// The table's clock when it was last used.
    used_at: u64,
    /// The caller's clock when it was last used.
    seen: u64,
    newer: u32,
    /// The next older one; of a vacant entry, the next vacant one.
    older: u32,
}

impl<M> Default for Entry<M> {
    fn default() -> Self {
        Self {
            gref: GrantRef::INVALID,
            mapping: None,
            users: 0,
            used_at: 0,
            seen: 0,
            newer: NONE,
            older: NONE,
        }
    }
}

/// The mapped grants of one queue. `M` is what keeps one mapped, `E` and `I` are memory: a `Vec` or whatever there is.
#[derive(Debug)]
pub struct GrantTable<E, I> {
    entries: E,
    /// Numbers of entries, open addressing. Whoever picks grants to collide slows down its own queue, by no more than
    /// looks at all entries.
    index: I,
    len: usize,
    vacant: u32,
    newest: u32,
    oldest: u32,
    /// Uses so far, in ticks.
    clock: u64,
    evicted: u64,
}

/// How long the index of a table of so many entries is: at most half of it is used.
pub const fn index_len(limit: usize) -> usize {
    match limit.checked_next_power_of_two() {
        Some(power) => power.saturating_mul(2),
        None => usize::MAX,
    }
}

impl<M, E: DerefMut<Target = [Entry<M>]>, I: DerefMut<Target = [u32]>> GrantTable<E, I> {
    /// A table of at most as many grants as there are `entries`, and no more than `index` has room for: see
    /// [`index_len`].
    pub fn new(mut entries: E, mut index: I) -> Self {
        index.fill(NONE);
        let room = if index.len().is_power_of_two() { index.len() / 2 } else { 0 };
        let mut vacant = NONE;
        for (number, entry) in (0..NONE).zip(entries.iter_mut()).take(room) {
            *entry = Entry { older: vacant, ..Entry::default() };
            vacant = number;
        }
        Self { entries, index, len: 0, vacant, newest: NONE, oldest: NONE, clock: 0, evicted: 0 }
    }

    /// How many grants are mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many made room for others so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Begins a use of a grant, if it is mapped. `now` is of the caller's clock, for [`expire`](Self::expire).
    #[inline]
    pub fn get(&mut self, gref: GrantRef, now: u64) -> Option<u32> {
        let Some(number) = self.find(gref) else {
            self.clock = self.clock.wrapping_add(1);
            return None;
        };
        self.clock = self.clock.wrapping_add(USE);
        if self.newest != number {
            self.unlink(number);
            self.link_newest(number);
        }
        let clock = self.clock;
        let entry = self.entry_mut(number)?;
        entry.used_at = clock;
        entry.seen = now;
        entry.users = entry.users.wrapping_add(1);
        Some(number)
    }

    /// What keeps the grant of this entry mapped.
    #[inline]
    pub fn mapping(&self, number: u32) -> Option<&M> {
        self.entry(number)?.mapping.as_ref()
    }

    /// The same, to be changed.
    #[inline]
    pub fn mapping_mut(&mut self, number: u32) -> Option<&mut M> {
        self.entry_mut(number)?.mapping.as_mut()
    }

    /// Ends a use.
    #[inline]
    pub fn put(&mut self, number: u32) {
        if let Some(entry) = self.entry_mut(number) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// Whether another grant may be mapped, now or in place of a stale one.
    pub fn has_room(&self) -> bool {
        self.vacant != NONE || self.stale().is_some()
    }

    /// The entry to give up, if one is stale.
    fn stale(&self) -> Option<u32> {
        let oldest = self.entry(self.oldest)?;
        let age = self.clock.wrapping_sub(oldest.used_at);
        let stale = (STALE_AFTER * USE).saturating_mul(self.len as u64);
        (oldest.users == 0 && age > stale).then_some(self.oldest)
    }

    /// Adds a grant that was not there, and begins a use of it. Returns its entry, and what a stale grant was mapped by
    /// that made room.
    ///
    /// # Errors
    ///
    /// Gives `mapping` back when there is no [room](Self::has_room), or the grant is there already.
    pub fn insert(&mut self, gref: GrantRef, mapping: M, now: u64) -> Result<(u32, Option<M>), M> {
        if self.find(gref).is_some() {
            return Err(mapping);
        }
        let mut evicted = None;
        if self.vacant == NONE {
            let Some(stale) = self.stale() else { return Err(mapping) };
            evicted = self.remove(stale);
            self.evicted = self.evicted.wrapping_add(1);
        }
        self.clock = self.clock.wrapping_add(USE);
        let (number, used_at) = (self.vacant, self.clock);
        let Some(entry) = self.entry_mut(number) else { return Err(mapping) };
        let vacant = entry.older;
        *entry = Entry {
            gref,
            mapping: Some(mapping),
            users: 1,
            used_at,
            seen: now,
            newer: NONE,
            older: NONE,
        };
        self.vacant = vacant;
        self.len = self.len.wrapping_add(1);
        self.link_newest(number);
        self.add_to_index(number, gref);
        Ok((number, evicted))
    }

    /// Gives up the grant that was not used for longest if that was before `then`, and it is in no use.
    pub fn expire(&mut self, then: u64) -> Option<M> {
        let oldest = self.entry(self.oldest)?;
        if oldest.users > 0 || oldest.seen >= then {
            return None;
        }
        self.remove(self.oldest)
    }

    /// Gives up a grant, whether or not it is in use.
    pub fn pop(&mut self) -> Option<M> {
        self.remove(self.oldest)
    }

    /// Gives up a grant.
    fn remove(&mut self, number: u32) -> Option<M> {
        let gref = self.entry(number)?.gref;
        self.remove_from_index(number, gref);
        self.unlink(number);
        let vacant = self.vacant;
        let entry = self.entry_mut(number)?;
        let mapping = entry.mapping.take();
        *entry = Entry { older: vacant, ..Entry::default() };
        self.vacant = number;
        self.len = self.len.saturating_sub(1);
        mapping
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Entry<M>> {
        self.entries.get(number as usize)
    }

    #[inline]
    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry<M>> {
        self.entries.get_mut(number as usize)
    }

    /// Where a grant's number would stand if nothing was in the way. Grant references are small numbers close together:
    /// they are spread as they are, which keeps neighbours in one cache line.
    #[inline]
    fn home(&self, gref: GrantRef) -> usize {
        gref.0 as usize & self.mask()
    }

    #[inline]
    fn mask(&self) -> usize {
        self.index.len().wrapping_sub(1)
    }

    /// Where a grant's number stands in the index, and the number.
    #[inline]
    fn place(&self, gref: GrantRef) -> Option<(usize, u32)> {
        let mut at = self.home(gref);
        // The index is at most half full, so that this ends; it is as long as the index at most.
        for _ in 0..self.index.len() {
            let number = *self.index.get(at)?;
            match self.entry(number) {
                None => return None,
                Some(entry) if entry.gref == gref => return Some((at, number)),
                Some(_) => at = at.wrapping_add(1) & self.mask(),
            }
        }
        None
    }

    #[inline]
    fn find(&self, gref: GrantRef) -> Option<u32> {
        self.place(gref).map(|(_, number)| number)
    }

    fn add_to_index(&mut self, number: u32, gref: GrantRef) {
        let (mut at, mask) = (self.home(gref), self.mask());
        for _ in 0..self.index.len() {
            match self.index.get_mut(at) {
                Some(place) if *place == NONE => {
                    *place = number;
                    return;
                }
                _ => at = at.wrapping_add(1) & mask,
            }
        }
    }

    /// Takes a number out, and moves those behind it up that would not be found any more.
    fn remove_from_index(&mut self, number: u32, gref: GrantRef) {
        let Some((mut hole, found)) = self.place(gref) else { return };
        if found != number {
            return;
        }
        let (mut at, mask) = (hole, self.mask());
        for _ in 0..self.index.len() {
            at = at.wrapping_add(1) & mask;
            let Some(&next) = self.index.get(at) else { break };
            let Some(entry) = self.entry(next) else { break };
            let home = self.home(entry.gref);
            // It may move to the hole if that is between its home and where it is.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(place) = self.index.get_mut(hole) {
                    *place = next;
                }
                hole = at;
            }
        }
        if let Some(place) = self.index.get_mut(hole) {
            *place = NONE;
        }
    }

    fn unlink(&mut self, number: u32) {
        let Some(&Entry { newer, older, .. }) = self.entry(number) else { return };
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, number: u32) {
        let older = core::mem::replace(&mut self.newest, number);
        if let Some(entry) = self.entry_mut(number) {
            (entry.newer, entry.older) = (NONE, older);
        }
        match self.entry_mut(older) {
            Some(entry) => entry.newer = number,
            None => self.oldest = number,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::prelude::rust_2021::*;
    use std::vec;

    use super::*;

    type Table<M> = GrantTable<Vec<Entry<M>>, Vec<u32>>;

    fn table<M>(limit: usize) -> Table<M> {
        let entries = std::iter::repeat_with(Entry::default).take(limit).collect();
        GrantTable::new(entries, vec![0; index_len(limit)])
    }

    fn refs<M>(table: &Table<M>) -> Vec<u32> {
        let mut order = Vec::new();
        let mut at = table.newest;
        while let Some(entry) = table.entries.get(at as usize) {
            order.push(entry.gref.0);
            at = entry.older;
        }
        order
    }

    fn add<M: std::fmt::Debug>(table: &mut Table<M>, gref: u32, mapping: M) -> u32 {
        table.insert(GrantRef(gref), mapping, 0).unwrap().0
    }

    #[test]
    fn the_order_is_that_of_use() {
        let mut table = table(3);
        for gref in 1..=3 {
            let number = add(&mut table, gref, ());
            table.put(number);
        }
        assert_eq!(refs(&table), [3, 2, 1]);
        table.get(GrantRef(1), 0).unwrap();
        assert_eq!(refs(&table), [1, 3, 2]);
        table.get(GrantRef(3), 0).unwrap();
        assert_eq!(refs(&table), [3, 1, 2]);
        assert!(table.get(GrantRef(9), 0).is_none());
    }

    #[test]
    fn only_a_stale_grant_makes_room() {
        let mut table = table(2);
        for gref in [1, 2] {
            let number = add(&mut table, gref, gref);
            table.put(number);
        }
        assert!(!table.has_room());
        assert_eq!(table.insert(GrantRef(3), 3, 0), Err(3));
        for _ in 0..20 {
            let number = table.get(GrantRef(2), 0).unwrap();
            table.put(number);
        }
        assert!(table.has_room());
        let (_, evicted) = table.insert(GrantRef(3), 3, 0).unwrap();
        assert_eq!((evicted, refs(&table), table.evicted()), (Some(1), vec![3, 2], 1));
    }

    #[test]
    fn no_grant_is_added_twice() {
        let mut table = table(4);
        add(&mut table, 7, 'a');
        assert_eq!(table.insert(GrantRef(7), 'b', 0), Err('b'));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_was_not_used_expires() {
        let mut table = table(4);
        for (gref, now) in [(1, 10), (2, 20), (3, 30)] {
            let (number, _) = table.insert(GrantRef(gref), gref, now).unwrap();
            table.put(number);
        }
        let number = table.get(GrantRef(1), 40).unwrap();
        assert_eq!(table.expire(30), Some(2));
        assert_eq!(table.expire(30), None);
        assert_eq!(table.expire(50), Some(3));
        assert_eq!(table.expire(50), None, "grant 1 is in use");
        table.put(number);
        assert_eq!((table.expire(50), table.is_empty()), (Some(1), true));
    }

    #[test]
    fn all_can_be_taken_out_and_others_put_in() {
        let mut table = table(8);
        for round in 0..10 {
            for gref in 0..8 {
                add(&mut table, gref * 16 + round, gref);
            }
            let mut taken: Vec<_> = std::iter::from_fn(|| table.pop()).collect();
            taken.sort_unstable();
            assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7]);
            assert!(table.index.iter().all(|number| *number == NONE));
        }
    }

    /// Uses `grefs` in turn, `rounds` times. Returns how many of these uses found their grant mapped.
    fn go_round(table: &mut Table<()>, grefs: std::ops::Range<u32>, rounds: usize) -> usize {
        let mut mapped = 0;
        for gref in (0..rounds).flat_map(|_| grefs.clone()).map(GrantRef) {
            let number = match table.get(gref, 0) {
                Some(number) => {
                    mapped += 1;
                    Some(number)
                }
                None => table.insert(gref, (), 0).ok().map(|(number, _)| number),
            };
            number.into_iter().for_each(|number| table.put(number));
        }
        mapped
    }

    #[test]
    fn a_frontend_that_goes_over_to_other_grants_gets_them_mapped() {
        let mut table = table(8);
        go_round(&mut table, 0..8, 10);
        go_round(&mut table, 8..16, 100);
        assert_eq!((go_round(&mut table, 8..16, 1), table.evicted()), (8, 8));
    }

    #[test]
    fn going_round_more_grants_than_the_limit_drops_none() {
        let mut table = table(8);
        assert_eq!(go_round(&mut table, 0..80, 101), 8 * 100);
        assert_eq!(table.evicted(), 0);
    }

    #[test]
    fn a_grant_in_use_stays_however_old() {
        let mut table = table(2);
        add(&mut table, 1, ());
        add(&mut table, 2, ());
        for _ in 0..100 {
            let number = table.get(GrantRef(2), 0).unwrap();
            table.put(number);
        }
        assert!(!table.has_room(), "grant 1 is the oldest and in use");
    }

    #[test]
    fn a_table_without_memory_takes_nothing() {
        assert_eq!(table(0).insert(GrantRef(1), 'x', 0), Err('x'));
        let entries: Vec<Entry<char>> = vec![Entry::default()];
        assert_eq!(GrantTable::new(entries, Vec::new()).insert(GrantRef(1), 'x', 0), Err('x'));
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn behaves_like_a_list(
            limit in 1usize..6,
            spread in prop::sample::select(&[1u32, 2, 8, 16][..]),
            uses in prop::collection::vec((1u32..12, 0u32..8), 0..300),
        ) {
            let mut table = table(limit);
            let mut model: Vec<(u32, u64)> = Vec::new();
            let mut clock = 0;
            for (gref, also) in uses {
                let gref = gref * spread;
                if let Some(at) = model.iter().position(|entry| entry.0 == gref) {
                    clock += USE;
                    model.remove(at);
                    model.insert(0, (gref, clock));
                    let number = table.get(GrantRef(gref), 0).unwrap();
                    prop_assert_eq!(table.mapping(number), Some(&gref));
                    table.put(number);
                } else {
                    prop_assert!(table.get(GrantRef(gref), 0).is_none());
                    clock += 1;
                    let full = model.len() == limit;
                    let stale = full && clock - model[limit - 1].1 > STALE_AFTER * USE * limit as u64;
                    prop_assert_eq!(table.has_room(), !full || stale);
                    let evicted = stale.then(|| model.pop()).flatten().map(|entry| entry.0);
                    if !full || stale {
                        clock += USE;
                        model.insert(0, (gref, clock));
                        let (number, out) = table.insert(GrantRef(gref), gref, 0).unwrap();
                        prop_assert_eq!(out, evicted);
                        table.put(number);
                    }
                }
                if also == 0 {
                    prop_assert_eq!(table.expire(1), model.pop().map(|entry| entry.0));
                }
                let order: Vec<_> = model.iter().map(|entry| entry.0).collect();
                prop_assert_eq!(refs(&table), order);
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
