// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! A directory in memory, for tests, and what has to happen when a key in it is wrong.

use core::convert::Infallible;
use core::fmt::{self, Debug};
use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::directory::{Error, KeyError, ReadDirectory, Reason, WriteDirectory};

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

/// The error that `result` has to be.
pub fn refused<T: Debug, E: Debug>(result: Result<T, Error<E>>) -> KeyError {
    match result {
        Err(Error::Key(error)) => error,
        other => panic!("{other:?} instead of a refused key"),
    }
}

/// Takes away the key and gives it each bad value: every time the error has to name it.
pub fn every_bad_value<T: Debug>(
    directory: &Fake,
    key: &str,
    missing_is_bad: bool,
    bad: &[&str],
    read: impl Fn(&mut Fake) -> Result<T, Error<Infallible>>,
) {
    read(&mut directory.clone()).expect("the directory is legal");
    let mut without = directory.clone();
    without.0.remove(key);
    if missing_is_bad {
        let error = refused(read(&mut without));
        assert_eq!((error.path.as_str(), error.reason), (key, Reason::Missing));
    } else {
        read(&mut without).expect("the key has a default");
    }
    let long = "1".repeat(2000);
    let never = ["", "-1", " 1", "1 ", "1\n", "0x1", "one", "1.0", "\u{1f4be}", long.as_str()];
    for bad in bad.iter().chain(&never) {
        let error = refused(read(&mut directory.with(key, bad.as_bytes())));
        assert_eq!(error.path.as_str(), key, "{bad:?}");
        assert!(format!("{error}").contains(key), "{error}");
    }
    refused(read(&mut directory.with(key, b"\xff\x00\xfe")));
}
