// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! A directory in memory, for tests.

use core::convert::Infallible;
use core::fmt;
use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::directory::{ReadDirectory, WriteDirectory};

/// A device's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fake(pub BTreeMap<String, Vec<u8>>);

impl Fake {
    pub fn of(entries: &[(&str, &str)]) -> Self {
        let mut fake = Self::default();
        fake.set(entries);
        fake
    }

    pub fn set(&mut self, entries: &[(&str, &str)]) {
        for (key, value) in entries {
            self.0.insert((*key).to_owned(), value.as_bytes().to_vec());
        }
    }

    pub fn with(&self, key: &str, value: &[u8]) -> Self {
        let mut other = self.clone();
        other.0.insert(key.to_owned(), value.to_vec());
        other
    }

    pub fn without(&self, key: &str) -> Self {
        let mut other = self.clone();
        assert!(other.0.remove(key).is_some(), "no {key}");
        other
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| core::str::from_utf8(value).unwrap())
    }
}

impl ReadDirectory for Fake {
    type Error = Infallible;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Infallible> {
        Ok(self.0.get(key).map(|value| {
            let len = value.len().min(into.len());
            into[..len].copy_from_slice(&value[..len]);
            value.len()
        }))
    }
}

impl WriteDirectory for Fake {
    type Error = Infallible;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Infallible> {
        self.0.insert(key.to_owned(), value.to_string().into_bytes());
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}
