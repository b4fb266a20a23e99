// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stock kernel, and what its own packages lack to build Rust modules for it: the kit.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{root::Root, stamp::Stamp};
use crate::{command, versions};

/// Prints all kernels there are of a kind ($1), the newest first.
const LIST: &str = r#"
    apt-get -qq update
    apt-cache pkgnames linux-headers- | sed -n "s/^linux-headers-\\([0-9.]*$1\\)\$/\\1/p" | sort -rV
"#;

/// Fetches and unpacks the stock kernel and its source: $1 its release, $2 and $3 where to.
const FETCH: &str = r#"
    release=$1 stock=$2 source=$3
    series=$(cut -d. -f1,2 <<<"$release")
    rm -rf "$stock" "$source"
    mkdir -p "$stock" "$source"
    cd "$(mktemp -d)"
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

/// The kernel to take: the one `wanted` if it is `there`, or else the first of these that `fits` when it was fetched.
fn choose<'a>(
    there: &'a str,
    wanted: &'a str,
    mut fits: impl FnMut(&str) -> Result<bool>,
) -> Result<&'a str> {
    let mut others = there.lines();
    if others.clone().any(|release| release == wanted) {
        ensure!(fits(wanted)?, "the kernel {wanted} was built without CONFIG_RUST");
        return Ok(wanted);
    }
    println!("the kernel {wanted} is gone; taking the newest that can load Rust modules");
    others
        .find_map(|release| match fits(release) {
            Ok(true) => Some(Ok(release)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
        .context("trixie-backports has no kernel with CONFIG_RUST: is it in apt's sources?")?
}

/// Whether a kernel of this configuration can load modules in Rust.
fn has_rust(root: &Root, config: &str) -> Result<bool> {
    let config = fs::read_to_string(root.outside(config))?;
    Ok(config.lines().any(|line| line == "CONFIG_RUST=y"))
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
            let there = command::output(&mut root.script(LIST, &[versions::KERNEL_KIND]))?;
            let release = choose(&there, versions::KERNEL, |release| {
                println!("fetching the stock kernel {release} and its source");
                command::run(&mut root.script(FETCH, &[release, &stock, &source]))?;
                has_rust(root, &format!("{stock}/usr/lib/modules/{release}/config"))
            })?;
            fs::write(&chosen, release)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: &str = "7.10.1+deb13-amd64\n7.3.4+deb13-amd64\n6.12.9+deb13-amd64\n";

    #[test]
    fn a_kernel_that_is_gone_is_replaced_by_the_newest_that_fits() {
        let choose = |wanted| {
            let mut tried = Vec::new();
            let chosen = choose(THERE, wanted, |release| {
                tried.push(release.to_owned());
                Ok(release.starts_with("7.3"))
            });
            (chosen.map_err(|error| error.to_string()), tried.len())
        };
        assert_eq!(choose("7.3.4+deb13-amd64"), (Ok("7.3.4+deb13-amd64"), 1));
        assert_eq!(choose("7.2.8+deb13-amd64"), (Ok("7.3.4+deb13-amd64"), 2));
        let (none, _) = choose("7.10.1+deb13-amd64");
        assert!(none.unwrap_err().contains("without CONFIG_RUST"));
    }

    #[test]
    fn without_any_there_is_a_sentence() {
        let gone = choose("", "7.3.4", |_| Ok(true)).unwrap_err().to_string();
        assert!(gone.contains("is it in apt's sources?"), "{gone}");
        let refused = choose(THERE, "7.3.5", |_| Ok(false)).unwrap_err().to_string();
        assert!(refused.contains("CONFIG_RUST"), "{refused}");
    }
}
