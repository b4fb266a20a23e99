# SPDX-License-Identifier: MIT OR Apache-2.0
# Disks: files in Dom0's memory, the loop devices on them, and the backends that serve them.

# disk_make NAME MIB [LOSETUP OPTIONS...]: an empty disk; prints its loop device. `--sector-size 4096` makes it 4Kn.
disk_make() {
    local name=$1 size=$2
    shift 2
    truncate -s "${size}M" "/disks/$name"
    losetup --find --show "$@" "/disks/$name"
}

# disk_remove NAME
disk_remove() {
    losetup -j "/disks/$1" | cut -d: -f1 | xargs -r losetup -d
    rm -f "/disks/$1"
}

# disk_attach DOMU VDEV DEVICE [OPTIONS...]: attaches a block device through whichever kernel backend is there.
# Options are xl-disk-configuration's, such as access=ro.
disk_attach() {
    local domu=$1 vdev=$2 device=$3
    shift 3
    must xl block-attach "$domu" "format=raw" "vdev=$vdev" "$@" "target=$device"
}

# disk_detach DOMU VDEV: and waits until both ends have let go.
disk_detach() {
    must xl block-detach "$1" "$2"
}

# disk_number VDEV: what xenstore calls it: 51712 for xvda.
disk_number() {
    local letter
    letter=$(printf '%d' "'${1#xvd}")
    echo $(((202 << 8) + (letter - 97) * 16))
}

# disk_front DOMU VDEV, disk_back DOMU VDEV: its two folders in xenstore.
disk_front() { echo "$(domu_path "$1")/device/vbd/$(disk_number "$2")"; }
disk_back() { xenstore-read "$(disk_front "$1" "$2")/backend"; }
