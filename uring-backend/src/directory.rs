// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;

use hypervisor_client::Error;
use hypervisor_client::store::Store;
use ring_proto::xenbus::{ReadDirectory, WriteDirectory};

/// A device's directory in xenstore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    store: &'a Store,
    path: &'a str,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(store: &'a Store, path: &'a str) -> Self {
        Self { store, path }
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    /// The value of a key as text, if there is one.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let value = self.store.try_read(&self.key(key))?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }
}

impl ReadDirectory for Directory<'_> {
    type Error = Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Error> {
        let Some(value) = self.store.try_read(&self.key(key))? else { return Ok(None) };
        for (to, from) in into.iter_mut().zip(&value) {
            *to = *from;
        }
        Ok(Some(value.len()))
    }
}

impl WriteDirectory for Directory<'_> {
    type Error = Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Error> {
        self.store.write(&self.key(key), value.to_string())
    }

    fn remove(&mut self, key: &str) -> Result<(), Error> {
        match self.store.try_read(&self.key(key))? {
            Some(_) => self.store.rm(&self.key(key)),
            None => Ok(()),
        }
    }
}
