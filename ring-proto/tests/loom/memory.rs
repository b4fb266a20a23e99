// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Shared memory made of loom's primitives, one operation of which can be weakened.

use std::env;
use std::process::Command;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{fence, AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use ring_proto::shared::SharedMemory;

/// An ordering that a [`Model`] leaves out, by the operation's kind and the offset of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Nothing.
    Nothing,
    /// `load_acquire` at this offset is a plain load.
    Acquire(usize),
    /// `publish` and `store_release` at this offset do not release.
    Release(usize),
    /// `publish` or `compare_exchange` at this offset has no full barrier.
    Barrier(usize),
}

struct Inner {
    words: Vec<AtomicU32>,
    /// Data of `grain` bytes each, from offset `data` on.
    cells: Vec<UnsafeCell<Vec<u8>>>,
    data: usize,
    grain: usize,
    without: Without,
}

/// The memory. A clone is the same memory.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

/// What all of the engines' index words fit in.
const WORDS: usize = 64 / 4;

impl Model {
    /// Zeroed memory: index words, then, from offset `data` on, `count` cells of `grain` bytes that are only ever read
    /// and written whole.
    pub fn new(data: usize, grain: usize, count: usize, without: Without) -> Self {
        Self(Arc::new(Inner {
            words: (0..WORDS).map(|_| AtomicU32::new(0)).collect(),
            cells: (0..count).map(|_| UnsafeCell::new(vec![0; grain])).collect(),
            data,
            grain,
            without,
        }))
    }

    /// The cells that `len` bytes at `offset` are.
    fn cells(&self, offset: usize, len: usize) -> &[UnsafeCell<Vec<u8>>] {
        let (start, grain) = (offset.checked_sub(self.0.data).unwrap(), self.0.grain);
        assert_eq!((start % grain, len % grain), (0, 0));
        &self.0.cells[start / grain..(start + len) / grain]
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert_eq!(offset % 4, 0);
        &self.0.words[offset / 4]
    }

    fn release(&self, offset: usize) -> Ordering {
        if self.0.without == Without::Release(offset) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        }
    }
}

impl SharedMemory for Model {
    fn len(&self) -> usize {
        self.0.data + self.0.cells.len() * self.0.grain
    }

    fn load(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::Relaxed)
    }

    fn load_acquire(&self, offset: usize) -> u32 {
        let weak = self.0.without == Without::Acquire(offset);
        self.word(offset).load(if weak { Ordering::Relaxed } else { Ordering::Acquire })
    }

    fn store(&self, offset: usize, value: u32) {
        self.word(offset).store(value, Ordering::Relaxed);
    }

    fn store_release(&self, offset: usize, value: u32) {
        self.word(offset).store(value, self.release(offset));
    }

    fn publish(&self, offset: usize, value: u32) {
        self.store_release(offset, value);
        if self.0.without != Without::Barrier(offset) {
            fence(Ordering::SeqCst);
        }
    }

    fn compare_exchange(&self, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        if self.0.without == Without::Barrier(offset) {
            return self.word(offset).compare_exchange(
                old,
                new,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        fence(Ordering::SeqCst);
        let result =
            self.word(offset).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        fence(Ordering::SeqCst);
        result
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        for (cell, piece) in
            self.cells(offset, into.len()).iter().zip(into.chunks_mut(self.0.grain))
        {
            // SAFETY: loom checks that nobody writes the cell meanwhile.
            cell.with(|data| piece.copy_from_slice(unsafe { &*data }));
        }
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        if offset == 0 {
            // A new ring's header; nobody else has it yet.
            for (word, bytes) in self.0.words.iter().zip(from.chunks(4)) {
                word.store(u32::from_le_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
            }
            return;
        }
        for (cell, piece) in self.cells(offset, from.len()).iter().zip(from.chunks(self.0.grain)) {
            // SAFETY: loom checks that nobody else accesses the cell meanwhile.
            cell.with_mut(|data| unsafe { &mut *data }.copy_from_slice(piece));
        }
    }
}

/// An event channel: rings are remembered until someone waits.
#[derive(Clone)]
pub struct Doorbell(Arc<(Mutex<bool>, Condvar)>);

impl Doorbell {
    pub fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    pub fn ring(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_one();
    }

    pub fn wait(&self) {
        let mut rung = self.0 .0.lock().unwrap();
        while !*rung {
            rung = self.0 .1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Runs `model` over its interleavings. `LOOM_MAX_PREEMPTIONS`, which loom reads itself, searches deeper.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(model);
}

/// Names the ordering to leave out, in a process of its own: a failed model takes its process with it, because loom's
/// primitives cannot be dropped once it gave up.
const VARIABLE: &str = "RING_PROTO_WITHOUT";

/// `model` holds with every ordering of the engine in place, and with any one of `needed` left out, it does not: it
/// fails for the reason given. `test` is the full name of the calling test.
pub fn holds_and_needs(
    test: &str,
    preemptions: usize,
    needed: &[(Without, Failure)],
    model: impl Fn(Without) + Send + Sync + 'static,
) {
    if let Ok(name) = env::var(VARIABLE) {
        let (without, _) =
            needed.iter().find(|(without, _)| format!("{without:?}") == name).unwrap();
        let without = *without;
        return check(preemptions, move || model(without));
    }
    check(preemptions, move || model(Without::Nothing));
    for (without, failure) in needed {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env(VARIABLE, format!("{without:?}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "nothing fails without {without:?}");
        assert!(said.contains(failure.message()), "{without:?} fails for another reason:\n{said}");
    }
}

/// How a model fails.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// Data is read or written while, or before it is visible that, the other end is done with it.
    Torn,
    /// A thread sleeps for ever.
    LostWakeUp,
}

impl Failure {
    /// What loom says.
    fn message(self) -> &'static str {
        match self {
            Self::Torn => "Causality violation",
            Self::LostWakeUp => "deadlock",
        }
    }
}
