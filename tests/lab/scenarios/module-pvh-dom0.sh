# SPDX-License-Identifier: MIT OR Apache-2.0
# Our drivers and the backend in user space where Dom0 is itself a PVH domain: other hypercalls map its grants and its
# rings, and direct I/O is done on pages of the guest.
#
# limit: 200
# dom0: pvh
# reports: module-pvh-dom0-attach module-pvh-dom0-verify module-pvh-dom0-uring module-pvh-dom0-detach

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

# It is killed amid writes, and the next one goes on with the pages that are still under way.
uring() {
    local loop
    loop=$(disk_make two 64)
    uring_start
    uring_attach d1 xvdb "$loop"
    must await_value 20 "$(disk_front d1 xvdb)/state" 4
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvdb ] && exit 0; sleep 0.2; done; exit 1'
    domu_spawn d1 writes 'while :; do fio --name=v --filename=/dev/xvdb --allow_file_create=0 --direct=1 --ioengine=libaio \
        --rw=randwrite --bsrange=4k-64k --iodepth=16 --size=16m --verify=crc32c --verify_fatal=1 --randrepeat=0 || exit
        [ ! -e /run/enough ] || exit 0; done'
    for _ in 1 2 3; do
        within 20 written 200
        uring_end KILL
        uring_start
    done
    within 20 written 200
    domu_must d1 'touch /run/enough'
    domu_join d1 writes 60 >/dev/null
    expect_eq "pages copied" "$(uring_stat copied_pages)" 0
    grep 'goes on, with [1-9]' /run/uring.log
    must_fail grep ERROR /run/uring.log
    disk_detach d1 xvdb
    uring_end TERM
    disk_remove two
}

# written COUNT: whether this backend has done so many writes.
written() { [ "$(uring_stat writes)" -ge "$1" ]; }

detach() {
    disk_detach d1 xvda
    domu_stop d1
    must rmmod causeway_blkback
}

check module-pvh-dom0-attach attach
check module-pvh-dom0-verify verify
check module-pvh-dom0-uring uring
check module-pvh-dom0-detach detach
