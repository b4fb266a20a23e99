// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Debian packages that building and testing needs.

use std::process::Command;

use anyhow::bail;

use crate::command;

/// A package, and a file that it brings: the package is installed if the file is there, however it came.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "/usr/bin/cc"),
    ("g++", "/usr/bin/c++"),
    ("libxen-dev", "/usr/include/xen/io/blkif.h"),
    ("xenstore-utils", "/usr/bin/xenstore-ls"),
    ("e2fsprogs", "/sbin/mke2fs"),
    ("fio", "/usr/bin/fio"),
    ("qemu-utils", "/usr/bin/qemu-nbd"),
    ("libnbd-bin", "/usr/bin/nbdinfo"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("util-linux", "/usr/bin/unshare"),
];

/// Sees to it that all packages are there: installs them as root on Debian, else says what to install.
///
/// # Errors
///
/// When packages are missing and could not be installed; the message is the command that installs them.
pub fn ensure() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let advice = format!("please run `apt-get install {list}` as root");
    let root = command::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root || !std::path::Path::new("/usr/bin/apt-get").exists() {
        bail!("missing packages: {list}; {advice}");
    }
    eprintln!("installing {list}");
    command::prepare(Command::new("apt-get").args(["-qq", "update"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    command::prepare(
        install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(&missing),
    )?;
    match self::missing().as_slice() {
        [] => Ok(()),
        rest => bail!("still missing after the installation: {}; {advice}", rest.join(" ")),
    }
}

fn missing() -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(_, file)| !std::path::Path::new(file).exists())
        .map(|(name, _)| *name)
        .collect()
}
