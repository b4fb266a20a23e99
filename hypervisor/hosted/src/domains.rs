// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the daemon does for its domains: creating and ending them, their hypercalls, their descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hypervisor_client::hosted::protocol::{ANY_DOMID, Join, Joined, Pool, PoolFound};
use hypervisor_core::{DomainConfig, DomainKind, Hypervisor, Mfn};
use ring_proto::xen::event_channel::virq;
use ring_proto::xen::{DomId, Errno};

use crate::Limits;
use crate::daemon::errno_of;
use crate::machine::ProcessMachine;

/// Grant entries of version 1 in a page.
const ENTRIES_PER_PAGE: u32 = ring_proto::xen::grant_table::V1_PER_PAGE;

/// The hypervisor and its domains.
#[derive(Debug)]
pub(crate) struct Domains {
    pub(crate) hypervisor: Hypervisor<ProcessMachine>,
    limits: Limits,
}

/// Descriptors for a domain: borrowed from the hypervisor, or made for this answer.
#[derive(Debug)]
pub(crate) enum Fd<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl AsFd for Fd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Owned(fd) => fd.as_fd(),
        }
    }
}

impl Domains {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { hypervisor: Hypervisor::new(ProcessMachine::new()), limits }
    }

    /// Creates a domain with a pool and a grant table that has an entry for each page of it.
    pub(crate) fn join(
        &mut self,
        join: &Join,
    ) -> Result<(DomId, Joined, [BorrowedFd<'_>; 2]), Errno> {
        let pages = join.pool_pages;
        if pages == 0 {
            return Err(Errno::EINVAL);
        }
        if pages > self.limits.pool_pages {
            return Err(Errno::E2BIG);
        }
        let id = self.free_id(join.domid)?;
        // Those that are gone count too while a peer holds their pages: it could gather them without end.
        if self.hypervisor.domain_count() >= self.limits.domains {
            return Err(Errno::ENOSPC);
        }
        let reserved = ring_proto::xen::grant_table::NR_RESERVED_ENTRIES;
        let grant_frames = (pages + reserved).div_ceil(ENTRIES_PER_PAGE);
        let config = DomainConfig {
            max_grant_version: 1,
            max_grant_frames: grant_frames,
            max_maptrack_frames: self.limits.maptrack_frames,
            max_port: self.limits.ports,
            ..DomainConfig::new(DomainKind::Process, pages.into())
        };
        let (pool, table) =
            self.hypervisor.machine_mut().provide(id, pages, grant_frames).map_err(|error| {
                log::error!("memory for domain {id}: {error}");
                errno_of(&error).unwrap_or(Errno::ENOMEM)
            })?;
        let created = self.hypervisor.create_domain(id, &config);
        let created =
            created.and_then(|()| match self.hypervisor.grant_table_frames(id, grant_frames) {
                Ok(_) => Ok(()),
                Err(errno) => self.hypervisor.destroy_domain(id).and(Err(errno)),
            });
        self.hypervisor.machine_mut().withdraw();
        created?;
        let joined = Joined { domid: id.0.into(), grant_frames, pool_gfn: 0 };
        let machine = self.hypervisor.machine();
        match (machine.file(pool), machine.file(table)) {
            (Some((_, pool)), Some((_, table))) => Ok((id, joined, [pool.as_fd(), table.as_fd()])),
            _ => Err(Errno::ENOMEM),
        }
    }

    fn free_id(&self, wanted: u32) -> Result<DomId, Errno> {
        let in_use = |id: DomId| {
            self.hypervisor.is_dying(id) || self.hypervisor.domains().any(|other| other == id)
        };
        if wanted == ANY_DOMID {
            let mut ids = (1..DomId::FIRST_RESERVED.0).map(DomId);
            return ids.find(|&id| !in_use(id)).ok_or(Errno::ENOSPC);
        }
        let id = u16::try_from(wanted).map(DomId).map_err(|_| Errno::EINVAL)?;
        if in_use(id) { Err(Errno::EEXIST) } else { Ok(id) }
    }

    /// Ends a domain, and rings the doorbells of those that were connected to it.
    pub(crate) fn end(&mut self, id: DomId) {
        let departure = match self.hypervisor.destroy_domain(id) {
            Ok(departure) => departure,
            Err(errno) => return log::error!("end of domain {id}: {errno}"),
        };
        let doorbells = &mut self.hypervisor.machine_mut().doorbells;
        doorbells.close_all(id);
        // As Xen tells its toolstack.
        self.hypervisor.raise_global_virq(virq::DOM_EXC);
        if !departure.mapped_by.is_empty() {
            log::info!(
                "domain {id} ended; its pages stay until {:?} let go of them",
                departure.mapped_by
            );
        }
    }

    /// The descriptor of the pool that a frame lies in, for a domain that has mapped a page of it.
    pub(crate) fn pool(&self, caller: DomId, wish: &Pool) -> Result<(PoolFound, Fd<'_>), Errno> {
        let (base, file) = self.hypervisor.machine().pool(Mfn(wish.mfn)).ok_or(Errno::ENOENT)?;
        let writable = wish.writable != 0;
        let mapped = self
            .hypervisor
            .mappings(caller)
            .any(|(_, granter, _, readonly)| granter == file.owner() && !(writable && readonly));
        if !mapped {
            return Err(Errno::EACCES);
        }
        let found = PoolFound { base_mfn: base.0, pages: file.pages() };
        let fd = if writable {
            Fd::Borrowed(file.as_fd())
        } else {
            Fd::Owned(file.read_only().map_err(|error| {
                log::error!(
                    "a read-only descriptor of the pool of domain {}: {error}",
                    file.owner()
                );
                errno_of(&error).unwrap_or(Errno::EIO)
            })?)
        };
        Ok((found, fd))
    }
}
