// SPDX-License-Identifier: MIT OR Apache-2.0

//! The compiler of Debian 13, with which its kernels and so the kernel modules are built.
//!
//! On Debian 13 it is an ordinary package. On another Debian it is fetched from the machine's own mirror with a
//! private configuration of apt (no root needed, nothing installed), unpacked in the cache folder, and started through
//! its own dynamic linker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;

/// The compiler's version in Debian 13, and in the configuration of its kernels (`CONFIG_RUSTC_VERSION_TEXT`).
pub const RUSTC: &str = "1.85.1";

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
    println!("fetching rustc {RUSTC} from Debian 13 into {}", root.display());
    let apt = Apt::new(&command::cache().join("apt-debian13"))?;
    for package in apt.download("rustc")? {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        if !NOT_NEEDED.iter().any(|prefix| name.starts_with(prefix)) {
            command::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root))?;
        }
    }
    Ok(fs::remove_dir_all(&apt.folder)?)
}

/// apt with its state in a folder of its own, for Debian 13, from the mirror that this machine uses.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let mirror = mirror()?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(
            folder.join("sources.list"),
            format!("deb [signed-by={keys}] {mirror} trixie main\n"),
        )?;
        let apt = Self { folder: folder.to_path_buf() };
        command::run(apt.get().args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let at = |name: &str| self.folder.join(name).display().to_string();
        for (key, value) in [
            ("Dir::State", at("state")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("APT::Architecture", "amd64".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command
    }

    /// Downloads a package and all that it depends on, and returns the files.
    fn download(&self, package: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut install = self.get();
        install.args([
            "-qq",
            "-y",
            "--no-install-recommends",
            "--download-only",
            "install",
            package,
        ]);
        command::run(&mut install)?;
        let archives = fs::read_dir(self.folder.join("cache/archives"))?;
        let files = archives.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path());
        Ok(files
            .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }
}

/// The Debian mirror in this machine's own list of sources.
fn mirror() -> anyhow::Result<String> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let targets = command::output(&mut list)?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian "));
    Ok(mirror.context("apt has no Debian mirror in its list of sources")?.to_owned())
}
