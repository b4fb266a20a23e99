# SPDX-License-Identifier: MIT OR Apache-2.0
# The lab itself, with stock drivers at both ends: if this fails, the lab is broken and no other scenario says anything.
#
# limit: 150
# reports: lab-stock-block-dom0 lab-stock-block-domu lab-stock-block-attach lab-stock-block-verify
# reports: lab-stock-block-detach lab-stock-block-qemu lab-stock-block-destroy

dom0() {
    grep -q control_d /proc/xen/capabilities
    must modprobe xen-blkback
    expect_eq "this domain" "$(xl domname 0)" Domain-0
}

domu() {
    domu_start d1 xen-blkfront
    expect_eq "an output" "$(domu_run d1 'echo one; echo two')" "$(printf 'one\ntwo')"
    code=0; domu_run d1 'exit 7' || code=$?
    expect_eq "an exit code" $code 7
    expect_eq "a long output's length" "$(domu_run d1 'seq 5000' | wc -l)" 5000
}

attach() {
    device=$(disk_make one 128)
    disk_attach d1 xvda "$device"
    domu_must d1 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && echo kept >/mnt/file && umount /mnt'
    domu_must d1 'e2fsck -fn /dev/xvda'
}

verify() {
    domu_must d1 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --offset=64m --size=2m --verify=crc32c'
    domu_must d1 'mount -t ext4 /dev/xvda /mnt && [ "$(cat /mnt/file)" = kept ] && umount /mnt'
}

detach() {
    disk_detach d1 xvda
    domu_must d1 '[ ! -b /dev/xvda ]'
    disk_remove one
}

qemu() {
    qemu_start d1
    device=$(disk_make two 64)
    disk_attach d1 xvdb "$device" qdisk
    device=$(disk_make three 64)
    disk_attach d1 xvdc "$device" stock
    for disk in xvdb xvdc; do
        domu_must d1 "fio --name=v --filename=/dev/$disk --direct=1 --rw=write --bs=64k --size=2m --verify=crc32c"
    done
    disk_detach d1 xvdb
    disk_detach d1 xvdc
}

destroy() {
    domu_stop d1
    must rmmod xen_blkback
}

check lab-stock-block-dom0 dom0
check lab-stock-block-domu domu
check lab-stock-block-attach attach
check lab-stock-block-verify verify
check lab-stock-block-detach detach
check lab-stock-block-qemu qemu
check lab-stock-block-destroy destroy
