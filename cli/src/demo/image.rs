// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk images of the demo: a real ext4 file system with files in it, and an empty one to write to.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// Size of the file system in bytes.
const FILE_SYSTEM: u64 = 64 << 20;

/// Makes an ext4 image in `dir` with some text and some data that does not compress.
///
/// # Errors
///
/// When `mke2fs` is missing or fails; the message says what to install.
pub fn file_system(dir: &Path) -> anyhow::Result<PathBuf> {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("data"))?;
    fs::write(tree.join("README"), "This file came through a ring in shared memory.\n")?;
    let mut random = File::open("/dev/urandom")?;
    for number in 0..8 {
        let mut file = File::create(tree.join(format!("data/{number}.bin")))?;
        io::copy(&mut (&mut random).take((3 << 20) + number * 4099), &mut file)?;
    }

    let image = dir.join("demo.ext4");
    File::create(&image)?.set_len(FILE_SYSTEM)?;
    let mut mke2fs = Command::new(mke2fs()?);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "causeway", "-d"]).arg(&tree).arg(&image);
    let output = mke2fs.output().context("cannot start mke2fs")?;
    if !output.status.success() {
        bail!("mke2fs failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::remove_dir_all(tree)?;
    Ok(image)
}

/// Finds `mke2fs`; as root on Debian it is installed if it is missing.
fn mke2fs() -> anyhow::Result<PathBuf> {
    let find = || {
        ["/sbin", "/usr/sbin", "/bin", "/usr/bin"]
            .iter()
            .map(|folder| Path::new(folder).join("mke2fs"))
            .find(|program| program.exists())
    };
    if let Some(program) = find() {
        return Ok(program);
    }
    if rustix::process::geteuid().is_root() {
        for arguments in [&["-qq", "update"][..], &["-qq", "-y", "install", "e2fsprogs"]] {
            // If this does not help, the sentence below does.
            let _ = Command::new("apt-get").args(arguments).status();
        }
    }
    find().context(
        "mke2fs is missing: install the package e2fsprogs, or give the demo an image with --image",
    )
}

/// Makes an image of `len` bytes in `dir`, all of it allocated, to be written to.
///
/// # Errors
///
/// When the file system is full.
pub fn scratch(dir: &Path, len: u64) -> anyhow::Result<PathBuf> {
    let image = dir.join("scratch.img");
    let mut file = File::create(&image)?;
    let zeroes = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        file.write_all(&zeroes).with_context(|| format!("writing {}", image.display()))?;
    }
    file.sync_all()?;
    Ok(image)
}

/// SHA-256 of the first `len` bytes of a file or device, in hexadecimal digits.
///
/// # Errors
///
/// When they cannot be read.
pub fn checksum(path: &Path, len: u64) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = file.take(len);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
