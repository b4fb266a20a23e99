// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! What this crate needs of xenstore, and the errors that come of reading it.

use core::fmt;

/// A device's directory that can be read: the peer's, or one's own.
///
/// Implemented over a store connection or transaction in user space, and over `xenbus_read` in the kernel.
pub trait ReadDirectory {
    /// Why xenstore could not be read.
    type Error;

    /// Copies the value of `key` (a name, or `queue-N/name`) into `into`, as much of it as fits, and returns its whole
    /// length in bytes; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read. An absent key is no error.
    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Self::Error>;
}

/// This end's own directory.
pub trait WriteDirectory {
    /// Why xenstore could not be written.
    type Error;

    /// Sets `key` (a name, or `queue-N/name`) to `value`.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Self::Error>;

    /// Removes `key`, and does nothing when there is none.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    fn remove(&mut self, key: &str) -> Result<(), Self::Error>;
}

impl<D: ReadDirectory + ?Sized> ReadDirectory for &mut D {
    type Error = D::Error;

    fn read(&mut self, key: &str, into: &mut [u8]) -> Result<Option<usize>, Self::Error> {
        (**self).read(key, into)
    }
}

impl<D: WriteDirectory + ?Sized> WriteDirectory for &mut D {
    type Error = D::Error;

    fn write(&mut self, key: &str, value: fmt::Arguments<'_>) -> Result<(), Self::Error> {
        (**self).write(key, value)
    }

    fn remove(&mut self, key: &str) -> Result<(), Self::Error> {
        (**self).remove(key)
    }
}

/// Text in a fixed buffer; what does not fit is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    fn push(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(usize::from(self.len)).zip(bytes) {
            *to = *from;
            self.len = self.len.saturating_add(1);
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Path of a key below a device's directory: `sectors`, `queue-3/ring-ref12`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPath(Text<39>);

impl KeyPath {
    /// The key `name` of the device.
    pub fn of(name: &str) -> Self {
        Self::format(format_args!("{name}"))
    }

    /// A path put together. The longest one, `feature-dynamic-multicast-control`, has 33 characters of 39.
    pub(super) fn format(text: fmt::Arguments<'_>) -> Self {
        let mut path = Text::EMPTY;
        // Writing into a `Text` cannot fail.
        let _ = fmt::Write::write_fmt(&mut path, text);
        Self(path)
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.0.as_bytes()).unwrap_or("")
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The beginning of a value that was refused, shown with everything unprintable escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value {
    start: Text<24>,
    len: u16,
}

impl Value {
    /// A value of which `bytes` were read and which is `len` bytes long.
    pub(super) fn of(bytes: &[u8], len: usize) -> Self {
        let mut start = Text::EMPTY;
        start.push(bytes);
        Self { start, len: u16::try_from(len).unwrap_or(u16::MAX) }
    }

    /// A value that was a number.
    pub(super) fn number(number: u64) -> Self {
        let mut start = Text::EMPTY;
        // Writing into a `Text` cannot fail; 20 digits fit.
        let _ = fmt::Write::write_fmt(&mut start, format_args!("{number}"));
        Self { start, len: u16::from(start.len) }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.as_bytes();
        write!(f, "\"{}\"", start.escape_ascii())?;
        if usize::from(self.len) > start.len() {
            write!(f, "... ({} bytes)", self.len)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is absent and has no default.
    Missing,
    /// It is no unsigned decimal number.
    NotANumber,
    /// It is a number outside these bounds, both of which are legal.
    OutOfRange {
        /// The smallest legal number.
        min: u64,
        /// The largest legal number.
        max: u64,
    },
    /// It has to be a power of two.
    NotAPowerOfTwo,
    /// It has to be a multiple of this number.
    NotAMultipleOf(u64),
    /// It is none of the words that are legal here.
    NotOneOf(&'static [&'static str]),
    /// It is not of this form.
    Malformed(&'static str),
    /// It is longer than this many bytes.
    TooLong(usize),
    /// Another key says the same, and each may be used once.
    SameAs(KeyPath),
    /// It has to be this number.
    HasToBe(u64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::NotANumber => f.write_str("is not an unsigned decimal number"),
            Self::OutOfRange { min, max } => write!(f, "is not from {min} to {max}"),
            Self::NotAPowerOfTwo => f.write_str("is not a power of two"),
            Self::NotAMultipleOf(unit) => write!(f, "is not a multiple of {unit}"),
            Self::NotOneOf(words) => {
                f.write_str("is none of")?;
                for (i, word) in words.iter().enumerate() {
                    write!(f, "{} {word}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Malformed(form) => write!(f, "is not of the form {form}"),
            Self::TooLong(max) => write!(f, "is longer than {max} bytes"),
            Self::SameAs(other) => write!(f, "is the same as {other}"),
            Self::HasToBe(number) => write!(f, "has to be {number}"),
        }
    }
}

/// A key that the peer or the toolstack wrote wrongly, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// The key, below its device's directory.
    pub path: KeyPath,
    /// Its value; `None` when absent.
    pub value: Option<Value>,
    /// What is wrong with it.
    pub reason: Reason,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xenstore key {}", self.path)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl core::error::Error for KeyError {}

/// Why settings could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// Xenstore itself failed.
    Store(E),
    /// What stands in it is not legal.
    Key(KeyError),
}

impl<E> From<KeyError> for Error<E> {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn an_error_names_the_key_and_the_start_of_the_value() {
        let value = b"\x00\xff0123456789012345678901234567890123456789";
        let error = KeyError {
            path: KeyPath::of("queue-3/ring-ref12"),
            value: Some(Value::of(value, value.len())),
            reason: Reason::NotANumber,
        };
        assert_eq!(
            format!("{error}"),
            "xenstore key queue-3/ring-ref12 = \"\\x00\\xff0123456789012345678901\"... (42 bytes) \
             is not an unsigned decimal number"
        );
        let missing =
            KeyError { path: KeyPath::of("sectors"), value: None, reason: Reason::Missing };
        assert_eq!(format!("{missing}"), "xenstore key sectors is missing");
        let words = Reason::NotOneOf(&["x86_32-abi", "x86_64-abi"]);
        assert_eq!(format!("{words}"), "is none of x86_32-abi, x86_64-abi");
    }

    #[test]
    fn a_path_is_cut_and_never_panics() {
        let long = "x".repeat(100);
        assert_eq!(KeyPath::of(&long).as_str(), &long[..39]);
    }
}
