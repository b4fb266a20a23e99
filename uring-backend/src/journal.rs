// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a queue has taken from its ring and not answered, in a file: a backend that is started again after it was
//! stopped, or killed, does it once more and goes on with the same rings. No frontend notices but by waiting.
//!
//! The ring itself does not tell: answers are written over the requests, in whatever order these were done. The file is
//! mapped, so that noting a request is a copy of 128 bytes and no system call; it outlives the process, not the machine,
//! and need not: the rings do not either. Each step of a request's life is one store to its entry:
//!
//! ```text
//! FREE ──taken──▶ TAKEN ──answer pushed──▶ ANSWERED, with the answer's index ──answers published──▶ FREE
//! ```
//!
//! Wherever the process is struck, the next one is right: an entry is under way if it is taken, or answered with an
//! index that the ring does not show as published. To do such a request twice does no harm: until it is answered,
//! nobody may count on what is at its sectors. They are done in the order in which they were taken, so a barrier stays
//! behind what it is to follow.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hypervisor_client::Access;
use hypervisor_client::mapped::Mapped;
use ring_proto::blkif::{Abi, RawRequest};
use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xenbus::vbd::Queue;

use crate::device::DeviceId;

/// The first word of a journal; the last byte is the layout's version.
const MAGIC: u32 = 0x43_57_4a_02;

/// Where what identifies the ring lies: after the magic word.
const IDENTITY: usize = 4;
/// Most words of it: layout, event channel, and the pages of the ring.
const IDENTITY_WORDS: usize = 3 + 16;

/// Size of an entry.
const ENTRY: usize = 128;

/// Parts of an entry.
mod entry {
    pub(super) const STATE: usize = 0;
    pub(super) const ANSWER: usize = 4;
    pub(super) const REQUEST: usize = 8;
    /// How many requests were taken before this one.
    pub(super) const NUMBER: usize = 120;
}

/// States of an entry. Anything else is free too.
mod state {
    pub(super) const FREE: u32 = 0;
    pub(super) const TAKEN: u32 = 1;
    pub(super) const ANSWERED: u32 = 2;
}

const _: () = assert!(entry::REQUEST + size_of::<RawRequest>() <= entry::NUMBER);
const _: () = assert!(entry::NUMBER + size_of::<u64>() <= ENTRY);

/// Which ring a journal is of. A connection made anew has others, and nothing of an old one may be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity([u32; IDENTITY_WORDS]);

impl Identity {
    pub(crate) fn of(queue: &Queue, abi: Abi) -> Self {
        let mut words = [0; IDENTITY_WORDS];
        let refs = queue.refs();
        let head = [abi as u32, queue.port.0, refs.len() as u32];
        let all = head.into_iter().chain(refs.iter().map(|gref| gref.0));
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        Self(words)
    }
}

/// Where the journal of a queue is.
pub(crate) fn path(directory: &Path, id: DeviceId, queue: usize) -> PathBuf {
    directory.join(format!("{}-{}-{}-q{queue}", id.kind, id.frontend, id.device))
}

/// Removes the journals of devices that are `absent`: unplugged while no backend was there to see it.
pub(crate) fn forget(directory: &Path, absent: impl Fn(DeviceId) -> bool) -> io::Result<()> {
    for file in directory.read_dir()? {
        let file = file?;
        if of(&file.file_name()).is_some_and(&absent) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Whose the journal of this name is, or the beginning of one that was never whole.
fn of(name: &OsStr) -> Option<DeviceId> {
    let (device, queue) = name.to_str()?.rsplit_once("-q")?;
    queue.strip_suffix(".new").unwrap_or(queue).parse::<usize>().ok()?;
    let device = device.replace('-', "/");
    let (id, below) = DeviceId::parse(&device)?;
    below.is_none().then_some(id)
}

/// An entry of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(u32);

/// Requests that were taken and not answered, the one taken first at the end.
pub(crate) type UnderWay = Vec<(Entry, RawRequest)>;

/// The journal of one queue, which has an entry for each slot of the ring.
#[derive(Debug)]
pub(crate) struct Journal {
    memory: Mapped,
    /// How many requests were taken.
    taken: u64,
    /// Free entries. The one freed last is used first.
    free: Vec<Entry>,
    /// Entries whose answers are not published yet.
    answered: Vec<Entry>,
}

impl Journal {
    /// An empty one, in place of any that was there. It is whole when it is there.
    pub(crate) fn create(path: &Path, identity: Identity, slots: u32) -> io::Result<Self> {
        // Made anew: a mapping of the old file stays what it is.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let begun = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&begun)?;
        let pages = pages(slots);
        file.set_len((pages * PAGE_SIZE) as u64)?;
        let memory = Mapped::file(&file, pages, Access::ReadWrite)?;
        for (number, word) in identity.0.into_iter().enumerate() {
            memory.store(IDENTITY + number * 4, word);
        }
        memory.store_release(0, MAGIC);
        std::fs::rename(&begun, path)?;
        let free = (0..slots).rev().map(Entry).collect();
        Ok(Self { memory, taken: 0, free, answered: Vec::new() })
    }

    /// The one that an earlier backend left, and what was under way in it when the ring showed the frontend answers up
    /// to index `published`. `None` if it is of another ring.
    pub(crate) fn reopen(
        path: &Path,
        identity: Identity,
        slots: u32,
        published: u32,
    ) -> io::Result<Option<(Self, UnderWay)>> {
        let file = File::options().read(true).write(true).open(path)?;
        let pages = pages(slots);
        if file.metadata()?.len() != (pages * PAGE_SIZE) as u64 {
            return Ok(None);
        }
        let memory = Mapped::file(&file, pages, Access::ReadWrite)?;
        let found = Identity(std::array::from_fn(|number| memory.load(IDENTITY + number * 4)));
        if memory.load_acquire(0) != MAGIC || found != identity {
            return Ok(None);
        }
        let mut journal = Self { memory, taken: 0, free: Vec::new(), answered: Vec::new() };
        let mut under_way = Vec::new();
        for entry in (0..slots).rev().map(Entry) {
            if journal.is_under_way(entry, published) {
                let number: u64 = journal.memory.read(entry.at(entry::NUMBER));
                journal.taken = journal.taken.max(number.saturating_add(1));
                under_way.push((number, entry, journal.memory.read(entry.at(entry::REQUEST))));
                journal.memory.store_release(entry.at(entry::STATE), state::TAKEN);
            } else {
                journal.memory.store_release(entry.at(entry::STATE), state::FREE);
                journal.free.push(entry);
            }
        }
        under_way.sort_unstable_by_key(|(number, ..)| Reverse(*number));
        let under_way = under_way.into_iter().map(|(_, entry, request)| (entry, request));
        Ok(Some((journal, under_way.collect())))
    }

    fn is_under_way(&self, entry: Entry, published: u32) -> bool {
        match self.memory.load_acquire(entry.at(entry::STATE)) {
            state::TAKEN => true,
            state::ANSWERED => {
                // Indices wrap; those of answers not published are ahead by a ring at most.
                let ahead = self.memory.load(entry.at(entry::ANSWER)).wrapping_sub(published);
                ahead < 1 << 31
            }
            _ => false,
        }
    }

    /// Notes a request that was taken. `None` when there is no entry left, which is when the ring has more requests
    /// than slots.
    #[inline]
    pub(crate) fn taken(&mut self, request: &RawRequest) -> Option<Entry> {
        let entry = self.free.pop()?;
        self.memory.write(entry.at(entry::REQUEST), request);
        self.memory.write(entry.at(entry::NUMBER), &self.taken);
        self.taken += 1;
        self.memory.store_release(entry.at(entry::STATE), state::TAKEN);
        Some(entry)
    }

    /// Notes that the answer of this index was pushed for an entry.
    #[inline]
    pub(crate) fn answered(&mut self, entry: Entry, index: u32) {
        self.memory.store(entry.at(entry::ANSWER), index);
        self.memory.store_release(entry.at(entry::STATE), state::ANSWERED);
        self.answered.push(entry);
    }

    /// Notes that all answers pushed are published.
    #[inline]
    pub(crate) fn published(&mut self) {
        for entry in self.answered.drain(..) {
            self.memory.store_release(entry.at(entry::STATE), state::FREE);
            self.free.push(entry);
        }
    }
}

impl Entry {
    /// Where a part of it lies.
    #[inline]
    fn at(self, part: usize) -> usize {
        PAGE_SIZE + self.0 as usize * ENTRY + part
    }
}

/// Size of the file.
fn pages(slots: u32) -> usize {
    1 + (slots as usize * ENTRY).div_ceil(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use ring_proto::xen::{GrantRef, Port};

    use super::*;
    use crate::claim::Kind;

    fn identity(port: u32) -> Identity {
        Identity::of(&Queue::new(&[GrantRef(8)], Port(port)).unwrap(), Abi::NATIVE)
    }

    fn request(id: u64) -> RawRequest {
        RawRequest { id, ..ring_proto::shared::zeroed() }
    }

    fn ids(found: &[(Entry, RawRequest)]) -> Vec<u64> {
        let mut ids: Vec<_> = found.iter().map(|(_, request)| request.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_was_not_shown_as_answered_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q0");
        let mut journal = Journal::create(&path, identity(3), 4).unwrap();
        let [a, b, _c] = [1, 2, 3].map(|id| journal.taken(&request(id)).unwrap());
        let near_the_end = u32::MAX;
        journal.answered(b, near_the_end);
        let reopen = |published| {
            let (_, found) = Journal::reopen(&path, identity(3), 4, published).unwrap().unwrap();
            ids(&found)
        };
        assert_eq!(reopen(near_the_end), [1, 2, 3], "pushed and not published");
        // To look at it took it up once more.
        journal.answered.clear();
        journal.answered(b, near_the_end);
        assert_eq!(reopen(0), [1, 3], "published, and killed before it was noted");
        journal.answered(a, 0);
        journal.published();
        assert_eq!(reopen(1), [3]);
        for id in 4..7 {
            assert!(journal.taken(&request(id)).is_some());
        }
        assert_eq!(journal.taken(&request(7)), None, "an entry for each slot and no more");
        assert_eq!(reopen(1), [3, 4, 5, 6]);
    }

    #[test]
    fn what_is_under_way_comes_in_the_order_in_which_it_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q0");
        let mut journal = Journal::create(&path, identity(3), 4).unwrap();
        let [a, _b, _c] = [1, 2, 3].map(|id| journal.taken(&request(id)).unwrap());
        journal.answered(a, 0);
        journal.published();
        // The next one has the entry of the first.
        assert_eq!(journal.taken(&request(4)), Some(a));
        for late in [5, 6] {
            let (mut again, mut found) =
                Journal::reopen(&path, identity(3), 4, 1).unwrap().unwrap();
            let order: Vec<_> =
                std::iter::from_fn(|| found.pop()).map(|(_, request)| request.id).collect();
            assert_eq!(order, (2..late).collect::<Vec<_>>(), "with one more in each life");
            again.taken(&request(late));
        }
    }

    #[test]
    fn only_journals_of_what_is_there_stay() {
        let dir = tempfile::tempdir().unwrap();
        let there = DeviceId { kind: Kind::Vbd3, frontend: 5, device: 51712 };
        let gone = DeviceId { device: 51728, ..there };
        let other = dir.path().join("notes");
        let begun = path(dir.path(), gone, 1).with_extension("new");
        for file in [path(dir.path(), there, 1), path(dir.path(), gone, 0), begun, other.clone()] {
            File::create(file).unwrap();
        }
        forget(dir.path(), |id| id != there).unwrap();
        assert!(path(dir.path(), there, 1).exists() && other.exists());
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn another_ring_finds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q0");
        assert!(Journal::reopen(&path, identity(3), 4, 0).is_err(), "none there");
        Journal::create(&path, identity(3), 4).unwrap().taken(&request(1));
        assert!(Journal::reopen(&path, identity(4), 4, 0).unwrap().is_none());
        assert!(Journal::reopen(&path, identity(3), 64, 0).unwrap().is_none());
        assert!(Journal::reopen(&path, identity(3), 4, 0).unwrap().is_some());
        Journal::create(&path, identity(3), 4).unwrap();
        let (_, found) = Journal::reopen(&path, identity(3), 4, 0).unwrap().unwrap();
        assert_eq!(found, []);
    }
}
