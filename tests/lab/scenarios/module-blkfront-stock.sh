# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront with Linux' own backend: disks appear under their names and numbers; one holds a filesystem and verified data,
# is flushed, discarded and resized, goes and comes again.
#
# limit: 240
# reports: module-blkfront-stock-attach module-blkfront-stock-keys module-blkfront-stock-names
# reports: module-blkfront-stock-filesystem module-blkfront-stock-verify module-blkfront-stock-discard
# reports: module-blkfront-stock-resize module-blkfront-stock-detach module-blkfront-stock-again
# reports: module-blkfront-stock-unload

ours=/modules/causeway-blkfront.ko

attach() {
    must modprobe xen-blkback
    domu_start d1 $ours
    disk_attach d1 xvda "$(disk_make one 128)"
    must await_value 10 "$(disk_front d1 xvda)/state" 4
    domu_must d1 'for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/xvda ] && exit 0; sleep 0.3; done; exit 1'
    expect_eq "sectors" "$(domu_run d1 'cat /sys/block/xvda/size')" 262144
}

# What the stock frontend writes, too: `xl block-list` shows it.
keys() {
    front=$(disk_front d1 xvda)
    expect_eq "protocol" "$(xenstore-read "$front/protocol")" x86_64-abi
    expect_eq "feature-persistent" "$(xenstore-read "$front/feature-persistent")" 1
    must xenstore-read "$front/ring-ref" "$front/event-channel"
    xl block-list d1 | grep -q " 4 "
    domu_must d1 'grep -q "^queue 0: Connected, 0 wait, slots [0-9]*, req_prod .*, port [0-9]*$" /sys/kernel/debug/causeway-blkfront/vbd-51712'
}

# Numbers as Linux' own frontend gives them: names of other buses become xvd, and what lies beyond xvdp is numbered anew.
names() {
    expect_eq "numbers of xvda" "$(domu_run d1 'cat /sys/block/xvda/dev')" 202:0
    # A partition of 8 sectors.
    truncate -s 8M /disks/xvdq
    printf '\0\0\0\0\x83\0\0\0\x08\0\0\0\x08\0\0\0' | dd of=/disks/xvdq bs=1 seek=446 conv=notrunc status=none
    printf '\x55\xaa' | dd of=/disks/xvdq bs=1 seek=510 conv=notrunc status=none
    for vdev in xvdq hdc sdb1 xvdaa; do disk_offer d1 $vdev "$(disk_make $vdev 8)"; done
    for name in xvdq xvdc xvdb1 xvdaa; do
        domu_must d1 "for i in \$(seq 50); do [ -b /dev/$name ] && exit 0; sleep 0.2; done; ls /dev/xvd*; exit 1"
    done
    expect_eq "numbers of xvdq" "$(domu_run d1 'cat /sys/block/xvdq/dev')" 202:4096
    expect_eq "numbers of its partition" "$(domu_run d1 'cat /sys/block/xvdq/xvdq1/dev')" 202:4097
    expect_eq "numbers of xvdaa" "$(domu_run d1 'cat /sys/block/xvdaa/dev')" 202:6656
    expect_eq "numbers of hdc" "$(domu_run d1 'cat /sys/block/xvdc/dev')" 202:32
    expect_eq "numbers of sdb1" "$(domu_run d1 'cat /sys/block/xvdb1/dev')" 202:17
    for vdev in xvdq hdc sdb1 xvdaa; do must xl block-detach d1 $vdev; done
}

filesystem() {
    domu_must d1 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && echo kept >/mnt/file && sync && umount /mnt'
    domu_must d1 'e2fsck -fn /dev/xvda && mount -t ext4 /dev/xvda /mnt && [ "$(cat /mnt/file)" = kept ] && umount /mnt'
}

verify() {
    for job in '--rw=randwrite --bs=4k --iodepth=1' '--rw=randwrite --bs=4k --iodepth=32' \
        '--rw=write --bs=128k --iodepth=8' '--rw=randwrite --bsrange=512-256k --iodepth=16'; do
        domu_must d1 "fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio $job --offset=64m --size=4m --verify=crc32c --fsync=64"
    done
    domu_must d1 'dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null && dd if=/tmp/r of=/dev/xvda bs=1M seek=100 conv=fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches && dd if=/dev/xvda bs=1M skip=100 count=8 2>/dev/null | cmp - /tmp/r'
}

discard() {
    domu_must d1 'blkdiscard -o 104857600 -l 8388608 /dev/xvda && echo 3 >/proc/sys/vm/drop_caches && dd if=/dev/xvda bs=1M skip=100 count=8 2>/dev/null | cmp -n 8388608 - /dev/zero'
    domu_must d1 '[ "$(cat /sys/block/xvda/queue/write_cache)" = "write back" ]'
}

# A disk grows and shrinks, and whoever listens is told.
resize() {
    resize_to 192
    domu_must d1 'dmesg | grep "xvda: detected capacity change from 262144 to 393216"'
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=1M skip=191 count=1 iflag=direct'
    resize_to 96
    must_fail domu_run d1 'dd if=/dev/xvda of=/dev/null bs=1M skip=191 count=1 iflag=direct | grep .'
    resize_to 192
}

# The backend notices a new size when it serves a request.
resize_to() {
    truncate -s "$1M" /disks/one
    must losetup -c "$(losetup -j /disks/one | cut -d: -f1)"
    domu_must d1 "for i in \$(seq 10); do dd if=/dev/xvda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
        [ \$(cat /sys/block/xvda/size) = $(($1 << 11)) ] && exit 0; sleep 0.5; done; cat /sys/block/xvda/size; exit 1"
}

detach() {
    disk_detach d1 xvda
    domu_must d1 '[ ! -b /dev/xvda ]'
}

again() {
    for round in 1 2 3; do
        disk_attach d1 xvda "$(losetup -j /disks/one | cut -d: -f1)"
        must await_value 10 "$(disk_front d1 xvda)/state" 4
        domu_must d1 'for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/xvda ] && break; sleep 0.3; done; dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null'
        disk_detach d1 xvda
    done
}

unload() {
    domu_must d1 'rmmod causeway_blkfront'
    domu_must d1 '! dmesg | grep -E "BUG|WARNING|Oops|Call Trace"'
    domu_stop d1
    must rmmod xen_blkback
}

check module-blkfront-stock-attach attach
check module-blkfront-stock-keys keys
check module-blkfront-stock-names names
check module-blkfront-stock-filesystem filesystem
check module-blkfront-stock-verify verify
check module-blkfront-stock-discard discard
check module-blkfront-stock-resize resize
check module-blkfront-stock-detach detach
check module-blkfront-stock-again again
check module-blkfront-stock-unload unload
