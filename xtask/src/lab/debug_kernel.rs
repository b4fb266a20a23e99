// SPDX-License-Identifier: MIT OR Apache-2.0

//! The debug kernel: of the stock kernel's source, small, with the checks that find what a driver does wrong without
//! dying of it: KASAN, UBSAN, lockdep, kmemleak and others.

use std::fs;

use anyhow::{Context, Result};

use super::kernel::{Debug, Kernel};
use super::{root::Root, stamp::Stamp};
use crate::{command, versions};

/// Words of `make` for the kernel itself, beyond those for its compiler. These files run in a PVH domain before KASAN
/// has its shadow; Linux starts it too late for them, and never in a PV domain.
const WITHOUT_KASAN: &[&str] = &[
    "KASAN_SANITIZE_common.o=n",
    "KASAN_SANITIZE_cpu.o=n",
    "KASAN_SANITIZE_cpuid_parser.o=n",
    "KASAN_SANITIZE_enlighten.o=n",
    "KASAN_SANITIZE_enlighten_pvh.o=n",
    "KASAN_SANITIZE_static_call.o=n",
    "KASAN_SANITIZE_string.o=n",
    "KASAN_SANITIZE_vga.o=n",
];

/// What `tests/lab/debug-kernel.config` makes a module; all else of it is in the kernel.
const MODULES: &[&str] = &["dm-delay", "dm-mod", "xen-blkback", "xen-blkfront"];

/// Builds it: $1 the configuration, $2 the source, $3 the output, $4 where it and its modules go, $5… words of `make`.
/// What was built before stays.
const BUILD: &str = r#"
    fragment=$1 source=$2 out=$3 installed=$4
    shift 4
    mkdir -p "$out"
    KCONFIG_ALLCONFIG=$fragment make -s -C "$source" O="$out" "$@" allnoconfig
    # What depends on something else that is off is left out without a word.
    grep '^CONFIG_' "$fragment" | while read -r line; do
        case $line in
            *=n) ! grep "^${line%n}" "$out/.config" ;;
            *) grep -qxF "$line" "$out/.config" ;;
        esac || { echo "the configuration lost $line" >&2; exit 1; }
    done
    make -s -C "$source" O="$out" "$@" -j"$(nproc)" vmlinux modules
    rm -rf "$installed"
    mkdir -p "$installed/usr"
    ln -s usr/lib "$installed/lib"
    make -s -C "$source" O="$out" "$@" INSTALL_MOD_PATH="$installed/usr" INSTALL_MOD_STRIP=1 modules_install
    release=$(cat "$out/include/config/kernel.release")
    # As Debian's are.
    find "$installed" -name '*.ko' -exec xz --check=crc32 -1 {} +
    depmod -b "$installed" "$release"
    llvm-strip-19 --strip-all -o "$installed/usr/lib/modules/$release/vmlinux" "$out/vmlinux"
"#;

/// Builds it if it is not there, beside the stock kernel.
///
/// # Errors
///
/// When a package is missing, or it does not compile.
pub fn ensure(root: &Root, stock: &Kernel) -> Result<Kernel> {
    root.add("debug-kernel", versions::DEBUG_PACKAGES)?;
    let config = command::workspace().join("tests/lab/debug-kernel.config");
    let gntdev = command::workspace().join("tests/lab/debug-kernel-gntdev.h");
    let (out, installed) = (root.inside("debug"), root.inside("debug-installed"));
    let make = versions::DEBUG_MAKE;
    let inputs = format!(
        "{} {make:?} {WITHOUT_KASAN:?} {BUILD} {} {}",
        stock.release,
        fs::read_to_string(&config)?,
        fs::read_to_string(&gntdev)?,
    );
    let stamp = Stamp::new("debug-kernel", inputs);
    if !stamp.is_current() {
        eprintln!("building the debug kernel (about 40 minutes)");
        let (config, source) = (config.display().to_string(), root.inside("source"));
        let gntdev = format!("CFLAGS_gntdev.o=-include {}", gntdev.display());
        let words = [config.as_str(), &source, &out, &installed, &gntdev];
        let words = [&words, make, WITHOUT_KASAN].concat();
        command::prepare(&mut root.script(BUILD, &words))
            .context("the debug kernel could not be built")?;
    }
    let release = fs::read_to_string(root.outside(&out).join("include/config/kernel.release"))?;
    let kernel = Kernel {
        release: release.trim().to_owned(),
        stock: installed,
        kit: out,
        debug: Some(Debug { make, modules: MODULES }),
    };
    if !stamp.is_current() {
        // They have its modules.
        Stamp::new("images-debug", String::new()).clear();
        fs::copy(root.outside(&kernel.file("vmlinux")), kernel.image())?;
        stamp.set()?;
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tools_of_llvm_are_of_one_version() {
        let suffix = versions::DEBUG_MAKE[0].strip_prefix("LLVM=").unwrap();
        assert!(BUILD.contains(&format!(" llvm-strip{suffix} ")));
        assert_eq!(versions::DEBUG_MAKE[1], format!("CC=clang{suffix}"));
        for package in versions::DEBUG_PACKAGES {
            assert!(package.ends_with(suffix), "{package}");
        }
    }
}
