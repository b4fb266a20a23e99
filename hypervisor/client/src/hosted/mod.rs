// SPDX-License-Identifier: MIT OR Apache-2.0

//! A domain of the hosted hypervisor: this process, connected to the daemon's socket.
//!
//! The daemon is asked only to connect, to map, unmap and copy, and to open or close an event channel. What is granted
//! stands in the grant table, which this process writes itself; rings lie in shared pages; doorbells are eventfds.
//! [`HostedClient::hypercalls`] counts the trips, so that this can be seen.

mod connection;
mod doorbells;
mod free_pages;
mod grant_table;
mod peer;
mod pool;
pub mod protocol;
pub mod socket;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use ring_proto::xen::event_channel::{AllocUnbound, BindInterdomain, BindVirq, op};
use ring_proto::xen::{DomId, GrantRef, Port, hypercall};

use crate::event::Kind;
use crate::mapped::Mapped;
use crate::store::Store;
use crate::{Access, Client, Error, EventChannel, Grant, GrantCopy, Mapping, memory};

use connection::{Connection, Returned, errno, refused};
use protocol::{ANY_DOMID, Join, Joined, MAX_NAME, VERSION, kind};

pub(crate) use doorbells::Doorbells;
pub(crate) use peer::MappedPages;
pub(crate) use pool::GrantedPages;

/// What to ask for when connecting.
#[derive(Clone, Debug)]
pub struct Options {
    /// The id wanted, or `None` for any that is free.
    pub domid: Option<DomId>,
    /// The domain's name, for messages. At most 64 bytes; longer ones are cut.
    pub name: String,
    /// How many pages of 4096 bytes can be granted at a time. They take memory only once they are used, or
    /// all at once when a peer registers its mapping of them ([`Mapping::backing`]).
    pub pool_pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { domid: None, name: String::new(), pool_pages: 4096 }
    }
}

/// A domain of the hosted hypervisor. It ends when this and all its grants, mappings and event channels are dropped; its
/// connections to xenstore are closed then.
#[derive(Debug)]
pub struct HostedClient {
    connection: Arc<Connection>,
    domid: DomId,
    pool: Arc<pool::Pool>,
    peers: peer::Peers,
}

/// Becomes a domain of the hypervisor whose directory is `dir`.
///
/// # Errors
///
/// When nothing listens there; `EEXIST` if the id is in use, also by a domain that is gone but whose pages a peer still
/// holds mapped; `E2BIG` if the pool is larger than the daemon allows; `ENOSPC` if there are as many domains as it
/// allows; `EMFILE` if it has no descriptors left.
pub fn connect(dir: &Path, options: Options) -> Result<HostedClient, Error> {
    let connection = Arc::new(Connection::open(dir)?);
    let (join, operation) = join(&options);
    let wanted = options.domid.unwrap_or(DomId::SELF);
    let (joined, fds): (Joined, _) = connection.request(kind::JOIN, &join, &operation, wanted)?;
    let nonsense = || connection.nonsense(&operation);
    let [pool, table] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| nonsense())?;
    let map = |file, pages: u32| {
        Mapped::file(file, pages as usize, Access::ReadWrite)
            .map_err(|source| Error::Io { operation: operation.clone(), source })
    };
    let pool = pool::Pool::new(
        Arc::clone(&connection),
        map(pool, options.pool_pages)?,
        map(table, joined.grant_frames)?,
        options.pool_pages,
        u32::try_from(joined.pool_gfn).map_err(|_| nonsense())?,
    );
    let domid = DomId(u16::try_from(joined.domid).map_err(|_| nonsense())?);
    let peers = peer::Peers::new(Arc::clone(&connection));
    Ok(HostedClient { connection, domid, pool: Arc::new(pool), peers })
}

fn join(options: &Options) -> (Join, String) {
    let mut len = options.name.len().min(MAX_NAME);
    while !options.name.is_char_boundary(len) {
        len -= 1;
    }
    let mut name = [0; MAX_NAME];
    for (to, from) in name.iter_mut().zip(options.name.bytes().take(len)) {
        *to = from;
    }
    let join = Join {
        version: VERSION,
        domid: options.domid.map_or(ANY_DOMID, |domid| u32::from(domid.0)),
        pool_pages: options.pool_pages,
        name_len: len as u32,
        name,
    };
    let id = options.domid.map_or_else(|| "any id".to_owned(), |domid| format!("id {domid}"));
    (join, format!("join with {id} and {} pages to grant", options.pool_pages))
}

impl HostedClient {
    /// How many hypercalls this domain has made.
    pub fn hypercalls(&self) -> u64 {
        self.connection.hypercalls()
    }

    /// How many pages are no longer granted but still mapped by a peer, and so cannot be granted anew.
    pub fn waiting_pages(&self) -> usize {
        self.pool.waiting()
    }

    /// Binds a port to a virtual interrupt of this domain (`VIRQ_*`). Domain 0 gets `VIRQ_DOM_EXC` when a domain ends.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such interrupt, `EEXIST` if it is bound already, `ENOSPC` when the domain's ports are
    /// used up.
    pub fn bind_virq(&self, virq: u32) -> Result<EventChannel, Error> {
        let mut bind = [BindVirq { virq, ..BindVirq::default() }];
        let returned =
            self.connection.hypercall(hypercall::EVENT_CHANNEL_OP, op::BIND_VIRQ, &mut bind)?;
        let [bind] = bind;
        self.channel(returned, bind.port, &format!("bind_virq {virq}"), self.domid)
    }

    fn channel(
        &self,
        returned: Returned,
        port: u32,
        operation: &str,
        peer: DomId,
    ) -> Result<EventChannel, Error> {
        if returned.result < 0 {
            return Err(refused(operation, peer, errno(returned.result)));
        }
        let [incoming, outgoing] = <[OwnedFd; 2]>::try_from(returned.fds)
            .map_err(|_| self.connection.nonsense(operation))?;
        let port = Port(port);
        let doorbells = Doorbells::new(incoming, outgoing, port, Arc::clone(&self.connection));
        Ok(EventChannel::new(port, Kind::Hosted(doorbells)))
    }
}

impl Client for HostedClient {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn grant(&self, peer: DomId, pages: usize, access: Access) -> Result<Grant, Error> {
        let (memory, refs, pages) = self.pool.grant(peer, pages, access)?;
        Ok(Grant::new(memory, refs, memory::GrantedPages::Hosted(pages)))
    }

    fn map(&self, peer: DomId, refs: &[GrantRef], access: Access) -> Result<Mapping, Error> {
        let (memory, shared, pages) = self.peers.map(peer, refs, access)?;
        Ok(Mapping::new(memory, shared, memory::MappedPages::Hosted(pages)))
    }

    fn copy(&self, peer: DomId, operations: &mut [GrantCopy<'_>]) -> Result<(), Error> {
        self.peers.copy(peer, operations)
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<EventChannel, Error> {
        let mut alloc = [AllocUnbound { dom: DomId::SELF.0, remote_dom: peer.0, port: 0 }];
        let returned = self.connection.hypercall(
            hypercall::EVENT_CHANNEL_OP,
            op::ALLOC_UNBOUND,
            &mut alloc,
        )?;
        let [alloc] = alloc;
        self.channel(returned, alloc.port, "alloc_unbound", peer)
    }

    fn bind_interdomain(&self, peer: DomId, port: Port) -> Result<EventChannel, Error> {
        let mut bind = [BindInterdomain {
            remote_dom: peer.0,
            remote_port: port.0,
            ..BindInterdomain::default()
        }];
        let returned = self.connection.hypercall(
            hypercall::EVENT_CHANNEL_OP,
            op::BIND_INTERDOMAIN,
            &mut bind,
        )?;
        let [bind] = bind;
        self.channel(returned, bind.local_port, &format!("bind_interdomain to port {port}"), peer)
    }

    fn store(&self) -> Result<Store, Error> {
        let fd = self.connection.store(self.domid)?;
        Ok(Store::from_stream(UnixStream::from(fd)))
    }
}
