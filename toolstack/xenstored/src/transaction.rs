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
    /// In the order in which they were first made. However often a client repeats itself, what is kept is bounded by
    /// the nodes it may access.
    changes: Vec<Change>,
    /// The same, to find them.
    changed: BTreeSet<Change>,
}

impl Transaction {
    /// Starts from the store as it is.
    pub(crate) fn new(live: &Tree) -> Self {
        Self {
            base: live.clone(),
            tree: live.clone(),
            accessed: BTreeSet::new(),
            changes: Vec::new(),
            changed: BTreeSet::new(),
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
        for path in [&closest, path] {
            if !self.accessed.contains(path) {
                within(caller.domid, self.accessed.len() + 1, caller.quota.transaction_nodes)?;
                self.accessed.insert(path.clone());
            }
        }
        Ok(())
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
        for change in changes {
            // The commit replaces it as a whole.
            self.accessed.insert(change.path.clone());
            if self.changed.insert(change.clone()) {
                self.changes.push(change);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{mkdir, rm, write};
    use crate::path::resolve_node;
    use crate::quota::Quota;
    use ring_proto::xen::DomId;

    /// Domain 0's operations, on a tree or in a transaction.
    struct Fixture {
        quota: Quota,
        live: Tree,
    }

    impl Fixture {
        fn new(paths: &[&str]) -> Self {
            let mut fixture = Self { quota: Quota::default(), live: Tree::new() };
            paths.iter().for_each(|path| fixture.write(path));
            fixture
        }

        fn caller(&self) -> Caller<'_> {
            Caller { domid: DomId::DOM0, quota: &self.quota }
        }

        fn write(&mut self, path: &str) {
            let caller = Caller { domid: DomId::DOM0, quota: &self.quota };
            write(&mut self.live, caller, &node(path), b"live").unwrap();
        }

        fn commit(&mut self, transaction: Transaction) -> Result<Vec<Change>, Errno> {
            transaction.commit(Caller { domid: DomId::DOM0, quota: &self.quota }, &mut self.live)
        }

        fn has(&self, path: &str) -> bool {
            self.live.get(&node(path)).is_some()
        }
    }

    fn node(path: &str) -> NodePath {
        resolve_node(path.as_bytes(), DomId::DOM0).unwrap()
    }

    #[test]
    fn unrelated_changes_do_not_conflict() {
        let mut store = Fixture::new(&["/a/b", "/c/d"]);
        let mut transaction = Transaction::new(&store.live);
        transaction.change(store.caller(), &node("/a/b"), rm).unwrap();
        transaction.change(store.caller(), &node("/a/e"), mkdir).unwrap();
        store.write("/c/d");
        store.write("/c/e/f");
        store.commit(transaction).unwrap();
        assert!(store.has("/a/e") && store.has("/c/e/f") && !store.has("/a/b"));
    }

    #[test]
    fn a_node_removed_and_made_again_is_a_new_one() {
        for meanwhile in [None, Some("/a/b/other")] {
            let mut store = Fixture::new(&["/a/b/c"]);
            let mut transaction = Transaction::new(&store.live);
            transaction.change(store.caller(), &node("/a"), rm).unwrap();
            transaction.change(store.caller(), &node("/a/b/d"), mkdir).unwrap();
            match meanwhile {
                None => {
                    store.commit(transaction).unwrap();
                    assert!(store.has("/a/b/d") && !store.has("/a/b/c"));
                }
                // It would survive below the new `/a/b`, although the old one went with all below it.
                Some(path) => {
                    store.write(path);
                    assert_eq!(store.commit(transaction).unwrap_err(), Errno::EAGAIN);
                    assert!(store.has("/a/b/c") && !store.has("/a/b/d"));
                }
            }
        }
    }
}
