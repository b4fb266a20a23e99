// SPDX-License-Identifier: GPL-2.0

//! Directories in xenstore, and transactions. Everything here may sleep.

use core::ops::Deref;
use core::ptr::NonNull;

use kernel::error::{from_err_ptr, to_result};
use kernel::str::CString;
use kernel::{bindings, fmt, prelude::*};
use ring_proto::xenbus::{ReadDirectory, WriteDirectory};

/// A directory in xenstore.
///
/// A reference to it reads and writes keys at once, each by itself; [`within`](Self::within) does so in a transaction.
pub struct Directory {
    path: CString,
}

impl Directory {
    /// The directory with this path.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn new(path: &CStr) -> Result<Self> {
        Ok(Self { path: CString::try_from(path)? })
    }

    /// Its path.
    pub fn path(&self) -> &CStr {
        &self.path
    }

    /// Whether there is such a key; the directory itself is the key of no name.
    pub fn exists(&self, key: &str) -> bool {
        let Ok(key) = name(key) else { return false };
        // SAFETY: Both strings end with a zero byte.
        unsafe {
            sys::xenbus_exists(NO_TRANSACTION.raw(), self.path.as_char_ptr(), key.as_char_ptr())
                != 0
        }
    }

    /// The value of a key; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read.
    pub fn value(&self, key: &str) -> Result<Option<Value>> {
        read(NO_TRANSACTION, &self.path, key)
    }

    /// The directory as a transaction sees it.
    pub fn within<'a>(&'a self, transaction: &'a Transaction) -> Within<'a> {
        Within { directory: self, transaction }
    }
}

impl ReadDirectory for &Directory {
    type Error = Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>> {
        Ok(self.value(key)?.map(|value| value.copy_to(into)))
    }
}

impl WriteDirectory for &Directory {
    type Error = Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result {
        write(NO_TRANSACTION, &self.path, key, value)
    }

    fn remove(&mut self, key: &str) -> Result {
        remove(NO_TRANSACTION, &self.path, key)
    }
}

/// A [`Directory`] in a [`Transaction`].
pub struct Within<'a> {
    directory: &'a Directory,
    transaction: &'a Transaction,
}

impl ReadDirectory for Within<'_> {
    type Error = Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>> {
        let value = read(self.transaction.0, &self.directory.path, key)?;
        Ok(value.map(|value| value.copy_to(into)))
    }
}

impl WriteDirectory for Within<'_> {
    type Error = Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result {
        write(self.transaction.0, &self.directory.path, key, value)
    }

    fn remove(&mut self, key: &str) -> Result {
        remove(self.transaction.0, &self.directory.path, key)
    }
}

/// A transaction that has begun and not ended: what it reads does not change, and what it writes comes to be at once.
pub struct Transaction(Id);

/// Number of a transaction in this domain.
#[derive(Clone, Copy)]
struct Id(u32);

/// Each read and write for itself.
const NO_TRANSACTION: Id = Id(0);

impl Id {
    fn raw(self) -> sys::xenbus_transaction {
        sys::xenbus_transaction { id: self.0 }
    }
}

/// Does `work` in a transaction, and does it again whenever someone else changed meanwhile what it had read.
///
/// # Errors
///
/// What `work` returns (nothing is written then), or why the transaction could not begin or end.
pub fn transaction<R, E: From<Error>>(
    mut work: impl FnMut(&Transaction) -> Result<R, E>,
) -> Result<R, E> {
    loop {
        let mut raw = NO_TRANSACTION.raw();
        // SAFETY: `raw` is written.
        to_result(unsafe { sys::xenbus_transaction_start(&raw mut raw) })?;
        let transaction = Transaction(Id(raw.id));
        let result = work(&transaction);
        // SAFETY: It has begun, and `transaction` does not outlive this round.
        let end = to_result(unsafe { sys::xenbus_transaction_end(raw, result.is_err()) });
        match (result, end) {
            (Ok(_), Err(error)) if error == EAGAIN => {}
            (Ok(_), Err(error)) => return Err(error.into()),
            (result, _) => return result,
        }
    }
}

/// The value of a key.
///
/// # Invariants
///
/// `bytes` is an allocation of `kmalloc` with at least `len` bytes, or dangling when `len` is 0 and there is none.
pub struct Value {
    bytes: NonNull<u8>,
    len: usize,
}

// SAFETY: It owns its bytes.
unsafe impl Send for Value {}

impl Value {
    fn copy_to(&self, into: &mut [u8]) -> usize {
        for (into, from) in into.iter_mut().zip(self.iter()) {
            *into = *from;
        }
        self.len
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariant; nobody else has the bytes.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, it was allocated with `kmalloc`.
        unsafe { bindings::kfree(self.bytes.as_ptr().cast()) };
    }
}

/// The name of a key as C wants it.
fn name(key: &str) -> Result<CString> {
    CString::try_from_fmt(fmt!("{key}"))
}

fn read(t: Id, path: &CStr, key: &str) -> Result<Option<Value>> {
    let key = name(key)?;
    let mut len = 0;
    // SAFETY: Both strings end with a zero byte, and `len` is written.
    let value = from_err_ptr(unsafe {
        sys::xenbus_read(t.raw(), path.as_char_ptr(), key.as_char_ptr(), &raw mut len)
    });
    match value {
        // INVARIANT: What was read is an allocation of `len` bytes and a zero.
        Ok(value) => {
            Ok(Some(Value { bytes: NonNull::new(value.cast()).ok_or(ENOMEM)?, len: len as usize }))
        }
        Err(error) if error == ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(t: Id, path: &CStr, key: &str, value: fmt::Arguments<'_>) -> Result {
    let key = name(key)?;
    let value = CString::try_from_fmt(value)?;
    // SAFETY: All strings end with a zero byte.
    to_result(unsafe {
        sys::xenbus_write(t.raw(), path.as_char_ptr(), key.as_char_ptr(), value.as_char_ptr())
    })
}

fn remove(t: Id, path: &CStr, key: &str) -> Result {
    let key = name(key)?;
    // SAFETY: Both strings end with a zero byte.
    match to_result(unsafe { sys::xenbus_rm(t.raw(), path.as_char_ptr(), key.as_char_ptr()) }) {
        Err(error) if error == ENOENT => Ok(()),
        result => result,
    }
}
