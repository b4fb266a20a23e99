// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Keys: one constant each, from which both the code that reads them and the documentation come.

use super::directory::{Error, KeyError, KeyPath, ReadDirectory, Reason, Value};
use crate::xen::DomId;
use core::fmt;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0` or `1`.
    Flag,
    /// An unsigned decimal number within these bounds, both included.
    Number {
        /// The smallest legal number.
        min: u64,
        /// The largest legal number.
        max: u64,
    },
    /// A grant reference, in decimal: 0 is the hypervisor's.
    GrantRef,
    /// An event channel, in decimal: 0 is never used, and a domain has at most 2^17 (`EVTCHN_FIFO_NR_CHANNELS`).
    Port,
    /// A domain, in decimal: not a reserved id.
    DomId,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of this form.
    Text(&'static str),
}

impl Kind {
    /// Any number of 32 bits.
    pub const U32: Self = Self::Number { min: 0, max: u32::MAX as u64 };
    /// Any number of 64 bits.
    pub const U64: Self = Self::Number { min: 0, max: u64::MAX };

    /// The smallest and the largest number.
    const fn bounds(&self) -> (u64, u64) {
        match *self {
            Self::Number { min, max } => (min, max),
            Self::Flag => (0, 1),
            Self::GrantRef => (1, u32::MAX as u64),
            Self::Port => (1, (1 << 17) - 1),
            Self::DomId => (0, DomId::FIRST_RESERVED.0 as u64 - 1),
            Self::Word(_) | Self::Text(_) => (0, u64::MAX),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Flag => f.write_str("0 or 1"),
            Self::U32 => f.write_str("number, 32 bits"),
            Self::U64 => f.write_str("number, 64 bits"),
            Self::GrantRef => f.write_str("grant reference"),
            Self::Port => f.write_str("event channel"),
            Self::DomId => f.write_str("domain"),
            Self::Number { min, max } if max == u64::from(u32::MAX) => {
                write!(f, "number, 32 bits, from {min}")
            }
            Self::Number { min, max } => write!(f, "number, {min} to {max}"),
            Self::Word(words) => {
                for (i, word) in words.iter().enumerate() {
                    write!(f, "{}`{word}`", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Text(form) => f.write_str(form),
        }
    }
}

/// In whose directory a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The frontend's.
    Frontend,
    /// The backend's.
    Backend,
    /// Both ends', where each says it of itself.
    Both,
}

/// Who writes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The driver whose directory it stands in.
    Driver,
    /// Whoever made the device.
    Toolstack,
}

/// What an absent key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// An error: the key is needed.
    Error,
    /// This number.
    Number(u64),
    /// This word.
    Word(&'static str),
    /// The same as that key, or what these words say.
    As(&'static str),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("error"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Word(word) => write!(f, "`{word}`"),
            Self::As(what) => f.write_str(what),
        }
    }
}

/// Where a key is specified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The public headers of Xen.
    Xen,
    /// Linux's drivers or libxl, which everybody follows.
    Linux,
    /// Causeway's own; a stock peer neither writes nor reads it.
    Causeway,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xen => "Xen",
            Self::Linux => "Linux",
            Self::Causeway => "Causeway",
        })
    }
}

/// A key of a device's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name; `%u` in it stands for a number that counts from 0.
    pub name: &'static str,
    /// In whose directory it stands.
    pub place: Place,
    /// Whether it stands in each `queue-N/` when there is more than one queue.
    pub per_queue: bool,
    /// What its value looks like.
    pub kind: Kind,
    /// Who writes it.
    pub writer: Writer,
    /// What it means that it is absent.
    pub absent: Absent,
    /// Where it is specified.
    pub source: Source,
    /// What it says, in one line.
    pub about: &'static str,
}

/// Declares keys: a constant for each, and `KEYS`, the list of all.
macro_rules! keys {
    ($($name:ident = $place:ident $($queue:ident)? $text:literal, $kind:expr, by $writer:ident,
       absent $absent:expr, $source:ident: $about:literal;)*) => {
        $(
            #[doc = concat!("`", $text, "`: ", $about, ".")]
            pub const $name: Key = Key {
                name: $text,
                place: Place::$place,
                per_queue: keys!(@queue $($queue)?),
                kind: $kind,
                writer: Writer::$writer,
                absent: $absent,
                source: Source::$source,
                about: $about,
            };
        )*

        /// All of them.
        pub const KEYS: &[Key] = &[$($name),*];
    };
    (@queue queue) => { true };
    (@queue) => { false };
}
pub(super) use keys;

/// Longest value that is looked at: twice what the longest legal one takes.
const VALUE_LEN: usize = 64;

impl Key {
    /// The key in the device's directory itself.
    pub fn path(&self) -> KeyPath {
        KeyPath::of(self.name)
    }

    /// The key of a queue: in the device's directory itself when `queue` is `None` (the only queue), otherwise in the
    /// queue's own.
    pub fn path_in_queue(&self, queue: Option<u32>) -> KeyPath {
        match queue {
            None => self.path(),
            Some(queue) => KeyPath::format(format_args!("queue-{queue}/{}", self.name)),
        }
    }

    /// The key of a queue with `%u` in its name replaced by `index`.
    pub fn path_of_index(&self, queue: Option<u32>, index: u32) -> KeyPath {
        let stem = self.name.strip_suffix("%u").unwrap_or(self.name);
        match queue {
            None => KeyPath::format(format_args!("{stem}{index}")),
            Some(queue) => KeyPath::format(format_args!("queue-{queue}/{stem}{index}")),
        }
    }

    /// Reads a number at `path`, or its default.
    pub(super) fn number_at<D: ReadDirectory>(
        &self,
        directory: &mut D,
        path: &KeyPath,
    ) -> Result<u64, Error<D::Error>> {
        match (read_number(directory, self, path)?, self.absent) {
            (Some(number), _) | (None, Absent::Number(number)) => Ok(number),
            (None, _) => Err(KeyError { path: *path, value: None, reason: Reason::Missing }.into()),
        }
    }

    /// Reads a number of at most 32 bits at `path`, or its default.
    pub(super) fn u32_at<D: ReadDirectory>(
        &self,
        directory: &mut D,
        path: &KeyPath,
    ) -> Result<u32, Error<D::Error>> {
        let number = self.number_at(directory, path)?;
        Ok(self.within_u32(path, number)?)
    }

    /// Reads a number of at most 32 bits, or its default.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the value is not of the key's kind, or is absent without a default.
    pub fn u32<D: ReadDirectory>(&self, directory: &mut D) -> Result<u32, Error<D::Error>> {
        self.u32_at(directory, &self.path())
    }

    /// Reads a number, or its default.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the value is not of the key's kind, or is absent without a default.
    pub fn number<D: ReadDirectory>(&self, directory: &mut D) -> Result<u64, Error<D::Error>> {
        self.number_at(directory, &self.path())
    }

    /// Reads a number of at most 32 bits, if there is one.
    pub(super) fn optional_u32<D: ReadDirectory>(
        &self,
        directory: &mut D,
    ) -> Result<Option<u32>, Error<D::Error>> {
        let path = self.path();
        match read_number(directory, self, &path)? {
            None => Ok(None),
            Some(number) => Ok(Some(self.within_u32(&path, number)?)),
        }
    }

    /// `number`, read at `path`, if it has at most 32 bits.
    fn within_u32(&self, path: &KeyPath, number: u64) -> Result<u32, KeyError> {
        let reason = Reason::OutOfRange { min: 0, max: u64::from(u32::MAX) };
        u32::try_from(number).map_err(|_| self.refuse(path, number, reason))
    }

    /// Reads a flag, or its default.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the value is not of the key's kind, or is absent without a default.
    pub fn flag<D: ReadDirectory>(&self, directory: &mut D) -> Result<bool, Error<D::Error>> {
        Ok(self.number_at(directory, &self.path())? != 0)
    }

    /// Reads one of the key's words, or its default.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the value is not of the key's kind, or is absent without a default.
    pub fn word<D: ReadDirectory>(
        &self,
        directory: &mut D,
    ) -> Result<Option<&'static str>, Error<D::Error>> {
        let Kind::Word(words) = self.kind else { return Ok(None) };
        let path = self.path();
        let mut buffer = [0; VALUE_LEN];
        let Some(Found { text, len }) = read_bytes(directory, &path, &mut buffer)? else {
            return match self.absent {
                Absent::Word(word) => Ok(Some(word)),
                Absent::Error => {
                    Err(KeyError { path, value: None, reason: Reason::Missing }.into())
                }
                Absent::Number(_) | Absent::As(_) => Ok(None),
            };
        };
        match words.iter().find(|word| len == word.len() && word.as_bytes() == text) {
            Some(word) => Ok(Some(word)),
            None => {
                let value = Some(Value::of(text, len));
                Err(KeyError { path, value, reason: Reason::NotOneOf(words) }.into())
            }
        }
    }

    /// Reads text of the key's form; `parse` says what it means, or that it is not of that form.
    pub(super) fn parse<D: ReadDirectory, T>(
        &self,
        directory: &mut D,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error<D::Error>> {
        let path = self.path();
        let mut buffer = [0; VALUE_LEN];
        let Some(Found { text, len }) = read_bytes(directory, &path, &mut buffer)? else {
            return match self.absent {
                Absent::Error => {
                    Err(KeyError { path, value: None, reason: Reason::Missing }.into())
                }
                _ => Ok(None),
            };
        };
        let reason = match (self.kind, len > VALUE_LEN) {
            (_, true) => Reason::TooLong(VALUE_LEN),
            (Kind::Text(form), false) => Reason::Malformed(form),
            (_, false) => Reason::Malformed("text"),
        };
        let parsed = if len > VALUE_LEN { None } else { parse(text) };
        match parsed {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(KeyError { path, value: Some(Value::of(text, len)), reason }.into()),
        }
    }

    /// Checks that `number`, which is to stand at `path`, is of the key's kind.
    pub(super) fn check(&self, path: &KeyPath, number: u64) -> Result<(), KeyError> {
        let (min, max) = self.kind.bounds();
        if (min..=max).contains(&number) {
            return Ok(());
        }
        Err(self.refuse(path, number, Reason::OutOfRange { min, max }))
    }

    /// The error that `number`, read at `path`, is not legal.
    pub(super) fn refuse(&self, path: &KeyPath, number: u64, reason: Reason) -> KeyError {
        KeyError { path: *path, value: Some(Value::number(number)), reason }
    }
}

/// What was read of a value, and the length of all of it.
struct Found<'b> {
    text: &'b [u8],
    len: usize,
}

/// Reads as much of a value as fits; `None` when absent.
fn read_bytes<'b, D: ReadDirectory>(
    directory: &mut D,
    path: &KeyPath,
    buffer: &'b mut [u8],
) -> Result<Option<Found<'b>>, Error<D::Error>> {
    match directory.read(path.as_str(), buffer).map_err(Error::Store)? {
        None => Ok(None),
        Some(len) => {
            let buffer: &'b [u8] = buffer;
            Ok(Some(Found { text: buffer.get(..len).unwrap_or(buffer), len }))
        }
    }
}

/// Reads a number at `path` and checks it against the key's kind; `None` when absent.
pub(super) fn read_number<D: ReadDirectory>(
    directory: &mut D,
    key: &Key,
    path: &KeyPath,
) -> Result<Option<u64>, Error<D::Error>> {
    let (min, max) = key.kind.bounds();
    let mut buffer = [0; VALUE_LEN];
    let Some(Found { text, len }) = read_bytes(directory, path, &mut buffer)? else {
        return Ok(None);
    };
    let error = |reason| KeyError { path: *path, value: Some(Value::of(text, len)), reason };
    if len > VALUE_LEN {
        return Err(error(Reason::TooLong(VALUE_LEN)).into());
    }
    match parse_number(text) {
        Some(Some(number)) if (min..=max).contains(&number) => Ok(Some(number)),
        Some(_) => Err(error(Reason::OutOfRange { min, max }).into()),
        None => Err(error(Reason::NotANumber).into()),
    }
}

/// Parses digits and nothing else. The outer `None` means that it is no number, the inner that it has over 64 bits.
pub(super) fn parse_number(text: &[u8]) -> Option<Option<u64>> {
    if text.is_empty() {
        return None;
    }
    let mut number = Some(0u64);
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number
            .and_then(|number| number.checked_mul(10))
            .and_then(|number| number.checked_add(u64::from(byte - b'0')));
    }
    Some(number)
}

/// Refuses a number that occurs twice, such as a page that is to be two rings at once. `path` says where each stands.
pub(super) fn refuse_repeated<P>(
    numbers: impl Iterator<Item = (P, u32)> + Clone,
    path: impl Fn(P) -> KeyPath,
) -> Result<(), KeyError> {
    for (at, (here, number)) in numbers.clone().enumerate() {
        if let Some((first, _)) = numbers.clone().take(at).find(|(_, other)| *other == number) {
            let reason = Reason::SameAs(path(first));
            let value = Some(Value::number(u64::from(number)));
            return Err(KeyError { path: path(here), value, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::keys::STATE;
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_number(b"0"), Some(Some(0)));
        assert_eq!(parse_number(b"007"), Some(Some(7)));
        assert_eq!(parse_number(b"18446744073709551615"), Some(Some(u64::MAX)));
        assert_eq!(parse_number(b"18446744073709551616"), Some(None));
        for bad in ["", "-1", "+1", " 1", "1 ", "1\n", "1\0", "0x10", "1.0", "\u{661}"] {
            assert_eq!(parse_number(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        let key = Key { name: "ring-ref%u", ..STATE };
        assert_eq!(key.path_of_index(None, 3).as_str(), "ring-ref3");
        assert_eq!(key.path_of_index(Some(3), 12).as_str(), "queue-3/ring-ref12");
        let key = Key { name: "event-channel", ..STATE };
        assert_eq!(key.path_in_queue(Some(15)).as_str(), "queue-15/event-channel");
        assert_eq!(key.path_in_queue(None).as_str(), "event-channel");
    }

    #[test]
    fn a_number_of_the_wrong_size_is_named() {
        let long = "1".repeat(65);
        for (text, reason) in [
            (long.as_str(), Reason::TooLong(64)),
            (&long[..64], Reason::OutOfRange { min: 0, max: 8 }),
            ("9", Reason::OutOfRange { min: 0, max: 8 }),
        ] {
            let mut fake = Fake::of(&[("state", text)]);
            let Err(Error::Key(error)) = read_number(&mut fake, &STATE, &STATE.path()) else {
                panic!("{text:?} passed")
            };
            assert_eq!(error.reason, reason);
        }
    }
}
