// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! What a path in xenstore may look like.

use super::{ABS_PATH_MAX, REL_PATH_MAX};
use crate::xen::DomId;

/// A path whose characters, slashes and length are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `/` or `/a/b`.
    Absolute(&'a str),
    /// `a/b`: below the [`Home`] of the domain that says it.
    Relative(&'a str),
    /// `@introduceDomain` and the like: no node, but something to watch.
    Special(&'a str),
}

/// Why something is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It is empty.
    Empty,
    /// A byte that is not a letter, a digit, or one of `-/_@`.
    Character(u8),
    /// Two slashes in a row, or one at the end.
    Slashes,
    /// It is longer than its kind may be.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl core::fmt::Display for PathError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("a path is empty"),
            Self::Character(byte) => write!(f, "byte {byte:#04x} is not allowed in a path"),
            Self::Slashes => f.write_str("a path has two slashes in a row or one at its end"),
            Self::TooLong { len, max } => write!(f, "a path of {len} bytes is longer than {max}"),
        }
    }
}

impl core::error::Error for PathError {}

impl<'a> Path<'a> {
    /// Checks the path of a request, without its NUL.
    ///
    /// # Errors
    ///
    /// When it is no legal path; the store answers `EINVAL` to all of them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PathError> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
        if let Some(&byte) = bytes.iter().find(|byte| !legal(byte)) {
            return Err(PathError::Character(byte));
        }
        // All ASCII, so this cannot fail.
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        if bytes.windows(2).any(|pair| pair == b"//") || (text.len() > 1 && text.ends_with('/')) {
            return Err(PathError::Slashes);
        }
        let (path, max) = match bytes.first() {
            None => return Err(PathError::Empty),
            Some(b'/') => (Self::Absolute(text), ABS_PATH_MAX),
            Some(b'@') => (Self::Special(text), REL_PATH_MAX),
            Some(_) => (Self::Relative(text), REL_PATH_MAX),
        };
        if text.len() > max {
            return Err(PathError::TooLong { len: text.len(), max });
        }
        Ok(path)
    }
}

/// A domain's home, which its relative paths begin at: displays as `/local/domain/<domid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(pub DomId);

impl core::fmt::Display for Home {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "/local/domain/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn the_three_kinds() {
        assert_eq!(Path::parse(b"/"), Ok(Path::Absolute("/")));
        assert_eq!(Path::parse(b"/local/domain/0"), Ok(Path::Absolute("/local/domain/0")));
        assert_eq!(Path::parse(b"device/vbd"), Ok(Path::Relative("device/vbd")));
        assert_eq!(Path::parse(b"@releaseDomain"), Ok(Path::Special("@releaseDomain")));
        assert_eq!(Home(DomId(7)).to_string(), "/local/domain/7");
    }

    #[test]
    fn illegal_paths_say_why() {
        assert_eq!(Path::parse(b""), Err(PathError::Empty));
        assert_eq!(Path::parse(b"/a b"), Err(PathError::Character(b' ')));
        assert_eq!(Path::parse(b"/a\xff"), Err(PathError::Character(0xff)));
        assert_eq!(Path::parse(b"/a/"), Err(PathError::Slashes));
        assert_eq!(Path::parse(b"a//b"), Err(PathError::Slashes));
        assert_eq!(Path::parse(b"//"), Err(PathError::Slashes));
        let long = "/".to_string() + &"a".repeat(ABS_PATH_MAX);
        assert_eq!(
            Path::parse(long.as_bytes()),
            Err(PathError::TooLong { len: ABS_PATH_MAX + 1, max: ABS_PATH_MAX })
        );
        assert!(Path::parse(&long.as_bytes()[..ABS_PATH_MAX]).is_ok());
        let relative = "a".repeat(REL_PATH_MAX);
        assert!(Path::parse(relative.as_bytes()).is_ok());
        assert!(Path::parse((relative + "a").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_is_what_was_said(bytes: Vec<u8>) {
            if let Ok(Path::Absolute(text) | Path::Relative(text) | Path::Special(text)) = Path::parse(&bytes) {
                prop_assert_eq!(text.as_bytes(), &bytes[..]);
            }
        }

        #[test]
        fn paths_of_legal_components_are_legal(parts in prop::collection::vec("[A-Za-z0-9_@-]{1,9}", 1..20)) {
            let text: String = parts.iter().map(|part| "/".to_string() + part).collect();
            prop_assert_eq!(Path::parse(text.as_bytes()), Ok(Path::Absolute(&text)));
        }
    }
}
