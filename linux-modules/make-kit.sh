#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make-kit.sh RELEASE FOLDER
#
# Makes the kernel tree against which modules in Rust are built for an installed kernel of Debian: FOLDER/build.
#
# Debian's kernels run such modules, but the headers package lacks what the compiler needs to build them: the metadata
# of the kernel's own crates and its macros. They are made here from the source package of the same version with the
# same configuration and compiler.
set -eu

release=$1 folder=$2
headers=/usr/src/linux-headers-$release
series=$(echo "$release" | cut -d. -f1,2)
archive=/usr/src/linux-source-$series.tar.xz
build=$folder/build

fail() {
    echo "$*" >&2
    exit 1
}

version() {
    dpkg-query -W -f '${Version}' "$1" 2>/dev/null || true
}

[ -e "$headers/.config" ] ||
    fail "The headers of the kernel $release are not installed: apt install linux-headers-$release"
grep -q '^CONFIG_RUST=y' "$headers/.config" ||
    fail "The kernel $release was built without Rust: on Debian 13 take the one of trixie-backports."
if [ -e "$folder/complete" ] && [ "$(cat "$folder/complete")" = "$(version "linux-headers-$release")" ]; then
    exit 0
fi
[ -e "$archive" ] ||
    fail "The source of the kernel $release is not installed: apt install linux-source-$series/trixie-backports"
[ "$(version "linux-source-$series")" = "$(version "linux-headers-$release")" ] ||
    fail "linux-source-$series is version $(version "linux-source-$series"), but the kernel $release is version" \
        "$(version "linux-headers-$release"): install and boot the newest kernel, then try again."

cc=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\).*/\1/p' "$headers/.config")
rustc=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(rustc [^ ]*\).*/\1/p' "$headers/.config")
missing=
for program in "$cc" rustc bindgen rustfmt make flex bison bc perl python3 xz pahole; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || fail "Not installed:$missing. docs/src/debian-13.md lists the packages."
case $(rustc --version) in
"$rustc "*) ;;
*) fail "The kernel $release was built with $rustc, and here is $(rustc --version): a module must be built with the same." ;;
esac

echo "Making the kit for the kernel $release in $folder: some minutes, 2 GB."
rm -rf "$folder"
mkdir -p "$folder/source"
tar -xJf "$archive" -C "$folder/source" --strip-components=1
"$(dirname "$0")/prepare-tree.sh" "$headers" "$folder/source" "$build" "$cc"
version "linux-headers-$release" >"$folder/complete"
echo "Made $folder. Now: make"
