// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two domains that share one page and a doorbell.
//!
//! `ping_pong DIR pong DOMID` waits for a page and answers what it reads there, until killed. `ping_pong DIR ping DOMID
//! ROUNDS` grants it that page and counts. Both find each other through xenstore, and need the hypervisor only for that.

use std::error::Error;
use std::path::Path;

use hypervisor_client::hosted::{HostedClient, Options, connect};
use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client};
use ring_proto::shared::SharedMemory;
use ring_proto::xen::{DomId, GrantRef, Port};
use ring_proto::xenstore::{Permission, Rights};

/// Where ping writes its count, and where pong answers.
const PING: usize = 0;
const PONG: usize = 4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match args.as_slice() {
        [dir, "pong", domid] => pong(&join(dir, "pong", Some(DomId(domid.parse()?)))?),
        [dir, "ping", peer, rounds] => {
            ping(&join(dir, "ping", None)?, DomId(peer.parse()?), rounds.parse()?)
        }
        _ => Err("usage: ping_pong DIR pong DOMID | ping_pong DIR ping DOMID ROUNDS".into()),
    }
}

fn join(dir: &str, name: &str, domid: Option<DomId>) -> Result<HostedClient> {
    Ok(connect(Path::new(dir), Options { domid, name: name.to_owned(), pool_pages: 16 })?)
}

fn ping(client: &HostedClient, peer: DomId, rounds: u32) -> Result<()> {
    let grant = client.grant(peer, 1, Access::ReadWrite)?;
    let channel = client.alloc_unbound(peer)?;
    let [gref] = *grant.refs() else { return Err("one page has one reference".into()) };

    // Pong reads this from the inbox that it made.
    let store = client.store()?;
    let inbox = format!("/local/domain/{peer}/data/inbox");
    wait_until_empty(&store, &inbox)?;
    store.write(&inbox, format!("{} {gref} {}", client.domid(), channel.port()))?;

    let before = client.hypercalls();
    for round in 1..=rounds {
        grant.publish(PING, round);
        channel.notify()?;
        while grant.load_acquire(PONG) != round {
            channel.wait(None)?;
        }
    }
    println!("{rounds} rounds, {} hypercalls", client.hypercalls() - before);
    Ok(())
}

fn pong(client: &HostedClient) -> Result<()> {
    let store = client.store()?;
    let inbox = "data/inbox";
    store.write(inbox, "")?;
    store.set_perms(inbox, &[Permission::new(client.domid(), Rights::Both)])?;
    store.watch(inbox, "inbox")?;
    let (peer, gref, port) = loop {
        store.next_event(None)?;
        if let [peer, gref, port] = store.read_str(inbox)?.split(' ').collect::<Vec<_>>()[..] {
            break (DomId(peer.parse()?), GrantRef(gref.parse()?), Port(port.parse()?));
        }
    };
    let page = client.map(peer, &[gref], Access::ReadWrite)?;
    let channel = client.bind_interdomain(peer, port)?;
    loop {
        let round = page.load_acquire(PING);
        if page.load(PONG) != round {
            page.publish(PONG, round);
            channel.notify()?;
        }
        channel.wait(None)?;
    }
}

/// Waits until a node is there, and empty.
fn wait_until_empty(store: &Store, path: &str) -> Result<()> {
    store.watch(path, "wait")?;
    loop {
        store.next_event(None)?;
        // Until its owner has opened it, it may not even be looked at.
        if store.read(path).is_ok_and(|value| value.is_empty()) {
            return Ok(());
        }
    }
}
