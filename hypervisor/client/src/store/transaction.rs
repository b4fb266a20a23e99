// SPDX-License-Identifier: MIT OR Apache-2.0

use ring_proto::xen::Errno;
use ring_proto::xenstore::{MessageType, PAYLOAD_MAX, Permission, Strings};

use super::Store;
use crate::Error;

/// The store as one transaction sees it: nobody else's changes, and its own at once. See [`Store::transaction`].
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    pub(super) store: &'a Store,
    /// 0 is no transaction at all.
    pub(super) id: u32,
}

impl Transaction<'_> {
    /// Like [`Store::read`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.call_on(MessageType::Read, path)
    }

    /// Like [`Store::read_str`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn read_str(&self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.read(path)?)
            .map_err(|_| refused(MessageType::Read, path, Errno::EILSEQ))
    }

    /// Like [`Store::try_read`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn try_read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.read(path) {
            Ok(value) => Ok(Some(value)),
            Err(Error::Store { errno: Errno::ENOENT, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Like [`Store::write`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(MessageType::Write, path, &[path.as_bytes(), &[0], value.as_ref()]).map(drop)
    }

    /// Like [`Store::mkdir`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn mkdir(&self, path: &str) -> Result<(), Error> {
        self.call_on(MessageType::Mkdir, path).map(drop)
    }

    /// Like [`Store::rm`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn rm(&self, path: &str) -> Result<(), Error> {
        self.call_on(MessageType::Rm, path).map(drop)
    }

    /// Like [`Store::directory`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn directory(&self, path: &str) -> Result<Vec<String>, Error> {
        let list = match self.call_on(MessageType::Directory, path) {
            Err(Error::Store { errno: Errno::E2BIG, .. }) => self.long_directory(path)?,
            list => list?,
        };
        Strings::new(&list).map(|name| self.text(name)).collect()
    }

    /// Like [`Store::get_perms`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn get_perms(&self, path: &str) -> Result<Vec<Permission>, Error> {
        let reply = self.call_on(MessageType::GetPerms, path)?;
        let parse =
            |text| Permission::parse(text).map_err(|error| self.store.nonsense(&error.to_string()));
        Strings::new(&reply).map(parse).collect()
    }

    /// Like [`Store::set_perms`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn set_perms(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        let list: String = permissions.iter().map(|permission| format!("{permission}\0")).collect();
        self.call(MessageType::SetPerms, path, &[path.as_bytes(), &[0], list.as_bytes()]).map(drop)
    }

    /// The list of children that is too long for one message, by parts. Begins anew when the node changes meanwhile.
    fn long_directory(&self, path: &str) -> Result<Vec<u8>, Error> {
        let mut list = Vec::new();
        let mut generation = Vec::new();
        loop {
            let offset = list.len().to_string();
            let parts = [path.as_bytes(), &[0], offset.as_bytes(), &[0]];
            let reply = self.call(MessageType::DirectoryPart, path, &parts)?;
            let mut names = Strings::new(&reply);
            let now =
                names.next().ok_or_else(|| self.store.nonsense("a part without a generation"))?;
            if now != generation {
                generation = now.to_owned();
                if !list.is_empty() {
                    list.clear();
                    continue;
                }
            }
            let before = list.len();
            for name in names {
                if name.is_empty() {
                    return Ok(list);
                }
                list.extend_from_slice(name);
                list.push(0);
            }
            if list.len() == before {
                return Err(self.store.nonsense("a part without a child"));
            }
        }
    }

    fn text(&self, bytes: &[u8]) -> Result<String, Error> {
        String::from_utf8(bytes.to_owned())
            .map_err(|_| self.store.nonsense("a name that is not text"))
    }

    /// A request whose payload is a path.
    fn call_on(&self, kind: MessageType, path: &str) -> Result<Vec<u8>, Error> {
        self.call(kind, path, &[path.as_bytes(), &[0]])
    }

    /// A request with this payload; `path` is for the error.
    pub(super) fn call(
        &self,
        kind: MessageType,
        path: &str,
        payload: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let payload = payload.concat();
        // A longer one would cost the connection.
        if payload.len() > PAYLOAD_MAX {
            return Err(refused(kind, path, Errno::E2BIG));
        }
        self.store.exchange(kind, self.id, &payload)?.map_err(|errno| refused(kind, path, errno))
    }
}

fn refused(kind: MessageType, path: &str, errno: Errno) -> Error {
    let space = if path.is_empty() { "" } else { " " };
    Error::Store { operation: format!("{}{space}{path}", kind.name()), errno }
}
