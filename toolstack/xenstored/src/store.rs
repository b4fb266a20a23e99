// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store itself: the tree, the connections to it, and what they are told. It knows nothing of sockets or rings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};

use crate::client::{Client, ClientId};
use crate::operation::{Caller, Change, lookup};
use crate::path::NodePath;
use crate::permissions::{Need, Permissions};
use crate::quota::{Quota, within};
use crate::tree::{Node, Tree};
use crate::watch::{Event, Watch};

/// All state of the store.
#[derive(Debug)]
pub(crate) struct Store {
    tree: Tree,
    /// Permissions of the special watch paths, which are no nodes.
    special: BTreeMap<&'static str, Permissions>,
    introduced: BTreeSet<DomId>,
    clients: BTreeMap<ClientId, Client>,
    next_client: u64,
    quota: Quota,
    events: Vec<(ClientId, Event)>,
}

impl Store {
    /// A store with nothing in it.
    pub(crate) fn new(quota: Quota) -> Self {
        let special =
            [INTRODUCE_DOMAIN, RELEASE_DOMAIN].map(|name| (name, Permissions::privileged()));
        Self {
            tree: Tree::new(),
            special: special.into(),
            introduced: BTreeSet::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            quota,
            events: Vec::new(),
        }
    }

    /// Opens a connection for a domain.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when the domain has as many as it may have.
    pub(crate) fn connect(&mut self, domid: DomId) -> Result<ClientId, Errno> {
        let open = self.clients_of(domid).count();
        within(domid, open + 1, self.quota.connections)?;
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, Client::new(domid));
        Ok(id)
    }

    /// Closes a connection: its watches and transactions go.
    pub(crate) fn disconnect(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// How many connections are open.
    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether the connection is open. The release of its domain closes it.
    pub(crate) fn is_connected(&self, id: ClientId) -> bool {
        self.clients.contains_key(&id)
    }

    /// What to tell to whom, since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<(ClientId, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Makes a domain known. Only the first time counts.
    pub(crate) fn introduce(&mut self, domid: DomId) {
        if self.introduced.insert(domid) {
            self.fire_special(INTRODUCE_DOMAIN);
        }
    }

    /// Forgets a domain and closes its connections; domain 0's stay open. The domain's nodes stay too: they are the
    /// toolstack's to remove.
    pub(crate) fn release(&mut self, domid: DomId) {
        self.clients.retain(|_, client| client.domid != domid || domid == DomId::DOM0);
        if self.introduced.remove(&domid) {
            self.fire_special(RELEASE_DOMAIN);
        }
    }

    /// Whether the domain was introduced and not released since. Domain 0 always is.
    pub(crate) fn is_introduced(&self, domid: DomId) -> bool {
        domid == DomId::DOM0 || domid == DomId::SELF || self.introduced.contains(&domid)
    }

    /// Which domain a connection is of.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is closed.
    pub(crate) fn domid(&self, id: ClientId) -> Result<DomId, Errno> {
        self.clients.get(&id).map(|client| client.domid).ok_or(Errno::EINVAL)
    }

    /// Whether the client may name this transaction: one that is open, or 0 for none.
    ///
    /// # Errors
    ///
    /// `ENOENT` when it may not.
    pub(crate) fn check_transaction(
        &mut self,
        id: ClientId,
        transaction: u32,
    ) -> Result<(), Errno> {
        self.clients.get_mut(&id).ok_or(Errno::EINVAL)?.transaction(transaction).map(drop)
    }

    /// Answers from a node that the client may read, in the transaction if there is one.
    ///
    /// # Errors
    ///
    /// `EACCES`, `ENOENT` (also for the transaction), and the answer's own.
    pub(crate) fn look_at(
        &mut self,
        id: ClientId,
        transaction: u32,
        path: &NodePath,
        answer: impl FnOnce(&Node) -> Result<Vec<u8>, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        let caller = Caller { domid: client.domid, quota: &self.quota };
        let tree = match client.transaction(transaction)? {
            Some(transaction) => {
                transaction.access(caller, path)?;
                transaction.tree()
            }
            None => &self.tree,
        };
        answer(lookup(tree, caller, path, Need::Read)?)
    }

    /// Does an operation on a node: in the transaction if there is one, else on the live tree, and tells the watches.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such transaction, and the operation's own.
    pub(crate) fn change(
        &mut self,
        id: ClientId,
        transaction: u32,
        path: &NodePath,
        operation: impl FnOnce(&mut Tree, Caller<'_>, &NodePath) -> Result<Vec<Change>, Errno>,
    ) -> Result<(), Errno> {
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        let caller = Caller { domid: client.domid, quota: &self.quota };
        match client.transaction(transaction)? {
            Some(transaction) => transaction.change(caller, path, operation),
            None => {
                let before = self.tree.clone();
                let changes = operation(&mut self.tree, caller, path)?;
                self.fire(&before, &changes);
                Ok(())
            }
        }
    }

    /// Permissions of a special path.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such path.
    pub(crate) fn special(&mut self, name: &str) -> Result<&mut Permissions, Errno> {
        self.special.get_mut(name).ok_or(Errno::ENOENT)
    }

    /// Sets a watch. Its first event follows at once.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an illegal path or token, `EEXIST` for the same watch again, `ENOSPC` for too many.
    pub(crate) fn watch(&mut self, id: ClientId, path: &[u8], token: &[u8]) -> Result<(), Errno> {
        let domid = self.domid(id)?;
        let watch = Watch::new(path, token, domid)?;
        let set: usize = self.clients_of(domid).map(|client| client.watches.len()).sum();
        let watches = &mut self.clients.get_mut(&id).ok_or(Errno::EINVAL)?.watches;
        if watches.iter().any(|set| set.is_same(&watch)) {
            return Err(Errno::EEXIST);
        }
        within(domid, set + 1, self.quota.watches)?;
        self.events.push((id, watch.first_event()));
        watches.push(watch);
        Ok(())
    }

    /// Removes a watch.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an illegal path, `ENOENT` when there is no such watch.
    pub(crate) fn unwatch(&mut self, id: ClientId, path: &[u8], token: &[u8]) -> Result<(), Errno> {
        let watch = Watch::new(path, token, self.domid(id)?)?;
        let watches = &mut self.clients.get_mut(&id).ok_or(Errno::EINVAL)?.watches;
        let at = watches.iter().position(|set| set.is_same(&watch)).ok_or(Errno::ENOENT)?;
        watches.remove(at);
        Ok(())
    }

    /// Removes all watches and transactions of a client.
    pub(crate) fn reset(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.reset();
        }
    }

    /// Opens a transaction and returns its id.
    ///
    /// # Errors
    ///
    /// `EBUSY` inside of another, `ENOENT` inside of one that there is not, `ENOSPC` for too many.
    pub(crate) fn start(&mut self, id: ClientId, inside: u32) -> Result<u32, Errno> {
        let domid = self.domid(id)?;
        let open: usize = self.clients_of(domid).map(Client::transactions).sum();
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        if client.transaction(inside)?.is_some() {
            return Err(Errno::EBUSY);
        }
        within(domid, open + 1, self.quota.transactions)?;
        Ok(client.start(&self.tree))
    }

    /// Ends a transaction. Whatever comes of it, its id is free again.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is none, `EAGAIN` when a commit met other changes, `ENOSPC` when it would exceed a quota.
    pub(crate) fn end(
        &mut self,
        id: ClientId,
        transaction: u32,
        commit: bool,
    ) -> Result<(), Errno> {
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        let caller = Caller { domid: client.domid, quota: &self.quota };
        let transaction = client.end(transaction)?;
        if commit {
            let before = self.tree.clone();
            let changes = transaction.commit(caller, &mut self.tree)?;
            self.fire(&before, &changes);
        }
        Ok(())
    }

    fn clients_of(&self, domid: DomId) -> impl Iterator<Item = &Client> {
        self.clients.values().filter(move |client| client.domid == domid)
    }

    /// Tells each watch that a change concerns, if its domain may know of the node: who could read it or its parent
    /// before, or can now.
    fn fire(&mut self, before: &Tree, changes: &[Change]) {
        for change in changes {
            // Made and removed in one transaction: nobody missed it.
            if before.get(&change.path).is_none() && self.tree.get(&change.path).is_none() {
                continue;
            }
            let parent = change.path.parent();
            let nodes = [Some(&change.path), parent.as_ref()].into_iter().flatten();
            let lists: Vec<_> = nodes
                .flat_map(|path| [before.get(path), self.tree.get(path)])
                .flatten()
                .map(Node::permissions)
                .collect();
            let path: Arc<str> = change.path.as_str().into();
            for (id, client) in &self.clients {
                if lists.iter().any(|list| list.allow(client.domid, Need::Read)) {
                    let events =
                        client.watches.iter().filter_map(|watch| watch.event(&path, change.scope));
                    self.events.extend(events.map(|event| (*id, event)));
                }
            }
        }
    }

    fn fire_special(&mut self, name: &str) {
        for (id, client) in &self.clients {
            if self.special.get(name).is_some_and(|list| list.allow(client.domid, Need::Read)) {
                let events = client.watches.iter().filter_map(|watch| watch.special_event(name));
                self.events.extend(events.map(|event| (*id, event)));
            }
        }
    }
}
