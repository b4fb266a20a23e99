// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::{Arc, Mutex, PoisonError};

use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xen::{DomId, Errno, GrantRef};

use super::connection::{Connection, refused};
use super::free_pages::FreePages;
use super::grant_table::GrantTable;
use crate::mapped::{Mapped, Memory};
use crate::{Access, Error};

/// The pages of this domain that can be granted, and its grant table.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Arc<Mapped>,
    table: GrantTable<Mapped>,
    pages: u32,
    first_gfn: u32,
    free: Mutex<Free>,
    /// Open as long as anything is granted: with it the domain ends.
    _connection: Arc<Connection>,
}

#[derive(Debug)]
struct Free {
    pages: FreePages,
    refs: Vec<GrantRef>,
    /// Pages that were granted and are not wanted any more, but which the peer still holds mapped.
    waiting: Vec<(GrantRef, u32)>,
}

impl Free {
    /// Takes back what peers have let go of meanwhile.
    fn reclaim(&mut self, table: &GrantTable<Mapped>) {
        let Self { pages, refs, waiting } = self;
        waiting.retain(|&(gref, page)| {
            let ended = table.end(gref);
            if ended {
                refs.push(gref);
                pages.give(page, 1);
            }
            !ended
        });
    }
}

impl Pool {
    pub fn new(
        connection: Arc<Connection>,
        memory: Mapped,
        table_memory: Mapped,
        pages: u32,
        first_gfn: u32,
    ) -> Self {
        let table = GrantTable::new(table_memory);
        let free =
            Free { pages: FreePages::new(pages), refs: table.free_refs(), waiting: Vec::new() };
        Self {
            memory: Arc::new(memory),
            table,
            pages,
            first_gfn,
            free: Mutex::new(free),
            _connection: connection,
        }
    }

    /// How many pages wait until their peer lets go of them.
    pub fn waiting(&self) -> usize {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.reclaim(&self.table);
        free.waiting.len()
    }

    /// Takes `pages` adjacent pages, zeroes them, and lets `peer` map them.
    pub fn grant(
        self: &Arc<Self>,
        peer: DomId,
        pages: usize,
        access: Access,
    ) -> Result<(Memory, Vec<GrantRef>, GrantedPages), Error> {
        let exhausted = |free: &Free| {
            let (left, waiting) = (free.pages.len(), free.waiting.len());
            let (refs, size) = (free.refs.len(), self.pages);
            refused(
                format!(
                    "grant of {pages} adjacent pages from a pool of {size} ({left} free, {waiting} still mapped by \
                     peers, {refs} grant references left)"
                ),
                peer,
                Errno::ENOSPC,
            )
        };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if !free.waiting.is_empty() {
            free.reclaim(&self.table);
        }
        let count = match u32::try_from(pages) {
            Ok(0) => return Err(refused("grant of no pages", peer, Errno::EINVAL)),
            Ok(count) if pages <= free.refs.len() => count,
            _ => return Err(exhausted(&free)),
        };
        let first = free.pages.take(count).ok_or_else(|| exhausted(&free))?;
        let (offset, len) = (first as usize * PAGE_SIZE, pages * PAGE_SIZE);
        let Some(memory) = Memory::part(&self.memory, offset, len) else {
            free.pages.give(first, count);
            return Err(exhausted(&free));
        };
        let keep = free.refs.len() - pages;
        let refs: Vec<GrantRef> = free.refs.drain(keep..).rev().collect();
        drop(free);

        let zeroes = [0; PAGE_SIZE];
        for page in 0..pages {
            memory.copy_in(page * PAGE_SIZE, &zeroes);
        }
        for (&gref, page) in refs.iter().zip(first..) {
            self.table.permit(gref, peer, self.first_gfn + page, access);
        }
        let granted = GrantedPages { pool: Arc::clone(self), first, refs: refs.clone() };
        Ok((memory, refs, granted))
    }
}

/// Pages granted to a peer, until dropped.
#[derive(Debug)]
pub(crate) struct GrantedPages {
    pool: Arc<Pool>,
    first: u32,
    refs: Vec<GrantRef>,
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        for (&gref, page) in self.refs.iter().zip(self.first..) {
            if self.pool.table.end(gref) {
                free.refs.push(gref);
                free.pages.give(page, 1);
            } else {
                free.waiting.push((gref, page));
            }
        }
    }
}
