# SPDX-License-Identifier: MIT OR Apache-2.0
# Both of our drivers where Dom0 is itself a PVH domain: other hypercalls map its grants and its rings.
#
# limit: 200
# dom0: pvh
# reports: module-pvh-dom0-attach module-pvh-dom0-verify module-pvh-dom0-detach

attach() {
    expect_eq "Dom0's mode" "$(cat /sys/hypervisor/guest_type)" PVH
    must insmod /modules/causeway-blkback.ko
    domu_start d1 /modules/causeway-blkfront.ko
    disk_attach d1 xvda "$(disk_make one 32)"
}

# Grants mapped once and kept, and, with requests of many segments, indirect ones.
verify() {
    domu_must d1 "fio --filename=/dev/xvda --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 --size=2m \
        --name=small --rw=randwrite --bs=4k --iodepth=32 --name=large --stonewall --offset=8m --rw=write --bs=512k --iodepth=4"
    domu_must d1 'mke2fs -q -F -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && seq 100000 >/mnt/file && umount /mnt &&
        mount -t ext4 -o ro /dev/xvda /mnt && seq 100000 | cmp - /mnt/file && umount /mnt'
}

detach() {
    disk_detach d1 xvda
    domu_stop d1
    must rmmod causeway_blkback
}

check module-pvh-dom0-attach attach
check module-pvh-dom0-verify verify
check module-pvh-dom0-detach detach
