// SPDX-License-Identifier: MIT OR Apache-2.0

//! The compiler of Debian 13, with which its kernels and so the kernel modules are built.
//!
//! On Debian 13 it is an ordinary package. On another Debian it is fetched from the machine's own mirror with a
//! private configuration of apt (no root needed, nothing installed), unpacked in the cache folder, and started through
//! its own dynamic linker.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::versions::RUSTC;
use crate::{apt, command};

/// Unpacked parts that the compiler does not need to check and compile a library.
const NOT_NEEDED: &[&str] = &[
    "gcc-14-x86-64",
    "gcc-x86-64",
    "cpp-",
    "binutils",
    "libasan",
    "libtsan",
    "liblsan",
    "libubsan",
    "linux-libc-dev",
];

/// A command that starts the compiler.
///
/// # Errors
///
/// When it is neither installed nor to be had; the message says what to install.
pub fn rustc() -> anyhow::Result<Command> {
    let is_it = |rustc: &mut Command| {
        command::output(rustc.arg("--version"))
            .is_ok_and(|text| text.starts_with(&format!("rustc {RUSTC} ")))
    };
    if is_it(&mut Command::new("/usr/bin/rustc")) {
        return Ok(Command::new("/usr/bin/rustc"));
    }
    // The lab's Debian 13 has it, if it was made.
    let lab = command::cache().join("lab/root");
    if is_it(&mut from(&lab)) {
        return Ok(from(&lab));
    }
    let root = command::cache().join(format!("rustc-{RUSTC}"));
    if !is_it(&mut from(&root)) {
        let advice = format!("rustc {RUSTC} is needed: install Debian 13's package `rustc`");
        unpack(&root).context(advice)?;
        if !is_it(&mut from(&root)) {
            bail!("the mirror's rustc in {} is not {RUSTC}", root.display());
        }
    }
    Ok(from(&root))
}

/// Starts the compiler of an unpacked root with that root's own libraries.
fn from(root: &Path) -> Command {
    let library = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(library.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&library).arg(root.join("usr/bin/rustc"));
    command
}

fn unpack(root: &Path) -> anyhow::Result<()> {
    eprintln!("fetching rustc {RUSTC} from Debian 13 into {}", root.display());
    let apt = apt::Private::new(&command::cache().join("apt-debian13"))?;
    for package in apt.download("rustc")? {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        if !NOT_NEEDED.iter().any(|prefix| name.starts_with(prefix)) {
            command::prepare(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root))?;
        }
    }
    apt.remove()
}
