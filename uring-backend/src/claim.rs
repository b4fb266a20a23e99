// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which of the devices in xenstore are this backend's to serve.
//!
//! A Dom0 has other block backends, and each takes what it finds: the kernel's every device below `backend/vbd`,
//! tapback all below `backend/vbd3`, QEMU all below `backend/qdisk`. So this one takes what names it by its script,
//! where no other looks, and what nobody else is there to serve:
//!
//! | directory | a disk of `xl` with | is served |
//! |---|---|---|
//! | `backend/vbd3` | `backendtype=tap,script=block-causeway` | always |
//! | `backend/vbd` | `script=block-causeway` | unless the kernel has a block backend |
//! | `backend/vbd` | (a toolstack that has no scripts, as Causeway's own) | unless the kernel has a block backend |

use std::fmt;

/// The name of the script that names this backend.
const SCRIPT: &str = "block-causeway";

/// The directory below `backend` that a device is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// `vbd`.
    Vbd,
    /// `vbd3`, which libxl uses for backends in user space.
    Vbd3,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Vbd, Self::Vbd3];

    /// The directory's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vbd => "vbd",
            Self::Vbd3 => "vbd3",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The path in `params`. Below `vbd3` a format stands before it.
    pub(crate) fn image(self, params: &str) -> Result<&str, UnknownFormat> {
        match (self, params.split_once(':')) {
            (Self::Vbd, _) => Ok(params),
            (Self::Vbd3, Some(("aio" | "raw", path))) => Ok(path),
            (Self::Vbd3, Some((format, _))) => Err(UnknownFormat(format.to_owned())),
            (Self::Vbd3, None) => Ok(params),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The toolstack names a format that is not served.
#[derive(Debug, thiserror::Error)]
#[error("the image is of format {0}, and only raw ones are served (`format=raw`)")]
pub(crate) struct UnknownFormat(String);

/// Whose a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This backend's.
    Ours,
    /// This backend's by its script, but the kernel takes it all the same.
    Taken,
    /// Another backend's.
    Others,
}

impl Claim {
    /// Of a device of this kind and `script`. `kernel`: the kernel of this domain has a backend for `vbd`.
    pub(crate) fn of(kind: Kind, script: Option<&str>, kernel: bool) -> Self {
        let named = script.map(|script| script.rsplit('/').next() == Some(SCRIPT));
        match (kind, named) {
            (Kind::Vbd3, Some(true)) => Self::Ours,
            (Kind::Vbd, Some(true)) if kernel => Self::Taken,
            (Kind::Vbd, Some(true) | None) if !kernel => Self::Ours,
            _ => Self::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_from_another_backend() {
        let (ours, stock) =
            (Some("/etc/xen/scripts/block-causeway"), Some("/etc/xen/scripts/block"));
        for (kind, script, kernel, expected) in [
            (Kind::Vbd3, ours, true, Claim::Ours),
            (Kind::Vbd3, ours, false, Claim::Ours),
            (Kind::Vbd3, Some("/etc/xen/scripts/block-tap"), false, Claim::Others),
            (Kind::Vbd3, None, false, Claim::Others),
            (Kind::Vbd, stock, true, Claim::Others),
            (Kind::Vbd, stock, false, Claim::Others),
            (Kind::Vbd, ours, true, Claim::Taken),
            (Kind::Vbd, ours, false, Claim::Ours),
            (Kind::Vbd, Some("block-causeway"), false, Claim::Ours),
            (Kind::Vbd, None, true, Claim::Others),
            (Kind::Vbd, None, false, Claim::Ours),
        ] {
            assert_eq!(Claim::of(kind, script, kernel), expected, "{kind} {script:?} {kernel}");
        }
    }

    #[test]
    fn a_format_is_no_part_of_the_path() {
        assert_eq!(Kind::Vbd3.image("aio:/images/a:b").unwrap(), "/images/a:b");
        assert_eq!(Kind::Vbd3.image("/images/a").unwrap(), "/images/a");
        assert_eq!(Kind::Vbd.image("/images/a:b").unwrap(), "/images/a:b");
        let refused = Kind::Vbd3.image("vhd:/images/a").unwrap_err().to_string();
        assert!(refused.contains("format vhd"), "{refused}");
    }
}
