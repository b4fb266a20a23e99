#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# prepare-tree.sh HEADERS SOURCE TREE CC
#
# Makes TREE, against which modules in Rust are built, from the kernel's SOURCE and what its package of HEADERS says of
# how it was built. Nothing of the kernel itself is built.
set -eu

headers=$1 source=$2 tree=$3 cc=$4

rm -rf "$tree"
mkdir -p "$tree"
cp "$headers/.config" "$tree/.config"
make -s -C "$source" O="$tree" CC="$cc" olddefconfig

# The same tools make the same configuration. What the library for signing modules can do does not change a module.
other=$(diff "$headers/.config" "$tree/.config" | grep '^[<>]' | grep -v 'ML_*DSA' || true)
if [ -n "$other" ]; then
    echo "The kernel of $headers was configured with other tools than there are here:" >&2
    echo "$other" >&2
    exit 1
fi

make -s -C "$source" O="$tree" CC="$cc" -j"$(nproc)" prepare modules_prepare
for file in Module.symvers include/config/kernel.release include/generated/utsrelease.h; do
    cp "$headers/$file" "$tree/$file"
done
