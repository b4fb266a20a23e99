// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a domain can do with the tree, under permissions and quota. The tree is the live one or a transaction's.
//!
//! An operation checks everything before it changes anything, so one that fails leaves no trace.

use std::sync::Arc;

use ring_proto::xen::{DomId, Errno};

use crate::path::NodePath;
use crate::permissions::{Need, Permissions};
use crate::quota::{Quota, within};
use crate::tree::{Node, Tree};

/// Whom a change is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Watches on the node and on all above it.
    Above,
    /// Watches on the node itself: it went with a subtree, and those above hear of the subtree.
    Exact,
    /// Nobody: it was made on the way to another node, which is told.
    Silent,
}

/// A node that an operation made, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) path: NodePath,
    pub(crate) scope: Scope,
}

/// The domain that asks, and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) domid: DomId,
    pub(crate) quota: &'a Quota,
}

/// The node, if the caller has what it needs there.
///
/// # Errors
///
/// `EACCES`, or `ENOENT` when there is no such node and the closest one above would let the caller know.
pub(crate) fn lookup<'t>(
    tree: &'t Tree,
    caller: Caller<'_>,
    path: &NodePath,
    need: Need,
) -> Result<&'t Node, Errno> {
    if let Some(node) = tree.get(path) {
        return if node.permissions().allow(caller.domid, need) {
            Ok(node)
        } else {
            Err(Errno::EACCES)
        };
    }
    let (_, above) = tree.closest(path);
    // An owner of the node above may write there, and nobody can own what does not exist.
    let need = if need == Need::Own { Need::Write } else { need };
    Err(if above.permissions().allow(caller.domid, need) { Errno::ENOENT } else { Errno::EACCES })
}

/// Gives a node a value; makes it, and any missing above it, when it is not there.
///
/// # Errors
///
/// `EACCES`, `ENOSPC` when it does not fit into the caller's quota.
pub(crate) fn write(
    tree: &mut Tree,
    caller: Caller<'_>,
    path: &NodePath,
    value: &[u8],
) -> Result<Vec<Change>, Errno> {
    match lookup(tree, caller, path, Need::Write) {
        Ok(node) => {
            let size = value.len() + node.children_len();
            within(caller.domid, size, caller.quota.node_size)?;
            let permissions = node.permissions().clone();
            tree.put(path, value.into(), permissions);
            Ok(vec![Change { path: path.clone(), scope: Scope::Above }])
        }
        Err(Errno::ENOENT) => create(tree, caller, path, value),
        Err(errno) => Err(errno),
    }
}

/// Makes a node, and any missing above it, when it is not there.
///
/// # Errors
///
/// Like [`write()`].
pub(crate) fn mkdir(
    tree: &mut Tree,
    caller: Caller<'_>,
    path: &NodePath,
) -> Result<Vec<Change>, Errno> {
    match lookup(tree, caller, path, Need::Write) {
        Ok(_) => Ok(Vec::new()),
        Err(Errno::ENOENT) => create(tree, caller, path, &[]),
        Err(errno) => Err(errno),
    }
}

/// Removes a node and all below it, whosever those are.
///
/// # Errors
///
/// `EACCES`; `ENOENT` when not even its parent is there; `EINVAL` for the root.
pub(crate) fn rm(
    tree: &mut Tree,
    caller: Caller<'_>,
    path: &NodePath,
) -> Result<Vec<Change>, Errno> {
    match lookup(tree, caller, path, Need::Write) {
        Ok(_) => {}
        Err(Errno::ENOENT) => {
            let parent = path.parent().ok_or(Errno::EINVAL)?;
            return if tree.get(&parent).is_some() { Ok(Vec::new()) } else { Err(Errno::ENOENT) };
        }
        Err(errno) => return Err(errno),
    }
    if path.parent().is_none() {
        return Err(Errno::EINVAL);
    }
    let scope = |gone: &NodePath| if gone == path { Scope::Above } else { Scope::Exact };
    let removed = tree.subtree(path).into_iter().rev().map(|(gone, _)| gone);
    // Told from the leaves up, as Xen's store does.
    let changes = removed.map(|gone| Change { scope: scope(&gone), path: gone }).collect();
    tree.remove(path);
    Ok(changes)
}

/// Replaces a node's permissions.
///
/// # Errors
///
/// `EACCES` for who does not own it, `EPERM` when an unprivileged owner gives it away, `ENOENT`, `ENOSPC` for too
/// many entries.
pub(crate) fn set_permissions(
    tree: &mut Tree,
    caller: Caller<'_>,
    path: &NodePath,
    permissions: Permissions,
) -> Result<Vec<Change>, Errno> {
    within(caller.domid, permissions.len(), caller.quota.permissions)?;
    let node = lookup(tree, caller, path, Need::Own)?;
    if caller.domid != DomId::DOM0 && permissions.owner() != node.permissions().owner() {
        return Err(Errno::EPERM);
    }
    let value = node.value().clone();
    tree.put(path, value, permissions);
    Ok(vec![Change { path: path.clone(), scope: Scope::Above }])
}

/// Makes a node that is not there, below the closest one that is.
fn create(
    tree: &mut Tree,
    caller: Caller<'_>,
    path: &NodePath,
    value: &[u8],
) -> Result<Vec<Change>, Errno> {
    let (above, node) = tree.closest(path);
    let permissions = node.permissions().inherited_by(caller.domid);
    let mut missing = vec![path.clone()];
    while let Some(parent) =
        missing.last().and_then(NodePath::parent).filter(|parent| *parent != above)
    {
        missing.push(parent);
    }
    missing.reverse();

    let mut size = node.value().len() + node.children_len();
    for path in &missing {
        within(caller.domid, size + path.name().len() + 1, caller.quota.node_size)?;
        size = 0;
    }
    within(caller.domid, value.len(), caller.quota.node_size)?;
    within(caller.domid, tree.owned_by(caller.domid) + missing.len(), caller.quota.nodes)?;

    let mut changes = Vec::with_capacity(missing.len());
    for made in &missing {
        let last = made == path;
        let value: Arc<[u8]> = if last { value.into() } else { Arc::new([]) };
        tree.put(made, value, permissions.clone());
        let scope = if last { Scope::Above } else { Scope::Silent };
        changes.push(Change { path: made.clone(), scope });
    }
    Ok(changes)
}
