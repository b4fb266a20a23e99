// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of nodes, resolved against the home of the domain that says them.

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{Home, Path};

/// Absolute and legal name of a node, whether there is such a node or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodePath(String);

impl NodePath {
    /// Whose children are `/local` and `/tool`.
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Names of the nodes on the way from the root, which itself has none.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// The last component. The root's is empty.
    pub(crate) fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The node that this one is a child of, unless it is the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        match self.0.rfind('/')? {
            _ if self.0 == "/" => None,
            0 => Some(Self::root()),
            slash => Some(Self(self.0.get(..slash)?.to_owned())),
        }
    }

    /// The child of that name.
    pub(crate) fn child(&self, name: &str) -> Self {
        let parent = if self.0 == "/" { "" } else { &self.0 };
        Self(format!("{parent}/{name}"))
    }
}

/// What a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A node of the tree.
    Node(NodePath),
    /// `@introduceDomain` and the like.
    Special(String),
}

/// Checks a path and makes it absolute, from the home of `domid`.
///
/// # Errors
///
/// `EINVAL` when it is no legal path.
pub(crate) fn resolve(path: &[u8], domid: DomId) -> Result<Target, Errno> {
    Ok(match Path::parse(path).map_err(|_| Errno::EINVAL)? {
        Path::Absolute(path) => Target::Node(NodePath(path.to_owned())),
        Path::Relative(path) => Target::Node(NodePath(format!("{}/{path}", Home(domid)))),
        Path::Special(path) => Target::Special(path.to_owned()),
    })
}

/// Like [`resolve`], where only a node will do.
///
/// # Errors
///
/// `EINVAL` also for a special path.
pub(crate) fn resolve_node(path: &[u8], domid: DomId) -> Result<NodePath, Errno> {
    match resolve(path, domid)? {
        Target::Node(path) => Ok(path),
        Target::Special(_) => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str) -> NodePath {
        resolve_node(path.as_bytes(), DomId(3)).unwrap()
    }

    #[test]
    fn relative_paths_begin_at_home() {
        assert_eq!(node("device/vbd").as_str(), "/local/domain/3/device/vbd");
        assert_eq!(node("/device").as_str(), "/device");
        assert_eq!(resolve_node(b"@releaseDomain", DomId(0)), Err(Errno::EINVAL));
        assert_eq!(resolve(b"a//b", DomId(0)), Err(Errno::EINVAL));
    }

    #[test]
    fn family() {
        assert_eq!(node("/a/b").parent(), Some(node("/a")));
        assert_eq!(node("/a").parent(), Some(NodePath::root()));
        assert_eq!(NodePath::root().parent(), None);
        assert_eq!(NodePath::root().child("a"), node("/a"));
        assert_eq!(node("/a").child("b"), node("/a/b"));
        assert_eq!(node("/a/b").name(), "b");
        assert_eq!(node("/a/b").components().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(NodePath::root().components().count(), 0);
    }
}
