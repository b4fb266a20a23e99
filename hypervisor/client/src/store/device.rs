// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;

use ring_proto::xen::Errno;
use ring_proto::xenbus::{ReadDirectory, WriteDirectory};

use super::{Store, Transaction};
use crate::Error;

/// A device's directory in the store: what the handshakes of [`ring_proto::xenbus`] read and write.
///
/// ```no_run
/// # use hypervisor_client::store::Store;
/// # use ring_proto::xenbus::{Error, State};
/// # fn main() -> Result<(), Error<hypervisor_client::Error>> {
/// let store = Store::connect("/run/causeway/xenstored.sock").map_err(Error::Store)?;
/// let state = State::read(&mut store.device("device/vbd/51712"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    view: Transaction<'a>,
    path: &'a str,
}

impl Store {
    /// The directory of the device at `path`.
    pub fn device<'a>(&'a self, path: &'a str) -> Device<'a> {
        Device { view: self.direct(), path }
    }
}

impl Transaction<'_> {
    /// The directory of the device at `path`, as the transaction sees it.
    pub fn device<'a>(&'a self, path: &'a str) -> Device<'a> {
        Device { view: *self, path }
    }
}

impl Device<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    /// The value of a key as text, if there is one. What is not UTF-8 in it is replaced.
    ///
    /// # Errors
    ///
    /// Like [`Store::try_read`].
    pub fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let value = self.view.try_read(&self.key(key))?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }
}

impl ReadDirectory for Device<'_> {
    type Error = Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Error> {
        let value = self.view.try_read(&self.key(key))?;
        Ok(value.map(|value| {
            into.iter_mut().zip(&value).for_each(|(to, from)| *to = *from);
            value.len()
        }))
    }
}

impl WriteDirectory for Device<'_> {
    type Error = Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Error> {
        self.view.write(&self.key(key), value.to_string())
    }

    fn remove(&mut self, key: &str) -> Result<(), Error> {
        match self.view.rm(&self.key(key)) {
            // There is not even a directory.
            Err(Error::Store { errno: Errno::ENOENT, .. }) => Ok(()),
            removed => removed,
        }
    }
}
