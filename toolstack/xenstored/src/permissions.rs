// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may do what with a node.

use std::sync::Arc;

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{Permission, Rights, Strings};

/// What a request needs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
    /// To be its owner, for a change of its permissions.
    Own,
}

/// A node's list: the owner with everybody's rights, then the rights of single domains. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Permissions {
    owner: Permission,
    others: Arc<[Permission]>,
}

impl Permissions {
    /// Domain 0's, and nobody else's.
    pub(crate) fn privileged() -> Self {
        Self { owner: Permission::new(DomId::DOM0, Rights::None), others: Arc::new([]) }
    }

    /// Reads the list of a SET_PERMS.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is empty or an entry cannot be read.
    pub(crate) fn parse(strings: Strings<'_>) -> Result<Self, Errno> {
        let mut entries = strings.map(|text| Permission::parse(text).map_err(|_| Errno::EINVAL));
        let owner = entries.next().ok_or(Errno::EINVAL)??;
        Ok(Self { owner, others: entries.collect::<Result<_, _>>()? })
    }

    /// The list as GET_PERMS answers it.
    pub(crate) fn to_payload(&self) -> Vec<u8> {
        let mut payload = format!("{}\0", self.owner);
        for entry in &*self.others {
            payload.push_str(&format!("{entry}\0"));
        }
        payload.into_bytes()
    }

    /// How many entries, the owner's included.
    pub(crate) fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Who has all rights, and whose quota the node counts against.
    pub(crate) fn owner(&self) -> DomId {
        self.owner.domid
    }

    /// The list of a new child: the same, but what an unprivileged domain makes is its own.
    pub(crate) fn inherited_by(&self, creator: DomId) -> Self {
        let mut child = self.clone();
        if creator != DomId::DOM0 {
            child.owner.domid = creator;
        }
        child
    }

    /// Whether `domid` may do what it needs. Domain 0 and the owner may do everything; the first entry that names
    /// any other domain decides, and if none does, everybody's rights.
    pub(crate) fn allow(&self, domid: DomId, need: Need) -> bool {
        if domid == DomId::DOM0 || domid == self.owner.domid {
            return true;
        }
        let named = self.others.iter().find(|entry| entry.domid == domid);
        let rights = named.unwrap_or(&self.owner).rights;
        match need {
            Need::Read => rights.read(),
            Need::Write => rights.write(),
            Need::Own => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(payload: &[u8]) -> Permissions {
        Permissions::parse(Strings::new(payload)).unwrap()
    }

    #[test]
    fn the_first_entry_is_the_owner_and_the_default() {
        let list = list(b"r1\0n2\0b3\0w4\0");
        let may = |domid, need| list.allow(DomId(domid), need);
        for domid in [0, 1] {
            assert!(may(domid, Need::Read) && may(domid, Need::Write) && may(domid, Need::Own));
        }
        assert!(!may(2, Need::Read) && !may(2, Need::Write));
        assert!(may(3, Need::Read) && may(3, Need::Write) && !may(3, Need::Own));
        assert!(!may(4, Need::Read) && may(4, Need::Write));
        assert!(may(5, Need::Read) && !may(5, Need::Write));
    }

    #[test]
    fn a_child_belongs_to_who_made_it() {
        let parent = list(b"n1\0r2\0");
        assert_eq!(parent.inherited_by(DomId(2)), list(b"n2\0r2\0"));
        assert_eq!(parent.inherited_by(DomId::DOM0), parent);
    }

    #[test]
    fn the_list_survives_the_wire() {
        assert_eq!(list(b"b1\0r2\0").to_payload(), b"b1\0r2\0");
        assert_eq!(Permissions::parse(Strings::new(b"")), Err(Errno::EINVAL));
        assert_eq!(Permissions::parse(Strings::new(b"b1\0x\0")), Err(Errno::EINVAL));
    }
}
