// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use hypervisor_client::store::Store;
use hypervisor_client::toolstack;
use ring_proto::xen::DomId;
use ring_proto::xenstore::{Permission, Rights};
use xenstored::Server;

/// The store, and what the toolstack of a real hypervisor does there for each domain.
pub(crate) struct Xenstore {
    server: Server,
    privileged: Store,
}

impl Xenstore {
    pub(crate) fn start(listener: UnixListener) -> io::Result<Self> {
        let server = Server::start(listener)?;
        let privileged = Store::from_stream(server.connect(DomId::DOM0)?);
        // Without it only domain 0 is told, and a frontend would not learn that its backend's domain is gone.
        let everybody = [Permission::new(DomId::DOM0, Rights::Read)];
        privileged.set_perms("@releaseDomain", &everybody).map_err(io::Error::other)?;
        Ok(Self { server, privileged })
    }

    /// Makes a domain's directory and tells whoever watches that it is there.
    pub(crate) fn introduce(&self, domain: DomId, name: &str) {
        if let Err(error) = toolstack::create_home(&self.privileged, domain, name) {
            log::error!("the directory of domain {domain}: {error}");
        }
        if let Err(error) = self.server.introduce(domain) {
            log::error!("introduce domain {domain} to xenstore: {error}");
        }
    }

    /// Tells whoever watches that a domain is gone. Its directory stays: a backend that is started again finds its
    /// devices.
    pub(crate) fn release(&self, domain: DomId) {
        if let Err(error) = self.server.release(domain) {
            log::error!("release domain {domain} at xenstore: {error}");
        }
    }

    /// Opens a connection with a domain's identity.
    pub(crate) fn connect(&self, domain: DomId) -> io::Result<UnixStream> {
        self.server.connect(domain)
    }
}
