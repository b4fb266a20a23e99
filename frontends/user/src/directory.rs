// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device's directory in xenstore, as the handshake wants to read and write it.

use std::fmt;

use hypervisor_client::Error;
use hypervisor_client::store::{Store, Transaction};
use ring_proto::xenbus::{ReadDirectory, WriteDirectory};

/// A directory to read.
pub(crate) struct Reading<'a>(pub &'a Store, pub &'a str);

/// A directory to write, all at once.
pub(crate) struct Writing<'a>(pub &'a Transaction<'a>, pub &'a str);

impl ReadDirectory for Reading<'_> {
    type Error = Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Error> {
        let value = self.0.try_read(&format!("{}/{key}", self.1))?;
        Ok(value.map(|value| {
            into.iter_mut().zip(&value).for_each(|(into, from)| *into = *from);
            value.len()
        }))
    }
}

impl WriteDirectory for Writing<'_> {
    type Error = Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Error> {
        self.0.write(&format!("{}/{key}", self.1), value.to_string())
    }

    fn remove(&mut self, key: &str) -> Result<(), Error> {
        self.0.rm(&format!("{}/{key}", self.1))
    }
}
