// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian 13's packages on any machine that has apt: from the mirror that the machine itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::command;
use crate::versions::SUITE;

/// The lines of a list of sources for Debian 13, derived from the machine's own. Without a security mirror in it,
/// there is none here either.
///
/// # Errors
///
/// When apt has no Debian mirror.
pub fn sources() -> anyhow::Result<String> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let targets = command::output(&mut list)?;
    let mirror = |label: &str| targets.lines().find_map(|line| line.strip_prefix(label));
    let debian = mirror("Debian ").context("apt has no Debian mirror in its list of sources")?;
    let mut lines = String::new();
    for part in ["", "-updates", "-backports"] {
        lines += &format!("deb {debian} {SUITE}{part} main\n");
    }
    if let Some(security) = mirror("Debian-Security ") {
        lines += &format!("deb {security} {SUITE}-security main\n");
    }
    Ok(lines)
}

/// apt with its state in a folder of its own: nothing is installed, and no root is needed.
pub struct Private {
    folder: PathBuf,
}

impl Private {
    /// Fetches the lists of packages.
    ///
    /// # Errors
    ///
    /// When there is no mirror, or it does not answer.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed = format!("deb [signed-by={keys}] ");
        fs::write(folder.join("sources.list"), sources()?.replace("deb ", &signed))?;
        let apt = Self { folder: folder.to_path_buf() };
        command::prepare(apt.get().args(["-qq", "update"]))?;
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
    ///
    /// # Errors
    ///
    /// When apt fails.
    pub fn download(&self, package: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut install = self.get();
        install.args(["-qq", "-y", "--no-install-recommends", "--download-only"]);
        command::prepare(install.args(["install", package]))?;
        let archives = fs::read_dir(self.folder.join("cache/archives"))?;
        let files = archives.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path());
        Ok(files
            .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }

    /// Removes the folder.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.folder)?)
    }
}
