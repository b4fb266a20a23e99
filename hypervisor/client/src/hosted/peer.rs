// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mapping what peers granted.
//!
//! The hypervisor checks each reference and answers with the machine frame that it names. Frames lie in pools, one for
//! each domain, and a pool is mapped here as a whole, once for each way of access: a page of it is then a pointer, and
//! so are pages that are adjacent frames. Pages that are not are mapped once more, side by side.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ring_proto::shared::{AsRegion, PAGE_SIZE, SharedMemory};
use ring_proto::xen::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_READONLY, GrantError, MapGrantRef, UnmapGrantRef, op,
};
use ring_proto::xen::{DomId, Errno, GrantRef, hypercall};

use super::connection::{Connection, batch, errno, refused};
use super::protocol::{Pool as PoolRequest, PoolFound, kind};
use crate::mapped::{Mapped, Memory};
use crate::status::grant_result;
use crate::{Access, CopyDirection, Error, GrantCopy};

/// A peer's pool, mapped here.
#[derive(Debug)]
struct PeerPool {
    base_mfn: u64,
    pages: u64,
    access: Access,
    file: OwnedFd,
    memory: Arc<Mapped>,
}

impl PeerPool {
    /// Number of a machine frame's page in the pool.
    fn page(&self, mfn: u64) -> Option<u64> {
        mfn.checked_sub(self.base_mfn).filter(|&page| page < self.pages)
    }

    /// Where in the pool a machine frame's page begins, in bytes.
    fn offset(&self, mfn: u64) -> Option<usize> {
        usize::try_from(self.page(mfn)?).ok()?.checked_mul(PAGE_SIZE)
    }

    /// The memory of `count` pages from a machine frame on.
    fn memory(&self, mfn: u64, count: usize) -> Option<Memory> {
        Memory::part(&self.memory, self.offset(mfn)?, count.checked_mul(PAGE_SIZE)?)
    }
}

/// The pools that mappings lie in. A pool goes with its last mapping.
#[derive(Debug)]
pub(super) struct Peers {
    connection: Arc<Connection>,
    pools: Mutex<Vec<Weak<PeerPool>>>,
}

/// A peer's pages, mapped until dropped. The pool stays known as long as one of its pages is mapped.
#[derive(Debug)]
pub(crate) struct MappedPages {
    _pool: Arc<PeerPool>,
    _handles: Handles,
}

/// Mappings as the hypervisor knows them, until dropped.
#[derive(Debug)]
struct Handles {
    connection: Arc<Connection>,
    unmap: Vec<UnmapGrantRef>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        for unmap in self.unmap.chunks(batch::<UnmapGrantRef>()) {
            self.connection.hypercall_quiet(hypercall::GRANT_TABLE_OP, op::UNMAP_GRANT_REF, unmap);
        }
    }
}

impl Peers {
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, pools: Mutex::default() }
    }

    /// Maps pages side by side. Also returns whether they are a part of their pool.
    pub fn map(
        &self,
        peer: DomId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(Memory, bool, MappedPages), Error> {
        let mut wishes: Vec<_> = refs.iter().map(|&gref| wish(peer, gref, access)).collect();
        let handles = self.map_handles(peer, &mut wishes)?;
        if let Some((gref, error)) = wishes
            .iter()
            .find_map(|wish| grant_result(wish.status).err().map(|error| (wish.gref, error)))
        {
            return Err(refused(format!("map of grant {gref} for {access}"), peer, error));
        }
        let first = match wishes.first() {
            Some(wish) => frame(wish),
            None => return Err(refused("map of no grants", peer, Errno::EINVAL)),
        };
        let pool = self.pool(peer, first, access)?;
        let adjacent = wishes.iter().zip(first..).all(|(wish, expected)| frame(wish) == expected);
        if adjacent {
            let memory = pool
                .memory(first, refs.len())
                .ok_or_else(|| self.connection.nonsense("map of grants"))?;
            return Ok((memory, true, MappedPages { _pool: pool, _handles: handles }));
        }
        let pages: Option<Vec<u64>> = wishes.iter().map(|wish| pool.page(frame(wish))).collect();
        let pages = pages.ok_or_else(|| self.connection.nonsense("map of grants"))?;
        let stitched =
            Mapped::stitched(&pool.file, pages.into_iter(), access).map_err(|source| {
                Error::Io {
                    operation: format!("map {} pages of domain {peer}", refs.len()),
                    source,
                }
            })?;
        Ok((Memory::all(stitched), false, MappedPages { _pool: pool, _handles: handles }))
    }

    /// Maps each page for as long as its copy takes.
    pub fn copy(&self, peer: DomId, operations: &mut [GrantCopy<'_>]) -> Result<(), Error> {
        for operations in operations.chunks_mut(batch::<MapGrantRef>()) {
            let mut wishes: Vec<_> = operations
                .iter()
                .map(|operation| match operation.direction {
                    CopyDirection::FromPeer => wish(peer, operation.gref, Access::ReadOnly),
                    CopyDirection::ToPeer => wish(peer, operation.gref, Access::ReadWrite),
                })
                .collect();
            let _handles = self.map_handles(peer, &mut wishes)?;
            for (operation, wish) in operations.iter_mut().zip(&wishes) {
                operation.status = self.copy_one(peer, operation, wish)?;
            }
        }
        Ok(())
    }

    fn copy_one(
        &self,
        peer: DomId,
        operation: &GrantCopy<'_>,
        wish: &MapGrantRef,
    ) -> Result<Result<(), Errno>, Error> {
        if let Err(errno) = grant_result(wish.status) {
            return Ok(Err(errno));
        }
        let offset = usize::from(operation.offset);
        if offset + operation.local.len() > PAGE_SIZE {
            return Ok(Err(Errno::EINVAL));
        }
        let mfn = frame(wish);
        let access =
            if wish.flags & GNTMAP_READONLY != 0 { Access::ReadOnly } else { Access::ReadWrite };
        // A pool that is mapped for writing serves for reading too.
        let pool = match self.mapped_pool(mfn, Access::ReadWrite) {
            Some(pool) => pool,
            None => self.pool(peer, mfn, access)?,
        };
        let page = pool
            .offset(mfn)
            .and_then(|offset| pool.memory.as_region().part(offset, PAGE_SIZE))
            .ok_or_else(|| self.connection.nonsense("copy of a grant"))?;
        let mut bytes = [0; PAGE_SIZE];
        let Some(bytes) = bytes.get_mut(..operation.local.len()) else {
            return Ok(Err(Errno::EINVAL));
        };
        match operation.direction {
            CopyDirection::FromPeer => {
                page.copy_out(offset, bytes);
                operation.local.copy_in(0, bytes);
            }
            CopyDirection::ToPeer => {
                operation.local.copy_out(0, bytes);
                page.copy_in(offset, bytes);
            }
        }
        Ok(Ok(()))
    }

    /// Has the hypervisor check and pin the grants. Each wish has its status and frame afterwards.
    fn map_handles(&self, peer: DomId, wishes: &mut [MapGrantRef]) -> Result<Handles, Error> {
        let mut handles = Handles {
            connection: Arc::clone(&self.connection),
            unmap: Vec::with_capacity(wishes.len()),
        };
        for wishes in wishes.chunks_mut(batch::<MapGrantRef>()) {
            let returned =
                self.connection.hypercall(hypercall::GRANT_TABLE_OP, op::MAP_GRANT_REF, wishes)?;
            let mapped = wishes.iter().filter(|wish| wish.status == 0);
            handles.unmap.extend(mapped.map(|wish| UnmapGrantRef {
                dev_bus_addr: wish.dev_bus_addr,
                handle: wish.handle,
                ..UnmapGrantRef::default()
            }));
            if returned.result < 0 {
                return Err(refused(
                    format!("map of {} grants", wishes.len()),
                    peer,
                    errno(returned.result),
                ));
            }
        }
        Ok(handles)
    }

    fn mapped_pool(&self, mfn: u64, access: Access) -> Option<Arc<PeerPool>> {
        find(&self.pools.lock().unwrap_or_else(PoisonError::into_inner), mfn, access)
    }

    /// The pool that a frame lies in, which this domain has mapped with this access.
    fn pool(&self, peer: DomId, mfn: u64, access: Access) -> Result<Arc<PeerPool>, Error> {
        if let Some(pool) = self.mapped_pool(mfn, access) {
            return Ok(pool);
        }
        let operation = format!("get the grant pool of domain {peer} for {access}");
        let wish = PoolRequest { mfn, writable: u32::from(access == Access::ReadWrite), pad: 0 };
        let (found, fds): (PoolFound, _) =
            self.connection.request(kind::POOL, &wish, &operation, peer)?;
        let file = fds.into_iter().next().ok_or_else(|| self.connection.nonsense(&operation))?;
        let pages =
            usize::try_from(found.pages).map_err(|_| self.connection.nonsense(&operation))?;
        let memory =
            Mapped::file(&file, pages, access).map_err(|source| Error::Io { operation, source })?;
        let pool = Arc::new(PeerPool {
            base_mfn: found.base_mfn,
            pages: found.pages,
            access,
            file,
            memory: Arc::new(memory),
        });
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster, and all mappings are to lie in one.
        if let Some(pool) = find(&pools, mfn, access) {
            return Ok(pool);
        }
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        Ok(pool)
    }
}

/// The pool among these that a frame lies in, mapped with this access.
fn find(pools: &[Weak<PeerPool>], mfn: u64, access: Access) -> Option<Arc<PeerPool>> {
    let mut live = pools.iter().filter_map(Weak::upgrade);
    live.find(|pool| pool.access == access && pool.page(mfn).is_some())
}

fn wish(peer: DomId, gref: GrantRef, access: Access) -> MapGrantRef {
    let readonly = if access == Access::ReadOnly { GNTMAP_READONLY } else { 0 };
    MapGrantRef {
        flags: GNTMAP_DEVICE_MAP | readonly,
        gref: gref.0,
        dom: peer.0,
        // What stands there if the hypervisor stops before this one.
        status: GrantError::GeneralError as i16,
        ..MapGrantRef::default()
    }
}

fn frame(wish: &MapGrantRef) -> u64 {
    wish.dev_bus_addr / PAGE_SIZE as u64
}
