// SPDX-License-Identifier: MIT OR Apache-2.0

//! The project's kernel modules: built for the stock kernel, linted, and searched for code that can panic.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{kernel::Kernel, root::Root};
use crate::command;

/// Copies modules ($2…) into a folder ($1), without what only a debugger reads: a machine's first root is unpacked at
/// every boot.
const STRIP: &str = r#"
    folder=$1
    shift
    mkdir -p "$folder"
    for module; do strip --strip-debug -o "$folder/${module##*/}" "$module"; done
"#;

/// Installs modules that were built ($2, for the kernel $3) below a folder ($1). There is no kernel in it, of which depmod
/// and `make` have something to say.
const INSTALL: &str = r#"
    said=$(make --silent INSTALL_MOD_PATH="$1" MO="$2" KDIR="$3" modules_install 2>&1) || { echo "$said" >&2; exit 1; }
"#;

/// Builds them and puts them into `folder`.
///
/// # Errors
///
/// When they do not compile.
pub fn build(root: &Root, kernel: &Kernel, folder: &Path) -> Result<()> {
    let _lock = lock()?;
    let built = make(root, kernel, "modules", &[])?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let mut words = vec![folder.display().to_string()];
    words.extend(built.iter().map(|module| module.display().to_string()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    command::prepare(&mut root.script(STRIP, &words))
}

/// Checks what the compiler does not: the kernel's lints, as errors, that no function of theirs can panic, and what the
/// top Makefile does for a person besides building.
///
/// # Errors
///
/// When a lint has something to say, a module refers to a function that panics, or is not where it was installed.
pub fn check(root: &Root, kernel: &Kernel) -> Result<()> {
    let _lock = lock()?;
    make(root, kernel, "clippy", &["CLIPPY=1"]).context("clippy")?;
    for module in make(root, kernel, "modules", &[])? {
        let listing =
            command::output(root.command("objdump").args(["-dr", "--demangle"]).arg(&module))?;
        let found = panicking(&listing);
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        ensure!(found.is_empty(), "{name} can panic:\n  {}", Vec::from_iter(found).join("\n  "));
    }
    install(root, kernel)?;
    explain(root)
}

/// `make modules_install`: where `modprobe` finds each module by its name and by its alias.
fn install(root: &Root, kernel: &Kernel) -> Result<()> {
    let to = command::workspace().join("target/modules-installed");
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    let to = to.display().to_string();
    let out = command::workspace().join("target/modules").display().to_string();
    command::prepare(&mut root.script(INSTALL, &[&to, &out, &kernel.kit]))?;
    for (name, module) in [
        ("causeway-blkback", "/causeway-blkback.ko"),
        ("xen-backend:vbd", "/causeway-blkback.ko"),
        ("causeway-blkfront", "/causeway-blkfront.ko"),
        ("xen:vbd", "/causeway-blkfront.ko"),
    ] {
        let mut modprobe = root.command("modprobe");
        modprobe.args(["--show-depends", "-d", &to, "-S", &kernel.release, name]);
        let found = command::output(&mut modprobe)?;
        ensure!(found.contains(module), "modprobe takes {name} for {found:?}");
    }
    Ok(())
}

/// `make` without a kernel that Rust modules can be built for says so in a sentence.
fn explain(root: &Root) -> Result<()> {
    let nowhere = command::workspace().join("target/no-kernel");
    if nowhere.exists() {
        fs::remove_dir_all(&nowhere)?;
    }
    fs::create_dir_all(nowhere.join("rust"))?;
    let says = |words: &[&str], sentence: &str| {
        let mut make = root.command("make");
        let output = make.arg("--silent").args(words).output()?;
        ensure!(!output.status.success(), "`make` built modules for nothing");
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(sentence), "`make` is to say `{sentence}`, and says: {said}");
        Ok(())
    };
    says(&["KVER=0.0-none"], "There is no kernel tree at /lib/modules/0.0-none/build")?;

    let kdir = format!("KDIR={}", nowhere.display());
    let says_of = |config: &str, words: &[&str], sentence: &str| {
        fs::write(nowhere.join(".config"), config)?;
        says(&[&[kdir.as_str()], words].concat(), sentence)
    };
    says_of("CONFIG_XEN=y\n", &[], "was built without Rust")?;
    says_of("CONFIG_RUST=y\n", &[], "lacks the Rust metadata")?;

    fs::write(nowhere.join("rust/libkernel.rmeta"), "")?;
    let gcc = "CONFIG_RUST=y\nCONFIG_CC_VERSION_TEXT=\"none-gcc (None 14.2) 14.2\"\nCONFIG_CLANG_VERSION=0\n";
    let clang = "CONFIG_RUST=y\nCONFIG_CC_VERSION_TEXT=\"None clang version 99.1.7\"\nCONFIG_CLANG_VERSION=990107\n";
    for (config, words, compiler) in [
        (gcc, &[][..], "none-gcc"),
        (clang, &[], "clang-99"),
        (clang, &["LLVM=-98"], "clang-98"),
        (clang, &["LLVM=/none/"], "/none/clang"),
        (clang, &["LLVM=-19", "CC=none-clang"], "none-clang"),
    ] {
        let sentence = format!("was built with {compiler}, which is not installed");
        says_of(config, words, &sentence)?;
    }
    Ok(())
}

/// The kernel's build does not expect another one in its folder.
fn lock() -> Result<fs::File> {
    command::lock(&command::workspace().join("target/modules.lock"))
}

/// Runs the top Makefile, with its output in `target/NAME` (`target/NAME-debug` for the debug kernel); the modules that
/// it made.
fn make(root: &Root, kernel: &Kernel, name: &str, words: &[&str]) -> Result<Vec<PathBuf>> {
    let out = command::workspace().join("target").join(format!("{name}{}", kernel.suffix()));
    let mut make = root.command("make");
    make.args(["--silent", &format!("KDIR={}", kernel.kit), &format!("MO={}", out.display())]);
    make.arg("CONFIG_CAUSEWAY_SELFTEST=m");
    make.args(kernel.debug.iter().flat_map(|debug| debug.make));
    command::prepare(make.args(words))?;
    let order = fs::read_to_string(out.join("modules.order"))?;
    let modules = order.lines().map(|object| out.join(object).with_extension("ko")).collect();
    Ok(modules)
}

/// `FUNCTION: WHAT IT CALLS`, for each call of a function of `core` that panics.
///
/// The listing is objdump's: a line `0000… <function>:` begins a function, and a relocation stands below the
/// instruction that it belongs to.
fn panicking(listing: &str) -> BTreeSet<String> {
    let panics = [
        "core::panicking::",
        "::unwrap_failed",
        "::expect_failed",
        "core::slice::index::",
        "core::str::slice_error",
    ];
    let mut function = "";
    let mut found = BTreeSet::new();
    for line in listing.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once('<')) {
            function = name;
        } else if let Some((_, symbol)) = line.split_once("R_X86_64_")
            && let Some(symbol) = symbol.split_whitespace().nth(1)
            && panics.iter().any(|panic| symbol.contains(panic))
        {
            let symbol = symbol.rsplit_once("-0x").map_or(symbol, |(symbol, _)| symbol);
            found.insert(format!("{function}: {symbol}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The values of a key of dkms.conf: one, or those of an array in their order.
    fn values<'a>(conf: &'a str, key: &str) -> Vec<&'a str> {
        let value = |line: &'a str| {
            let (its, value) = line.split_once('=')?;
            (its.split('[').next() == Some(key)).then(|| value.trim_matches('"'))
        };
        conf.lines().filter_map(value).collect()
    }

    #[test]
    fn dkms_installs_what_is_built() {
        let read = |name: &str| fs::read_to_string(command::workspace().join(name)).unwrap();
        let (conf, kbuild, makefile) = (read("dkms.conf"), read("Kbuild"), read("Makefile"));
        let objects = kbuild.lines().find_map(|line| line.strip_prefix("obj-m := ")).unwrap();
        let modules: Vec<_> =
            objects.split(' ').map(|object| object.strip_suffix(".o").unwrap()).collect();
        assert_eq!(values(&conf, "BUILT_MODULE_NAME"), modules);
        assert_eq!(values(&conf, "DEST_MODULE_LOCATION").len(), modules.len());
        for location in values(&conf, "BUILT_MODULE_LOCATION") {
            assert!(makefile.contains(&format!("\nMO ?= $(CURDIR)/{location}\n")), "{location}");
        }
        // That of the workspace.
        assert_eq!(values(&conf, "PACKAGE_VERSION"), [env!("CARGO_PKG_VERSION")]);
    }

    #[test]
    fn scripts_of_dkms_and_of_the_kit_can_be_started() {
        let is_script = |word: &&str| word.ends_with(".sh");
        let conf = fs::read_to_string(command::workspace().join("dkms.conf")).unwrap();
        let named = values(&conf, "PRE_BUILD").concat();
        let scripts: Vec<_> = named.split(' ').filter(is_script).collect();
        assert_eq!(scripts, ["linux-modules/make-kit.sh"]);
        for script in scripts.iter().chain(&["linux-modules/prepare-tree.sh"]) {
            let file = fs::metadata(command::workspace().join(script)).unwrap();
            assert_eq!(file.permissions().mode() & 0o111, 0o111, "{script}");
        }
    }

    #[test]
    fn a_call_of_a_panic_is_found_with_its_function() {
        let listing = "\
0000000000000010 <<blkback::queue::Queue>::run>:
  10:	e8 00 00 00 00       	call   15 <x>
			11: R_X86_64_PLT32	core::panicking::panic_bounds_check-0x4
  15:	e8 00 00 00 00       	call   1a <x>
			16: R_X86_64_PLT32	ring_proto::ring::back::take-0x4

0000000000000020 <harmless>:
  20:	e8 00 00 00 00       	call   25 <x>
			21: R_X86_64_PC32	.rodata+0x3c
";
        let found = panicking(listing);
        let wanted = "<blkback::queue::Queue>::run: core::panicking::panic_bounds_check";
        assert_eq!(Vec::from_iter(found), [wanted]);
    }
}
