// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ring_proto::xen::{DomId, Port};
use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

/// The eventfds of all ports. A channel is two: what one end writes, the other reads.
///
/// The pair belongs to the channel: when one end closes, the other keeps it, and whoever binds next gets it.
#[derive(Debug, Default)]
pub(crate) struct Doorbells {
    ends: BTreeMap<(DomId, Port), End>,
}

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct End {
    incoming: Arc<OwnedFd>,
    outgoing: Arc<OwnedFd>,
}

impl End {
    /// What goes to the domain: where it reads, and where it writes.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.incoming.as_fd(), self.outgoing.as_fd()]
    }
}

impl Doorbells {
    /// Makes the doorbells of a new channel.
    pub(crate) fn open(&mut self, domain: DomId, port: Port) -> io::Result<&End> {
        let (incoming, outgoing) = (eventfd()?, eventfd()?);
        Ok(self.insert(domain, port, End { incoming, outgoing }))
    }

    /// Gives a new port the other side of a port's doorbells. `None` if the latter has none.
    pub(crate) fn connect(
        &mut self,
        domain: DomId,
        port: Port,
        peer: (DomId, Port),
    ) -> Option<&End> {
        let far = self.ends.get(&peer)?;
        let near = End { incoming: Arc::clone(&far.outgoing), outgoing: Arc::clone(&far.incoming) };
        let near = self.insert(domain, port, near);
        // The peer may have rung while nobody was there.
        ring(&near.incoming);
        Some(near)
    }

    fn insert(&mut self, domain: DomId, port: Port, end: End) -> &End {
        let place = self.ends.entry((domain, port));
        place.insert_entry(end).into_mut()
    }

    pub(crate) fn close(&mut self, domain: DomId, port: Port) {
        self.ends.remove(&(domain, port));
    }

    pub(crate) fn close_all(&mut self, domain: DomId) {
        self.ends.retain(|&(owner, _), _| owner != domain);
    }

    /// Rings a port, so that whoever sleeps on it looks up.
    pub(crate) fn ring(&self, domain: DomId, port: Port) {
        if let Some(end) = self.ends.get(&(domain, port)) {
            ring(&end.incoming);
        }
    }
}

/// A doorbell that does not block: a ring while it is full changes nothing, and an io_uring writes it at once.
fn eventfd() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

fn ring(doorbell: &OwnedFd) {
    // Whoever has the doorbell can make it one that blocks when full. Then it stays silent: nobody stops the daemon.
    match rustix::fs::fcntl_getfl(doorbell) {
        Ok(flags) if flags.contains(OFlags::NONBLOCK) => {}
        _ => return log::warn!("a doorbell was made blocking by its domain: not rung"),
    }
    match rustix::io::write(doorbell, &1u64.to_ne_bytes()) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(error) => log::warn!("ring a doorbell: {error}"),
    }
}
