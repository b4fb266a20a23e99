// SPDX-License-Identifier: MIT OR Apache-2.0

//! The versions of what all is built with and the lab is made of.

/// Debian 13's code name.
pub const SUITE: &str = "trixie";

/// The compiler's version in Debian 13, and in the configuration of its kernels (`CONFIG_RUSTC_VERSION_TEXT`).
pub const RUSTC: &str = "1.85.1";

/// The stock kernel: Debian's, from trixie-backports, where kernels move on. If the mirror no longer has this one, the
/// newest of its kind that can load Rust modules is taken.
pub const KERNEL: &str = "7.3.4+deb13-amd64";

/// What the names of kernels of its kind end with.
pub const KERNEL_KIND: &str = "+deb13-amd64";

/// The hypervisor.
pub const XEN: &str = "4.20";

/// What builds the kernel is what has to build its modules: `CONFIG_CC_VERSION_TEXT`.
pub const CC: &str = "x86_64-linux-gnu-gcc-14";

/// Packages of Debian 13 that build kernel modules.
pub const BUILD_PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "cpio",
    "flex",
    "gcc-14",
    "kmod",
    "libc6-dev",
    "libclang-19-dev",
    "libdw-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "pahole",
    "perl",
    "python3",
    "rsync",
    "rust-clippy",
    "rust-src",
    "rustc",
    "rustfmt",
    "xz-utils",
    "zstd",
];

/// Packages of Debian 13 that build the debug kernel: gcc and rustc do not agree on the checks of addresses.
pub const DEBUG_PACKAGES: &[&str] = &["clang-19", "lld-19", "llvm-19"];

/// What `make` is told of them.
pub const DEBUG_MAKE: &[&str] = &["LLVM=-19", "CC=clang-19"];

/// Packages of Debian 13 that run in the lab, or run it.
pub const LAB_PACKAGES: &[&str] = &[
    "bash",
    "bridge-utils",
    "busybox-static",
    "dmsetup",
    "e2fsprogs",
    "fio",
    "iperf3",
    "iproute2",
    "procps",
    "qemu-system-x86",
    "qemu-system-xen",
    "util-linux",
    "xen-hypervisor-4.20-amd64",
    "xen-utils-4.20",
    "xenstore-utils",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::workspace;

    #[test]
    fn what_cannot_ask_here_says_the_same() {
        let (rust, _) = RUSTC.rsplit_once('.').unwrap();
        for (file, text) in [
            ("ring-proto/Cargo.toml", format!("\nrust-version = \"{RUSTC}\"\n")),
            ("ring-proto/fuzz/Cargo.toml", format!("\nrust-version = \"{RUSTC}\"\n")),
            ("Kbuild", format!("--rust-target {rust} ")),
            ("docs/src/debian-13.md", format!("`rustc` {RUSTC} ")),
        ] {
            let its = std::fs::read_to_string(workspace().join(file)).unwrap();
            assert!(its.contains(&text), "{file} does not say {text:?}");
        }
        for package in ["xen-hypervisor-{}-amd64", "xen-utils-{}"] {
            let package = package.replace("{}", XEN);
            assert!(LAB_PACKAGES.contains(&package.as_str()), "no {package}");
        }
        assert!(BUILD_PACKAGES.iter().any(|package| CC.ends_with(&format!("-{package}"))));
    }
}
