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

# disk_attach DOMU VDEV DEVICE [BACKEND] [OPTIONS...]: attaches a block device and waits until it is there in the DomU,
# connected. Options are xl-disk-configuration's, such as access=ro. BACKEND is
#   stock, ours   the kernel's driver or ours, also while both are loaded; without either, whichever is loaded
#   qdisk         QEMU (`qemu_start DOMU` first)
disk_attach() {
    disk_offer "$@"
    local front
    front=$(disk_front "$1" "$2")
    must await_value 20 "$front/state" 4
    domu_must "$1" "n=0; while [ ! -b /dev/$2 ]; do [ \$n -lt 200 ] || exit 1; n=\$((n + 1)); sleep 0.1; done"
}

# disk_offer: the same, without waiting for the DomU.
disk_offer() {
    local domu=$1 vdev=$2 device=$3 backend='' kind=''
    shift 3
    case ${1-} in stock | ours) backend=$1; shift ;; qdisk) kind=backendtype=qdisk; shift ;; esac
    [ -z "$backend" ] || disk_driver "$backend" "vbd-$(domu_id "$domu")-$(disk_number "$vdev")" &
    local binding=$!
    must xl block-attach "$domu" format=raw "vdev=$vdev" ${kind:+"$kind"} "$@" "target=$device"
    [ -z "$backend" ] || wait $binding || fail "no $backend backend took $vdev"
}

# disk_driver stock|ours DEVICE: gives a device of the bus that is about to appear to that driver, whichever is first on
# the bus. `xl block-attach` waits for the backend meanwhile.
disk_driver() {
    local bus=/sys/bus/xen-backend driver=vbd
    [ "$1" = stock ] || driver=$(disk_our_driver)
    [ -d "$bus/drivers/$driver" ] || return 1
    echo 0 >$bus/drivers_autoprobe
    local n=0
    until [ -e "$bus/devices/$2" ]; do
        [ $n -lt 300 ] || return 1
        n=$((n + 1))
        sleep 0.1
    done
    [ -e "$bus/devices/$2/driver" ] || echo "$2" >"$bus/drivers/$driver/bind"
    echo 1 >$bus/drivers_autoprobe
}

# The name of our backend on the bus.
disk_our_driver() {
    local name
    for name in /sys/bus/xen-backend/drivers/*causeway*; do echo "${name##*/}"; done
}

# qemu_start DOMU: a QEMU that serves the DomU's disks with backendtype=qdisk, as xl starts it for a DomU that is created
# with such a disk.
qemu_start() {
    local id
    id=$(domu_id "$1")
    must /usr/libexec/xen-qemu-system-i386 -xen-domid "$id" -xen-attach -name "$1" -nographic -M xenpv -daemonize \
        -monitor /dev/null -serial /dev/null -parallel /dev/null -nodefaults -no-user-config \
        -pidfile "/run/qemu-$1.pid"
    must await_value 30 "/local/domain/0/device-model/$id/state" running
    # By this node xl knows that a DomU has one, and ends it with the DomU.
    xenstore-write "/local/domain/$id/image/device-model-pid" "$(cat "/run/qemu-$1.pid")"
}

# disk_detach DOMU VDEV: and waits until both ends have let go.
disk_detach() {
    must xl block-detach "$1" "$2"
}

# disk_number VDEV: what xenstore calls it: 51712 for xvda.
disk_number() {
    local letter
    printf -v letter '%d' "'${1#xvd}"
    echo $(((202 << 8) + (letter - 97) * 16))
}

# disk_front DOMU VDEV, disk_back DOMU VDEV: its two folders in xenstore. Scenarios ask often, so no process is begun for
# the first.
disk_front() {
    local id
    read -r id <"/run/lab/$1.id" || fail "there is no DomU $1"
    echo -n "/local/domain/$id/device/vbd/"
    disk_number "$2"
}
disk_back() { xenstore-read "$(disk_front "$1" "$2")/backend"; }
