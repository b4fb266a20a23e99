// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tree of nodes, and what each domain owns of it.
//!
//! A clone is a snapshot: nodes are shared until one of the two changes them, so a transaction starts at the price of
//! a pointer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring_proto::xen::DomId;

use crate::path::NodePath;
use crate::permissions::Permissions;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    value: Arc<[u8]>,
    permissions: Permissions,
    children: BTreeMap<Arc<str>, Arc<Node>>,
    /// Length of the children's names with a NUL each, as DIRECTORY lists them.
    children_len: usize,
    generation: u64,
}

impl Node {
    fn new(value: Arc<[u8]>, permissions: Permissions, generation: u64) -> Self {
        Self { value, permissions, children: BTreeMap::new(), children_len: 0, generation }
    }

    pub(crate) fn value(&self) -> &Arc<[u8]> {
        &self.value
    }

    pub(crate) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Names of the children, in order.
    pub(crate) fn children(&self) -> impl Iterator<Item = &str> {
        self.children.keys().map(|name| &**name)
    }

    pub(crate) fn children_len(&self) -> usize {
        self.children_len
    }

    /// Differs from every other state of every node, and changes with value, permissions and the list of children.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

impl Drop for Node {
    /// Takes the subtree apart level by level: a path has room for 1500 levels, too many for recursion.
    fn drop(&mut self) {
        let mut levels = vec![std::mem::take(&mut self.children)];
        while let Some(children) = levels.pop() {
            for child in children.into_values() {
                if let Some(mut child) = Arc::into_inner(child) {
                    levels.push(std::mem::take(&mut child.children));
                }
            }
        }
    }
}

/// All nodes.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<Node>,
    owned: BTreeMap<DomId, usize>,
    generation: u64,
}

impl Tree {
    /// The root alone, domain 0's.
    pub(crate) fn new() -> Self {
        Self {
            root: Arc::new(Node::new(Arc::new([]), Permissions::privileged(), 0)),
            owned: BTreeMap::from([(DomId::DOM0, 1)]),
            generation: 0,
        }
    }

    pub(crate) fn get(&self, path: &NodePath) -> Option<&Node> {
        path.components()
            .try_fold(&*self.root, |node, name| node.children.get(name).map(|child| &**child))
    }

    /// The node of that name, or if there is none, the closest above it; and its name.
    pub(crate) fn closest(&self, path: &NodePath) -> (NodePath, &Node) {
        let mut found = (NodePath::root(), &*self.root);
        for name in path.components() {
            let Some(child) = found.1.children.get(name) else { break };
            found = (found.0.child(name), child);
        }
        found
    }

    /// How many nodes a domain owns.
    pub(crate) fn owned_by(&self, domid: DomId) -> usize {
        self.owned.get(&domid).copied().unwrap_or_default()
    }

    /// The node and all below it: a parent comes before its children.
    pub(crate) fn subtree(&self, path: &NodePath) -> Vec<(NodePath, &Node)> {
        let mut found: Vec<_> =
            self.get(path).map(|node| (path.clone(), node)).into_iter().collect();
        let mut next = 0;
        while let Some((path, node)) = found.get(next) {
            let children: Vec<_> =
                node.children.iter().map(|(name, child)| (path.child(name), &**child)).collect();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// Gives a node that exists, or whose parent exists, this value and these permissions. Without a parent it does
    /// nothing and returns `false`.
    pub(crate) fn put(
        &mut self,
        path: &NodePath,
        value: Arc<[u8]>,
        permissions: Permissions,
    ) -> bool {
        let owner = permissions.owner();
        let generation = self.next_generation();
        if let Some(node) = self.get_mut(path) {
            let previous = node.permissions.owner();
            node.value = value;
            node.permissions = permissions;
            node.generation = generation;
            self.disown(previous);
        } else {
            let Some(parent) = path.parent() else { return false };
            let Some(parent) = self.get_mut(&parent) else { return false };
            let node = Node::new(value, permissions, generation);
            parent.children.insert(path.name().into(), Arc::new(node));
            parent.children_len += path.name().len() + 1;
            parent.generation = generation;
        }
        *self.owned.entry(owner).or_default() += 1;
        true
    }

    /// Removes a node and all below it, if it is there. The root stays.
    pub(crate) fn remove(&mut self, path: &NodePath) {
        let Some(parent) = path.parent() else { return };
        let owners: Vec<_> =
            self.subtree(path).iter().map(|(_, node)| node.permissions.owner()).collect();
        if owners.is_empty() {
            return;
        }
        let generation = self.next_generation();
        if let Some(parent) = self.get_mut(&parent) {
            parent.children.remove(path.name());
            parent.children_len -= path.name().len() + 1;
            parent.generation = generation;
        }
        owners.into_iter().for_each(|owner| self.disown(owner));
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The node, no longer shared with any snapshot.
    fn get_mut(&mut self, path: &NodePath) -> Option<&mut Node> {
        // Looked up first: a path that leads nowhere must not cost copies.
        self.get(path)?;
        path.components().try_fold(Arc::make_mut(&mut self.root), |node, name| {
            node.children.get_mut(name).map(Arc::make_mut)
        })
    }

    fn disown(&mut self, domid: DomId) {
        if let Some(count) = self.owned.get_mut(&domid) {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&domid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::resolve_node;

    fn path(text: &str) -> NodePath {
        resolve_node(text.as_bytes(), DomId::DOM0).unwrap()
    }

    fn put(tree: &mut Tree, at: &str, value: &str) {
        assert!(tree.put(&path(at), value.as_bytes().into(), Permissions::privileged()));
    }

    #[test]
    fn a_snapshot_does_not_see_later_changes() {
        let mut tree = Tree::new();
        put(&mut tree, "/a", "1");
        put(&mut tree, "/a/b", "2");
        let snapshot = tree.clone();
        put(&mut tree, "/a/b", "3");
        tree.remove(&path("/a/b"));
        assert_eq!(&**snapshot.get(&path("/a/b")).unwrap().value(), b"2");
        assert!(tree.get(&path("/a/b")).is_none());
        assert_eq!((tree.owned_by(DomId::DOM0), snapshot.owned_by(DomId::DOM0)), (2, 3));
    }

    #[test]
    fn generations_change_with_value_and_children() {
        let mut tree = Tree::new();
        put(&mut tree, "/a", "1");
        let generation = |tree: &Tree| tree.get(&path("/a")).unwrap().generation();
        let mut seen = vec![generation(&tree)];
        put(&mut tree, "/a", "1");
        seen.push(generation(&tree));
        put(&mut tree, "/a/b", "");
        seen.push(generation(&tree));
        put(&mut tree, "/a/b", "new");
        assert_eq!(generation(&tree), seen[2], "a child's value is the child's affair");
        tree.remove(&path("/a/b"));
        seen.push(generation(&tree));
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn removal_takes_the_subtree_and_its_owners_off() {
        let mut tree = Tree::new();
        for at in ["/a", "/a/b", "/a/b/c", "/a/d"] {
            put(&mut tree, at, "");
        }
        assert_eq!(tree.get(&path("/a")).unwrap().children_len(), 4);
        let names: Vec<_> = tree.subtree(&path("/a")).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["/a", "/a/b", "/a/d", "/a/b/c"].map(path));
        tree.remove(&path("/a/b"));
        assert_eq!(tree.owned_by(DomId::DOM0), 3);
        assert_eq!(tree.get(&path("/a")).unwrap().children_len(), 2);
        tree.remove(&path("/"));
        assert_eq!(tree.owned_by(DomId::DOM0), 3);
    }

    #[test]
    fn a_very_deep_tree_can_be_dropped() {
        let mut tree = Tree::new();
        let mut at = NodePath::root();
        for _ in 0..1500 {
            at = at.child("a");
            tree.put(&at, Arc::new([]), Permissions::privileged());
        }
        let on_a_small_stack = std::thread::Builder::new().stack_size(64 * 1024);
        on_a_small_stack.spawn(move || drop(tree)).unwrap().join().unwrap();
    }
}
