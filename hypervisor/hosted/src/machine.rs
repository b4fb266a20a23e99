// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hypervisor_client::Access;
use hypervisor_client::mapped::Mapped;
use hypervisor_core::{FrameUse, Machine, Mfn, PAGE_SIZE};
use ring_proto::shared::{AsRegion, Region, SharedMemory};
use ring_proto::xen::{DomId, Port};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use crate::doorbells::Doorbells;

/// The machine of the hosted mode: a frame is a page of a memfd, an interrupt a write to an eventfd.
///
/// A domain has two memfds: its grant pool, and its grant table. Both are sealed, so that nobody can shrink one and
/// have another fault. Machine frame numbers are never used twice: one that a domain kept too long names nothing.
#[derive(Debug)]
pub(crate) struct ProcessMachine {
    files: BTreeMap<Mfn, FrameFile>,
    /// The files of the domain that is being created.
    next: Option<(Mfn, Mfn)>,
    unused: u64,
    pub(crate) doorbells: Doorbells,
}

/// What the pages of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A domain's pages, to be granted.
    Pool,
    /// Its grant table, which nobody else may have.
    Table,
}

/// Pages of one memfd.
#[derive(Debug)]
pub(crate) struct FrameFile {
    owner: DomId,
    purpose: Purpose,
    file: OwnedFd,
    memory: Mapped,
    pages: u64,
    /// How many of them are in use.
    used: u64,
}

impl FrameFile {
    fn new(purpose: Purpose, owner: DomId, pages: u32) -> io::Result<Self> {
        let name = match purpose {
            Purpose::Pool => "causeway-grant-pool",
            Purpose::Table => "causeway-grant-table",
        };
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, u64::from(pages) * PAGE_SIZE as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = Mapped::file(&file, pages as usize, Access::ReadWrite)?;
        Ok(Self { owner, purpose, file, memory, pages: pages.into(), used: 0 })
    }

    pub(crate) fn owner(&self) -> DomId {
        self.owner
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A descriptor of the same pages through which nothing can be mapped for writing.
    pub(crate) fn read_only(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
    }
}

impl ProcessMachine {
    pub(crate) fn new() -> Self {
        Self { files: BTreeMap::new(), next: None, unused: 1, doorbells: Doorbells::default() }
    }

    /// Provides the memory of a domain that is created next. Returns the frames at which its pool and its grant table
    /// begin.
    pub(crate) fn provide(
        &mut self,
        owner: DomId,
        pool_pages: u32,
        table_pages: u32,
    ) -> io::Result<(Mfn, Mfn)> {
        let pool = FrameFile::new(Purpose::Pool, owner, pool_pages)?;
        let table = FrameFile::new(Purpose::Table, owner, table_pages)?;
        let (pool, table) = (self.add(pool), self.add(table));
        self.next = Some((pool, table));
        Ok((pool, table))
    }

    /// Takes back what [`provide`](Self::provide) provided and nobody used.
    pub(crate) fn withdraw(&mut self) {
        self.next = None;
        self.files.retain(|_, file| file.used > 0);
    }

    fn add(&mut self, file: FrameFile) -> Mfn {
        let base = Mfn(self.unused);
        self.unused += file.pages;
        self.files.insert(base, file);
        base
    }

    /// The file that a frame lies in, and the frame at which it begins.
    pub(crate) fn file(&self, mfn: Mfn) -> Option<(Mfn, &FrameFile)> {
        let (&base, file) = self.files.range(..=mfn).next_back()?;
        (mfn.0 - base.0 < file.pages).then_some((base, file))
    }

    /// The pool that a frame lies in, and the frame at which it begins.
    pub(crate) fn pool(&self, mfn: Mfn) -> Option<(Mfn, &FrameFile)> {
        self.file(mfn).filter(|(_, file)| file.purpose == Purpose::Pool)
    }

    fn page(&self, mfn: Mfn) -> Option<Region<'_>> {
        let (base, file) = self.file(mfn)?;
        let page = usize::try_from(mfn.0 - base.0).ok()?;
        let region = file.memory.as_region().part(page * PAGE_SIZE, PAGE_SIZE);
        debug_assert!(region.is_some(), "{mfn} lies in its file");
        region
    }

    /// Changes a word as one step and a full barrier. Returns what was there.
    fn fetch_update(&self, mfn: Mfn, offset: usize, change: impl Fn(u32) -> u32) -> u32 {
        let Some(page) = self.page(mfn) else { return 0 };
        let mut seen = page.load(offset);
        loop {
            match page.compare_exchange(offset, seen, change(seen)) {
                Ok(old) => return old,
                Err(now) => seen = now,
            }
        }
    }
}

impl Machine for ProcessMachine {
    fn allocate(&mut self, _owner: DomId, usage: FrameUse) -> Option<Mfn> {
        let (pool, table) = self.next?;
        let (base, page) = match usage {
            FrameUse::Memory(gfn) => (pool, gfn.0),
            FrameUse::GrantTable(page) => (table, page.into()),
            _ => return None,
        };
        let file = self.files.get_mut(&base).filter(|file| page < file.pages)?;
        file.used += 1;
        Some(Mfn(base.0 + page))
    }

    fn free(&mut self, mfn: Mfn) {
        let Some((&base, file)) = self.files.range_mut(..=mfn).next_back() else { return };
        file.used = file.used.saturating_sub(1);
        if file.used == 0 {
            self.files.remove(&base);
        }
    }

    fn load(&self, mfn: Mfn, offset: usize) -> u32 {
        self.page(mfn).map_or(0, |page| page.load_acquire(offset))
    }

    fn store(&self, mfn: Mfn, offset: usize, value: u32) {
        if let Some(page) = self.page(mfn) {
            page.store_release(offset, value);
        }
    }

    fn compare_exchange(&self, mfn: Mfn, offset: usize, old: u32, new: u32) -> Result<u32, u32> {
        self.page(mfn).map_or(Err(!old), |page| page.compare_exchange(offset, old, new))
    }

    fn fetch_or(&self, mfn: Mfn, offset: usize, bits: u32) -> u32 {
        self.fetch_update(mfn, offset, |word| word | bits)
    }

    fn fetch_and(&self, mfn: Mfn, offset: usize, bits: u32) -> u32 {
        self.fetch_update(mfn, offset, |word| word & bits)
    }

    fn copy(&self, source: (Mfn, usize), dest: (Mfn, usize), len: usize) {
        let (Some(from), Some(to)) = (self.page(source.0), self.page(dest.0)) else { return };
        let mut bytes = [0; PAGE_SIZE];
        let Some(bytes) = bytes.get_mut(..len) else { return };
        from.copy_out(source.1, bytes);
        to.copy_in(dest.1, bytes);
    }

    /// Nothing: a frame is never used again, and its memory goes with its file.
    fn zero(&self, _mfn: Mfn) {}

    fn ring(&mut self, domain: DomId, port: Port) {
        self.doorbells.ring(domain, port);
    }

    /// Processes have no virtual CPUs to interrupt.
    fn upcall(&mut self, _domain: DomId, _vcpu: u32) {}
}
