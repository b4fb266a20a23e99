// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use core::ptr::NonNull;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Private memory to look at through a [`Region`], with guard bytes around it.
struct Backing {
    words: Vec<u64>,
    len: usize,
}

const GUARD: usize = 64;

impl Backing {
    fn new(len: usize) -> Self {
        let mut backing = Self { words: vec![0; (len + 2 * GUARD) / 8 + 1], len };
        backing.bytes_mut().fill(0xee);
        backing.bytes_mut()[GUARD..][..len].fill(0);
        backing
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len + 2 * GUARD;
        // SAFETY: the words are that many bytes and more, borrowed as the result is.
        unsafe { core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }

    fn region(&mut self) -> Region<'_> {
        let base = NonNull::from(&mut self.bytes_mut()[GUARD]);
        // SAFETY: the vector outlives the region in each test, and nobody looks at the bytes while the region is used.
        unsafe { Region::new(base, self.len) }
    }

    /// The memory, once no region is used any more.
    fn contents(&mut self) -> Vec<u8> {
        let len = self.len;
        let bytes = self.bytes_mut();
        assert!(bytes[..GUARD].iter().chain(&bytes[GUARD + len..]).all(|byte| *byte == 0xee));
        bytes[GUARD..][..len].to_vec()
    }
}

/// Different bytes at neighbouring offsets.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251 + 1) as u8).collect()
}

#[test]
fn words_are_where_their_offset_says() {
    let mut backing = Backing::new(64);
    let region = backing.region();
    region.store(0, 1);
    region.store_release(4, 2);
    region.publish(8, 3);
    assert_eq!(region.compare_exchange(12, 0, 4), Ok(0));
    assert_eq!(region.compare_exchange(12, 0, 5), Err(4));
    for (offset, value) in [(0, 1), (4, 2), (8, 3), (12, 4), (16, 0)] {
        assert_eq!((region.load(offset), region.load_acquire(offset)), (value, value));
    }
    let words = [1u32, 2, 3, 4].map(u32::to_ne_bytes).concat();
    assert_eq!(backing.contents()[..16], words);
}

#[test]
fn every_length_and_alignment_copies_exactly_itself() {
    // All pieces of a copy and their remainders, and the lengths around the change to the long copy.
    for len in (0..50).chain([111, 112, 113, 254, 255, 256, 257, 300]) {
        for offset in 0..17 {
            let mut backing = Backing::new(len + 40);
            let region = backing.region();
            let bytes = pattern(len);
            region.copy_in(offset, &bytes);
            let mut back = vec![0; len];
            region.copy_out(offset, &mut back);
            assert_eq!(back, bytes, "{len} bytes at {offset}");
            let contents = backing.contents();
            assert_eq!(contents[offset..][..len], bytes);
            assert!(contents[..offset].iter().chain(&contents[offset + len..]).all(|b| *b == 0));
        }
    }
}

#[test]
fn structures_are_read_and_written_at_any_offset() {
    crate::wire! {
        struct Odd {
            a: u8,
            b: [u8; 2],
            c: u8,
            d: u32,
            e: [u16; 3],
            f: u16,
        }
    }
    let odd = Odd { a: 1, b: [2, 3], c: 4, d: 5, e: [6, 7, 8], f: 9 };
    for offset in 0..9 {
        let mut backing = Backing::new(32);
        let region = backing.region();
        region.write(offset, &odd);
        assert_eq!(region.read::<Odd>(offset), odd);
        assert_eq!(backing.contents()[offset..][..16], *bytes_of(&odd));
    }
    assert_eq!(from_bytes::<Odd>(bytes_of(&odd)), Some(odd));
    assert_eq!(from_bytes::<Odd>(&bytes_of(&odd)[1..]), None);
}

#[test]
fn a_part_lies_inside_and_begins_at_a_multiple_of_eight() {
    let mut backing = Backing::new(64);
    let region = backing.region();
    assert!(region.part(60, 8).is_none());
    assert!(region.part(4, 8).is_none());
    assert!(region.part(usize::MAX - 7, 16).is_none());
    assert_eq!(region.part(64, 0).map(|part| part.len()), Some(0));
    let part = region.part(8, 16).unwrap();
    part.store(4, 7);
    assert_eq!((part.len(), region.load(12)), (16, 7));
}

/// A mistake of this crate: a debug build says so, a release build reads zeros and writes nothing.
#[test]
fn nothing_is_accessed_outside() {
    let mut backing = Backing::new(64);
    let region = backing.region();
    let accesses: [&dyn Fn(); 8] = [
        &|| assert_eq!(region.load(64), 0),
        &|| region.store(64, 1),
        &|| region.publish(usize::MAX & !3, 1),
        &|| assert!(region.compare_exchange(64, 0, 1).is_err()),
        &|| region.copy_in(60, &[1; 5]),
        &|| region.copy_out(usize::MAX, &mut [1; 2]),
        &|| assert_eq!(region.read::<u64>(57), 0),
        &|| region.will_write(64, 1),
    ];
    for access in accesses {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(access));
        assert_eq!(outcome.is_err(), cfg!(debug_assertions));
    }
    assert_eq!(backing.contents(), [0; 64]);
}

/// Pages in another order than they lie in, and not adjacent.
fn scattered(backing: &mut Backing) -> Pages<'_, 4> {
    let region = backing.region();
    let page = |n: usize| region.part(n * PAGE_SIZE, PAGE_SIZE).unwrap();
    Pages::new(&[page(5), page(0), page(3)]).unwrap()
}

#[test]
fn pages_are_one_to_n_whole_pages() {
    let mut backing = Backing::new(2 * PAGE_SIZE);
    let region = backing.region();
    let page = region.part(0, PAGE_SIZE).unwrap();
    assert!(Pages::<2>::new(&[]).is_none());
    assert!(Pages::<2>::new(&[page; 3]).is_none());
    assert!(Pages::<2>::new(&[page, region]).is_none());
    assert_eq!(Pages::<2>::new(&[page]).unwrap().len(), PAGE_SIZE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written through scattered pages is what a plain buffer would hold.
    #[test]
    fn pages_are_like_one_buffer(
        writes in proptest::collection::vec((0..3 * PAGE_SIZE, 0..2 * PAGE_SIZE), 1..8),
    ) {
        let mut backing = Backing::new(6 * PAGE_SIZE);
        let pages = scattered(&mut backing);
        let mut model = vec![0; 3 * PAGE_SIZE];
        for (round, (offset, len)) in writes.into_iter().enumerate() {
            let len = len.min(model.len() - offset);
            let bytes: Vec<u8> = pattern(len).iter().map(|byte| byte ^ round as u8).collect();
            pages.copy_in(offset, &bytes);
            model[offset..][..len].copy_from_slice(&bytes);
            let mut back = vec![0; len];
            pages.copy_out(offset, &mut back);
            prop_assert_eq!(&back, &bytes);
            let slot = offset.min(model.len() - 112);
            prop_assert_eq!(&pages.read::<[u8; 112]>(slot)[..], &model[slot..][..112]);
            let word = offset & !3;
            prop_assert_eq!(&pages.load(word).to_ne_bytes()[..], &model[word..][..4]);
            pages.will_write(offset, len);
        }
        let contents = backing.contents();
        for (page, place) in [5, 0, 3].into_iter().enumerate() {
            prop_assert_eq!(
                &contents[place * PAGE_SIZE..][..PAGE_SIZE],
                &model[page * PAGE_SIZE..][..PAGE_SIZE]
            );
        }
    }

    #[test]
    fn words_in_pages(offset in 0..3 * PAGE_SIZE / 4, value: u32) {
        let mut backing = Backing::new(6 * PAGE_SIZE);
        let pages = scattered(&mut backing);
        let offset = 4 * offset;
        pages.publish(offset, value);
        prop_assert_eq!(pages.load_acquire(offset), value);
        prop_assert_eq!(pages.compare_exchange(offset, value, !value), Ok(value));
        pages.store_release(offset, pages.load(offset).wrapping_add(1));
        prop_assert_eq!(pages.read::<u32>(offset), (!value).wrapping_add(1));
    }
}
