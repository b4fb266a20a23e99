// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stock kernel, and what its own packages lack to build Rust modules for it: the kit.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{root::Root, stamp::Stamp, versions};
use crate::command;

/// Prints the newest kernel of trixie-backports, if the one wanted ($1) is gone.
const CHOOSE: &str = r#"
    apt-get -qq update
    names() { apt-cache pkgnames linux-headers- | sed -n 's/^linux-headers-\([0-9.]*+deb13-amd64\)$/\1/p'; }
    if names | grep -qxF "$1"; then echo "$1"; else names | sort -V | tail -n 1; fi
"#;

/// Fetches and unpacks the stock kernel and its source: $1 its release, $2 and $3 where to.
const FETCH: &str = r#"
    release=$1 stock=$2 source=$3
    series=$(cut -d. -f1,2 <<<"$release")
    rm -rf "$stock" "$source"
    mkdir -p "$stock" "$source"
    cd /tmp
    packages="linux-headers-$release linux-source-$series"
    for part in linux-base linux-binary linux-modules; do packages+=" $part-$release"; done
    apt-get -qq -o APT::Sandbox::User=root download $packages
    for package in linux-headers-* linux-b* linux-modules-*; do dpkg-deb --extract "$package" "$stock"; done
    # modprobe looks in /lib.
    [ -e "$stock/lib" ] || ln -s usr/lib "$stock/lib"
    depmod -b "$stock" "$release"
    dpkg-deb --fsys-tarfile linux-source-*.deb | tar -x --to-stdout --wildcards './usr/src/linux-source-*.tar.xz' |
        tar -xJ -C "$source" --strip-components=1
"#;

/// The stock kernel, and the kit for its modules.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Its packages unpacked, as a path in the root.
    pub stock: String,
    /// The output folder to build modules against, as a path in the root.
    pub kit: String,
    /// What is different when it is the debug kernel.
    pub debug: Option<Debug>,
}

/// See [`Kernel::debug`].
pub struct Debug {
    /// Words of `make` that name its compiler.
    pub make: &'static [&'static str],
    /// All modules that it has.
    pub modules: &'static [&'static str],
}

impl Kernel {
    /// Fetches and makes what is missing.
    ///
    /// # Errors
    ///
    /// When the mirror has no kernel that fits, or the kit cannot be made.
    pub fn ensure(root: &Root) -> Result<Self> {
        let source = root.inside("source");
        let (stock, kit) = (root.inside("stock"), root.inside("kit"));
        let chosen = super::folder().join("kernel-release");
        let fetched = Stamp::new("kernel", versions::KERNEL.to_owned());
        if !fetched.is_current() {
            let text = command::output(&mut root.script(CHOOSE, &[versions::KERNEL]))?;
            let release = text.trim();
            ensure!(!release.is_empty(), "trixie-backports has no kernel: is it in apt's sources?");
            if release != versions::KERNEL {
                println!("the kernel {} is gone; taking {release}", versions::KERNEL);
            }
            println!("fetching the stock kernel {release} and its source");
            command::run(&mut root.script(FETCH, &[release, &stock, &source]))?;
            fs::write(&chosen, release)?;
            let kernel = Self {
                release: release.to_owned(),
                stock: stock.clone(),
                kit: kit.clone(),
                debug: None,
            };
            kernel.check_rust(root)?;
            fetched.set()?;
        }
        let kernel = Self { release: fs::read_to_string(&chosen)?, stock, kit, debug: None };
        let made = Stamp::new("kit", format!("{} {}", kernel.release, versions::CC));
        if !made.is_current() {
            println!("making the kit for modules of {} (about 4 minutes)", kernel.release);
            let headers = format!("{}/usr/src/linux-headers-{}", kernel.stock, kernel.release);
            let script = command::workspace().join("linux-modules/prepare-tree.sh");
            let mut prepare = root.command(&script.display().to_string());
            command::run(prepare.args([&headers, &source, &kernel.kit]).arg(versions::CC))
                .context("the kit for kernel modules could not be made")?;
            made.set()?;
        }
        kernel.unpack(root)?;
        Ok(kernel)
    }

    /// A kernel without Rust, or of another compiler, cannot load our modules.
    fn check_rust(&self, root: &Root) -> Result<()> {
        let config = fs::read_to_string(root.outside(&self.file("config")))?;
        if !config.lines().any(|line| line == "CONFIG_RUST=y") {
            bail!(
                "the kernel {} was built without CONFIG_RUST: no Rust module can run on it",
                self.release
            );
        }
        Ok(())
    }

    /// What follows the names of all that is made for this kernel.
    pub fn suffix(&self) -> &'static str {
        if self.debug.is_some() { "-debug" } else { "" }
    }

    /// A file of the kernel's folder of modules, as a path in the root.
    pub fn file(&self, name: &str) -> String {
        format!("{}/usr/lib/modules/{}/{name}", self.stock, self.release)
    }

    /// The kernel as it boots: unpacked, since an emulated processor takes seconds to do it at every boot of Dom0 and
    /// of each DomU.
    pub fn image(&self) -> PathBuf {
        super::folder().join(format!("images/vmlinux-{}", self.release))
    }

    /// Makes [`Kernel::image`]: the ELF file that `vmlinuz` carries, where its header says (the kernel's
    /// `Documentation/arch/x86/boot.rst`).
    fn unpack(&self, root: &Root) -> Result<()> {
        let image = self.image();
        if image.exists() {
            return Ok(());
        }
        let packed = fs::read(root.outside(&self.file("vmlinuz")))?;
        let payload = payload(&packed).context("the kernel is not a bzImage")?;
        let part = super::folder().join("images/vmlinux.zst");
        fs::create_dir_all(super::folder().join("images"))?;
        fs::write(&part, payload)?;
        let script = "zstd -q -d -c \"$1\" >\"$1.new\" && mv \"$1.new\" \"$2\"";
        let words = [&part, &image].map(|path| path.display().to_string());
        command::run(&mut root.script(script, &words.each_ref().map(String::as_str)))
            .context("the kernel's payload is not zstd")?;
        Ok(fs::remove_file(part)?)
    }
}

/// What a bzImage carries, without the size that stands behind it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = usize::from(*image.get(0x1f1)?);
    let begin = (sectors + 1) * 512 + word(0x248)?;
    image.get(begin..begin + word(0x24c)?.checked_sub(4)?)
}
