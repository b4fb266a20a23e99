// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stock kernel, and what its own packages lack to build Rust modules for it: the kit.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{root::Root, stamp::Stamp};
use crate::{command, versions};

/// Prints all kernels there are of a kind ($1), the newest first. Who is not root takes apt's lists as they are.
const LIST: &str = r#"
    [ "$(id -u)" != 0 ] || apt-get -qq update
    apt-cache pkgnames linux-headers- | sed -n "s/^linux-headers-\\([0-9.]*$1\\)\$/\\1/p" | sort -rV
"#;

/// Fetches and unpacks the stock kernel and its source, all of one version: $1 its release, $2 and $3 where to. A series
/// has one name of a source package for all its releases.
const FETCH: &str = r#"
    release=$1 stock=$2 source=$3
    series=$(cut -d. -f1,2 <<<"$release")
    rm -rf "$stock" "$source"
    mkdir -p "$stock" "$source"
    cd "$(mktemp -d)"
    version=$(apt-cache show --no-all-versions "linux-headers-$release" | sed -n 's/^Version: //p')
    packages="linux-source-$series=$version"
    for part in headers base binary modules; do packages+=" linux-$part-$release=$version"; done
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

/// The kernel to take: the one `wanted` if it is `there`, or else the first of these that can be taken; `take` fetches a
/// kernel and fails if it is of no use here.
fn choose<'a>(
    there: &'a str,
    wanted: &'a str,
    mut take: impl FnMut(&str) -> Result<()>,
) -> Result<&'a str> {
    if there.lines().any(|release| release == wanted) {
        take(wanted).with_context(|| format!("the kernel {wanted}"))?;
        return Ok(wanted);
    }
    eprintln!("the kernel {wanted} is gone; taking the newest that can load Rust modules");
    let mut refused = Vec::new();
    for release in there.lines() {
        match take(release) {
            Ok(()) => return Ok(release),
            Err(why) => refused.push(format!("{release}: {why:#}")),
        }
    }
    let backports = format!("{}-backports", versions::SUITE);
    ensure!(!refused.is_empty(), "there is no kernel of {backports}: is it in apt's sources?");
    bail!("{backports} has no kernel for modules in Rust; {}", refused.join("; "))
}

/// Fails if no modules in Rust can be built here for a kernel of this configuration. It names its compilers in the words
/// of their own `--version`, of which `prepare-tree.sh` wants each.
fn fits(config: &str, rustc: &str, cc: &str) -> Result<()> {
    let value = |name: &str| {
        let values = config.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.map(|value| value.trim_matches('"')).next().unwrap_or_default()
    };
    ensure!(value("CONFIG_RUST") == "y", "it was built without CONFIG_RUST");
    for (name, here) in [("CONFIG_RUSTC_VERSION_TEXT", rustc), ("CONFIG_CC_VERSION_TEXT", cc)] {
        let its = value(name);
        ensure!(its == here, "it was built by `{its}`, and here is `{here}`");
    }
    Ok(())
}

/// The first line that a compiler says of itself.
fn version(root: &Root, compiler: &str) -> Result<String> {
    let said = command::output(root.command(compiler).arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
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
            let (rustc, cc) = (version(root, "rustc")?, version(root, versions::CC)?);
            let release = choose(&there, versions::KERNEL, |release| {
                eprintln!("fetching the stock kernel {release} and its source");
                command::prepare(&mut root.script(FETCH, &[release, &stock, &source]))?;
                let config = root.outside(&format!("{stock}/usr/lib/modules/{release}/config"));
                fits(&fs::read_to_string(config)?, &rustc, &cc)
            })?;
            fs::write(&chosen, release)?;
            fetched.set()?;
        }
        let kernel = Self { release: fs::read_to_string(&chosen)?, stock, kit, debug: None };
        let made = Stamp::new("kit", format!("{} {}", kernel.release, versions::CC));
        if !made.is_current() {
            eprintln!("making the kit for modules of {} (about 4 minutes)", kernel.release);
            let headers = format!("{}/usr/src/linux-headers-{}", kernel.stock, kernel.release);
            let script = command::workspace().join("linux-modules/prepare-tree.sh");
            let mut prepare = root.command(&script.display().to_string());
            command::prepare(prepare.args([&headers, &source, &kernel.kit]).arg(versions::CC))
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
        command::prepare(&mut root.script(script, &words.each_ref().map(String::as_str)))
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
                ensure!(release.starts_with("7.3"), "no download of {release}");
                Ok(())
            });
            (chosen.map_err(|error| format!("{error:#}")), tried.len())
        };
        assert_eq!(choose("7.3.4+deb13-amd64"), (Ok("7.3.4+deb13-amd64"), 1));
        assert_eq!(choose("7.2.8+deb13-amd64"), (Ok("7.3.4+deb13-amd64"), 2));
        // One that is there is not replaced, whatever is wrong with it.
        let (none, tried) = choose("7.10.1+deb13-amd64");
        assert_eq!(tried, 1);
        assert!(none.unwrap_err().contains("no download of 7.10.1"));
    }

    #[test]
    fn without_any_there_is_a_sentence() {
        let gone = choose("", "7.3.4", |_| Ok(())).unwrap_err().to_string();
        assert!(gone.contains("is it in apt's sources?"), "{gone}");
        let refused = choose(THERE, "7.3.5", |release| bail!("nothing in {release}")).unwrap_err();
        for release in THERE.lines() {
            let why = format!("{release}: nothing in {release}");
            assert!(refused.to_string().contains(&why), "{refused}");
        }
    }

    #[test]
    fn a_kernel_of_other_compilers_does_not_fit() {
        let (rustc, cc) =
            ("rustc 1.85.1 (4eb161250)", "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19)");
        let config = format!(
            "CONFIG_CC_VERSION_TEXT=\"{cc}\"\nCONFIG_RUSTC_VERSION=108501\nCONFIG_RUST=y\n\
             CONFIG_RUSTC_VERSION_TEXT=\"{rustc}\"\n"
        );
        let refused = |from, to| {
            let other = config.replace(from, to);
            assert_ne!(other, config);
            fits(&other, rustc, cc).unwrap_err().to_string()
        };
        fits(&config, rustc, cc).unwrap();
        assert!(refused("_RUST=y", "_RUSTY=y").contains("without CONFIG_RUST"));
        assert!(refused("1.85.1", "1.90.0").contains("built by `rustc 1.90.0"));
        assert!(refused("14.2.0-19", "14.2.0-20").contains("here is `x86_64-linux-gnu-gcc-14"));
        assert!(refused("CONFIG_RUSTC_VERSION_TEXT", "CONFIG_NONE").contains("built by ``"));
    }
}
