// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! How permissions are written: `n0`, `r1`, `w2`, `b3`.

use super::decimal;
use crate::xen::DomId;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Nothing (`n`).
    None,
    /// Read it and watch it (`r`).
    Read,
    /// Write it (`w`).
    Write,
    /// Both (`b`).
    Both,
}

impl Rights {
    /// Whether these include reading.
    pub const fn read(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether these include writing.
    pub const fn write(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry of a node's list. The first entry names the owner, who may do everything, and its rights are those of
/// every domain that no later entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Who.
    pub domid: DomId,
    /// What.
    pub rights: Rights,
}

/// Not a letter of `nrwb` followed by a decimal domain id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermissionError;

impl core::fmt::Display for PermissionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a permission is one of n, r, w, b and a domain id, as in r3")
    }
}

impl core::error::Error for PermissionError {}

impl Permission {
    /// An entry.
    pub const fn new(domid: DomId, rights: Rights) -> Self {
        Self { domid, rights }
    }

    /// Reads one entry, without its NUL.
    ///
    /// # Errors
    ///
    /// When it is none; the store answers `EINVAL`.
    pub fn parse(text: &[u8]) -> Result<Self, PermissionError> {
        let (letter, number) = text.split_first().ok_or(PermissionError)?;
        let rights = match letter {
            b'n' => Rights::None,
            b'r' => Rights::Read,
            b'w' => Rights::Write,
            b'b' => Rights::Both,
            _ => return Err(PermissionError),
        };
        let domid = decimal(number).ok_or(PermissionError)?;
        Ok(Self { domid: DomId(u16::try_from(domid).map_err(|_| PermissionError)?), rights })
    }
}

impl core::fmt::Display for Permission {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn the_four_letters() {
        let parse = |text: &str| Permission::parse(text.as_bytes());
        assert_eq!(parse("n0"), Ok(Permission::new(DomId(0), Rights::None)));
        assert_eq!(parse("r1"), Ok(Permission::new(DomId(1), Rights::Read)));
        assert_eq!(parse("w2"), Ok(Permission::new(DomId(2), Rights::Write)));
        assert_eq!(parse("b65535"), Ok(Permission::new(DomId(65535), Rights::Both)));
        for bad in ["", "r", "x1", "r-1", "r65536", "r1 ", "1"] {
            assert_eq!(parse(bad), Err(PermissionError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_parsed(domid: u16, rights in prop::sample::select(
            &[Rights::None, Rights::Read, Rights::Write, Rights::Both][..]
        )) {
            let permission = Permission::new(DomId(domid), rights);
            prop_assert_eq!(Permission::parse(permission.to_string().as_bytes()), Ok(permission));
        }
    }
}
