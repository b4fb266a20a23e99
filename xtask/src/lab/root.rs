// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Debian 13 in which modules are built and the machines run: the machine's own, or a folder.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{folder, stamp::Stamp};
use crate::{apt, command, versions};

/// Starts a program in a root folder ($1), in a mount namespace of its own, so that nothing stays mounted. The checkout
/// ($2) and the lab's folder ($3) are there under their own names.
const ENTER: &str = r#"
    root=$1 checkout=$2 lab=$3
    shift 3
    for folder in proc dev sys; do mount --rbind "/$folder" "$root/$folder"; done
    mount -t tmpfs tmp "$root/tmp"
    for folder in "$checkout" "$lab"; do
        mkdir -p "$root$folder"
        mount --bind "$folder" "$root$folder"
    done
    exec chroot "$root" env --chdir="$checkout" "$@"
"#;

/// A Debian 13.
pub enum Root {
    /// The machine is one, and has the packages.
    Host,
    /// One made by mmdebstrap in this folder.
    Folder(PathBuf),
}

impl Root {
    /// The one to use, made if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be made: no mirror. When it is a folder, and this program has no root rights.
    pub fn ensure() -> Result<Self> {
        if host_will_do() {
            return Ok(Self::Host);
        }
        let root = folder().join("root");
        ensure!(
            super::is_root()?,
            "the lab needs root, to make a Debian 13 in {} and to run in it: run this as root",
            root.display()
        );
        let packages = [versions::BUILD_PACKAGES, versions::LAB_PACKAGES].concat();
        let stamp = Stamp::new("root", packages.join(" "));
        if !stamp.is_current() {
            make(&root, &packages)?;
            stamp.set()?;
        }
        Ok(Self::Folder(root))
    }

    /// Adds packages that only some part of the lab needs.
    ///
    /// # Errors
    ///
    /// When there is no mirror; when the root is the machine's own, which only its owner may change.
    pub fn add(&self, part: &str, packages: &[&str]) -> Result<()> {
        let Self::Folder(root) = self else {
            ensure!(
                has(&installed(), packages),
                "{part} needs packages: apt install {}",
                packages.join(" ")
            );
            return Ok(());
        };
        let stamp = Stamp::new(&format!("root-{part}"), packages.join(" "));
        if !stamp.is_current() {
            add(root, packages)?;
            stamp.set()?;
        }
        Ok(())
    }

    /// A command that runs in it. It does not outlive the thread that starts it: a machine of a test that was killed
    /// would go on using a processor.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let mut home = env::var_os("HOME").unwrap_or_else(|| "/".into());
        if let Self::Folder(root) = self {
            command.args(["unshare", "--mount", "sh", "-ec", ENTER, "sh"]);
            command.arg(root).arg(command::workspace()).arg(folder());
            home = "/root".into();
        }
        // The kernel's compiler is Debian's, not one that a person has in front of it.
        command.env_clear();
        command.envs([("PATH", "/usr/sbin:/usr/bin"), ("LC_ALL", "C")]).env("HOME", home);
        command.arg(program);
        command
    }

    /// A shell script that runs in it; the words are `$1`, `$2` and so on.
    pub fn script(&self, script: &str, words: &[&str]) -> Command {
        let mut command = self.command("bash");
        command.args(["-euo", "pipefail", "-c", script, "bash"]).args(words);
        command
    }

    /// Where a file of it is, seen from outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        match self {
            Self::Host => PathBuf::from(path),
            Self::Folder(root) => root.join(path.trim_start_matches('/')),
        }
    }

    /// What is made in it (`kit`, `source`, `stock`) stands at its top; on the machine's own, in the lab's folder.
    pub fn inside(&self, name: &str) -> String {
        match self {
            Self::Host => folder().join(name).display().to_string(),
            Self::Folder(_) => format!("/{name}"),
        }
    }
}

/// The machine is a Debian 13 that has all packages.
fn host_will_do() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    will_do(&release, &installed())
}

/// Whether a machine will do whose `/etc/os-release` is this, and where this is [`installed`].
fn will_do(os_release: &str, installed: &str) -> bool {
    let suite = format!("VERSION_CODENAME={}", versions::SUITE);
    os_release.lines().any(|line| line == suite)
        && has(installed, versions::BUILD_PACKAGES)
        && has(installed, versions::LAB_PACKAGES)
}

/// The machine's packages: lines of a name and a status. None where there is no dpkg.
fn installed() -> String {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    command::output(&mut query).unwrap_or_default()
}

/// Whether all these packages are [`installed`].
fn has(installed: &str, packages: &[&str]) -> bool {
    let installed: BTreeSet<_> =
        installed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().all(|package| installed.contains(package))
}

/// Makes the folder; one that is half made is completed by apt if it can be, else made anew.
fn make(root: &Path, packages: &[&str]) -> Result<()> {
    if root.join("usr/bin/apt-get").exists() && add(root, packages).is_ok() {
        return Ok(());
    }
    eprintln!("making a Debian 13 in {} (about 2 minutes)", root.display());
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let sources = root.with_file_name("sources.list");
    fs::write(&sources, apt::sources()?)?;
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=apt", "--keyring=/usr/share/keyrings"]);
    bootstrap.arg(format!("--include={}", packages.join(","))).arg(versions::SUITE);
    command::prepare(bootstrap.arg(root).arg(&sources)).context("Debian 13 could not be made")
}

fn add(root: &Path, packages: &[&str]) -> Result<()> {
    eprintln!("adding what is missing to the Debian 13 in {}", root.display());
    let folder = Root::Folder(root.to_path_buf());
    command::prepare(folder.command("apt-get").args(["-qq", "update"]))?;
    let mut install = folder.command("env");
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]);
    command::prepare(install.args(["--no-install-recommends", "install"]).args(packages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_13_with_all_packages_will_do() {
        let release = "ID=debian\nVERSION_CODENAME=trixie\n";
        let packages = [versions::BUILD_PACKAGES, versions::LAB_PACKAGES].concat();
        let line = |package: &&str| format!("{package} installed\n");
        let all: String = ["adduser"].iter().chain(&packages).map(line).collect();
        assert!(will_do(release, &all));
        assert!(!will_do("ID=debian\nVERSION_CODENAME=bookworm\n", &all));
        assert!(!will_do("ID=debian\nVERSION_CODENAME=trixie-like\n", &all));
        assert!(!will_do(release, ""));
        for package in packages {
            let line = line(&package);
            assert!(!will_do(release, &all.replace(&line, "")), "without {package}");
            let removed = all.replace(&line, &format!("{package} config-files\n"));
            assert!(!will_do(release, &removed), "with {package} removed");
        }
    }
}
