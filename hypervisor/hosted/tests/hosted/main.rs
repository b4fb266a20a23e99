// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hosted hypervisor and its domains, over their sockets. Where a test says no other, all are in this process.

mod events;
mod grants;
mod hostile;
mod limits;
mod processes;
mod store;

use hypervisor_client::Error;
use hypervisor_client::hosted::{HostedClient, Options, connect};
use hypervisor_hosted::Hosted;
use ring_proto::xen::{DomId, Errno};
use tempfile::TempDir;

fn hypervisor() -> (TempDir, Hosted) {
    let dir = tempfile::tempdir().unwrap();
    let hosted = Hosted::start(dir.path()).unwrap();
    (dir, hosted)
}

fn join(dir: &TempDir, domid: u16) -> HostedClient {
    try_join(dir, domid, 64).unwrap()
}

fn try_join(dir: &TempDir, domid: u16, pool_pages: u32) -> Result<HostedClient, Error> {
    let options = Options { domid: Some(DomId(domid)), name: format!("test {domid}"), pool_pages };
    connect(dir.path(), options)
}

/// Why something was refused.
fn errno<T>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused { errno, .. } | Error::Store { errno, .. }) => errno,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}
