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
struct End {
    incoming: Arc<OwnedFd>,
    outgoing: Arc<OwnedFd>,
}

impl Doorbells {
    /// Makes the doorbells of a new port: the other side of its peer's, or else new ones.
    pub(crate) fn open(
        &mut self,
        domain: DomId,
        port: Port,
        peer: Option<(DomId, Port)>,
    ) -> io::Result<()> {
        let far = peer.and_then(|peer| self.ends.get(&peer));
        let end = match far {
            Some(far) => {
                End { incoming: Arc::clone(&far.outgoing), outgoing: Arc::clone(&far.incoming) }
            }
            None => End { incoming: eventfd()?, outgoing: eventfd()? },
        };
        if far.is_some() {
            // The peer may have rung while nobody was there.
            ring(&end.incoming);
        }
        self.ends.insert((domain, port), end);
        Ok(())
    }

    /// What goes to the domain: where it reads, and where it writes.
    pub(crate) fn fds(&self, domain: DomId, port: Port) -> Option<[BorrowedFd<'_>; 2]> {
        let end = self.ends.get(&(domain, port))?;
        Some([end.incoming.as_fd(), end.outgoing.as_fd()])
    }

    /// Closes a port. Whoever sleeps at the other end looks up.
    pub(crate) fn close(&mut self, domain: DomId, port: Port) {
        if let Some(end) = self.ends.remove(&(domain, port)) {
            ring(&end.outgoing);
        }
    }

    /// Closes all ports of a domain.
    pub(crate) fn close_all(&mut self, domain: DomId) {
        let ports = self.ends.range((domain, Port(0))..=(domain, Port(u32::MAX)));
        let ports: Vec<Port> = ports.map(|(&(_, port), _)| port).collect();
        for port in ports {
            self.close(domain, port);
        }
    }

    /// Rings a port.
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
