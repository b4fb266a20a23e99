// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Shared pages in which the peer writes whenever this side looks away.

use std::cell::RefCell;
use std::rc::Rc;

use ring_proto::shared::SharedMemory;

/// Shared pages. All clones are the same; an access outside of them panics.
///
/// Before every single access of this side, the peer takes its turn: what it writes comes from its script.
#[derive(Clone, Debug)]
pub struct Hostile(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    script: std::vec::IntoIter<u8>,
    /// Words that this side wrote, as (offset, value), the last for each offset.
    own: Vec<(usize, u32)>,
}

impl State {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.script.next().unwrap_or(0))
    }

    fn word(&mut self, offset: usize) -> &mut [u8; 4] {
        assert_eq!(offset % 4, 0, "offset {offset:#x} of a word");
        self.bytes[offset..].first_chunk_mut().expect("a word outside of the memory")
    }

    /// The peer's turn.
    fn peer(&mut self) {
        let Some(what) = self.script.next() else { return };
        match what {
            // Nothing.
            0..0xa0 => {}
            // An index or flag moves a little, as an honest peer's would.
            0xa0..0xe0 => {
                let word = self.word(usize::from(what & 15) * 4);
                let value = u32::from_ne_bytes(*word);
                let [step] = self.take();
                *self.word(usize::from(what & 15) * 4) =
                    value.wrapping_add(i32::from(step as i8) as u32).to_ne_bytes();
            }
            // An index or flag becomes anything.
            0xe0..0xf0 => *self.word(usize::from(what & 15) * 4) = self.take(),
            // Anything anywhere.
            _ => {
                let at = usize::from(u16::from_ne_bytes(self.take())) % (self.bytes.len() - 16);
                let data: [u8; 16] = self.take();
                self.bytes[at..at + 16].copy_from_slice(&data);
            }
        }
    }
}

impl Hostile {
    /// `len` bytes that begin as `image` and go on as zeros; the peer writes by `script`.
    pub fn new(len: usize, image: &[u8], script: &[u8]) -> Self {
        let mut bytes = image.to_vec();
        bytes.resize(len, 0);
        let script = Vec::from(script).into_iter();
        Self(Rc::new(RefCell::new(State { bytes, script, own: Vec::new() })))
    }

    /// What this side wrote last to the word at `offset`.
    pub fn written(&self, offset: usize) -> Option<u32> {
        self.0.borrow().own.iter().find(|(at, _)| *at == offset).map(|(_, value)| *value)
    }
}

impl SharedMemory for Hostile {
    fn len(&self) -> usize {
        self.0.borrow().bytes.len()
    }

    fn load(&self, offset: usize) -> u32 {
        let mut state = self.0.borrow_mut();
        state.peer();
        u32::from_ne_bytes(*state.word(offset))
    }

    fn load_acquire(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    fn store(&self, offset: usize, value: u32) {
        let mut state = self.0.borrow_mut();
        state.peer();
        *state.word(offset) = value.to_ne_bytes();
        state.own.retain(|(at, _)| *at != offset);
        state.own.push((offset, value));
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
        *self.0.borrow_mut().word(offset) = new.to_ne_bytes();
        Ok(old)
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        // The peer writes in the middle of a copy, too.
        for (index, piece) in into.chunks_mut(16).enumerate() {
            let mut state = self.0.borrow_mut();
            state.peer();
            piece.copy_from_slice(&state.bytes[offset + 16 * index..][..piece.len()]);
        }
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        for (index, piece) in from.chunks(16).enumerate() {
            let mut state = self.0.borrow_mut();
            state.peer();
            state.bytes[offset + 16 * index..][..piece.len()].copy_from_slice(piece);
        }
    }
}

/// The fuzzer's bytes, divided: what this side does, what is in memory at first, and the peer's script.
pub struct Play<'a> {
    /// One operation a byte.
    pub steps: &'a [u8],
    /// First bytes of the memory.
    pub image: &'a [u8],
    /// See [`Hostile::new`].
    pub script: &'a [u8],
}

impl<'a> Play<'a> {
    /// Divides `data`, of which the first two bytes say how.
    pub fn new(data: &'a [u8]) -> Self {
        let (sizes, rest) = data.split_at(data.len().min(2));
        let size = |index: usize| sizes.get(index).copied().map_or(0, usize::from);
        let (steps, rest) = rest.split_at(rest.len().min(size(0)));
        let (image, script) = rest.split_at(rest.len().min(size(1)));
        Self { steps, image, script }
    }

    /// The shared memory of this play.
    pub fn memory(&self, len: usize) -> Hostile {
        Hostile::new(len, self.image, self.script)
    }
}
