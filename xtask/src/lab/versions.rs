// SPDX-License-Identifier: MIT OR Apache-2.0

//! The versions that the lab is made of, in one place.

/// The stock kernel: Debian's, from trixie-backports, where kernels move on. If the mirror no longer has this one, the
/// newest that can load Rust modules is taken (`kernel::choose`).
pub const KERNEL: &str = "7.3.4+deb13-amd64";

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
