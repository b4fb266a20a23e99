// SPDX-License-Identifier: MIT OR Apache-2.0

//! Transactions: a domain works on a snapshot, and what it did becomes real at once or not at all.

use std::collections::BTreeSet;

use ring_proto::xen::Errno;

use crate::operation::{Caller, Change};
use crate::path::NodePath;
use crate::quota::within;
use crate::tree::Tree;

/// One open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The store as it was at the start.
    base: Tree,
    /// The same, with what was done since.
    tree: Tree,
    /// What the answers given so far depended upon. Each has to be as it was, for the commit to succeed.
    accessed: BTreeSet<NodePath>,
    changes: Vec<Change>,
}

impl Transaction {
    /// Starts from the store as it is.
    pub(crate) fn new(live: &Tree) -> Self {
        Self {
            base: live.clone(),
            tree: live.clone(),
            accessed: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// The store as this transaction sees it.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Notes that an answer depends on this node. Where it is missing, it depends on the closest one above as well:
    /// that decides on permissions, and becomes a parent when the node is made.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when the caller may not look at any more nodes in one transaction.
    pub(crate) fn access(&mut self, caller: Caller<'_>, path: &NodePath) -> Result<(), Errno> {
        let (closest, _) = self.tree.closest(path);
        self.accessed.insert(closest);
        self.accessed.insert(path.clone());
        within(caller.domid, self.accessed.len(), caller.quota.transaction_nodes)
    }

    /// Does an operation on the transaction's tree.
    ///
    /// # Errors
    ///
    /// Those of the operation, and those of [`access`](Self::access).
    pub(crate) fn change(
        &mut self,
        caller: Caller<'_>,
        path: &NodePath,
        operation: impl FnOnce(&mut Tree, Caller<'_>, &NodePath) -> Result<Vec<Change>, Errno>,
    ) -> Result<(), Errno> {
        self.access(caller, path)?;
        let changes = operation(&mut self.tree, caller, path)?;
        // A removal depends on all that it removes, and on the parent that loses a child.
        self.accessed.extend(changes.iter().map(|change| change.path.clone()));
        self.accessed.extend(changes.iter().filter_map(|change| change.path.parent()));
        self.changes.extend(changes);
        Ok(())
    }

    /// Makes it real, and returns the changes in the order in which they were made, for the watches.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when a node it depends on has changed since the start; `ENOSPC` when the caller would own too many
    /// nodes by now. The live tree is then as it was.
    pub(crate) fn commit(self, caller: Caller<'_>, live: &mut Tree) -> Result<Vec<Change>, Errno> {
        let generation = |tree: &Tree, path| tree.get(path).map(|node| node.generation());
        if self.accessed.iter().any(|path| generation(&self.base, path) != generation(live, path)) {
            return Err(Errno::EAGAIN);
        }
        let made =
            self.tree.owned_by(caller.domid).saturating_sub(self.base.owned_by(caller.domid));
        if made > 0 {
            within(caller.domid, live.owned_by(caller.domid) + made, caller.quota.nodes)?;
        }
        // In order of paths, so that a parent is there before its children.
        let changed: BTreeSet<_> = self.changes.iter().map(|change| &change.path).collect();
        for path in changed {
            match self.tree.get(path) {
                Some(node) => {
                    live.put(path, node.value().clone(), node.permissions().clone());
                }
                None => live.remove(path),
            }
        }
        Ok(self.changes)
    }
}
