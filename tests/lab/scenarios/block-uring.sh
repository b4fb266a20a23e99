# SPDX-License-Identifier: MIT OR Apache-2.0
# The backend in user space serves disks of a stock blkfront: files and block devices, by xl's own commands, with the
# kernel's backend and without it, over its own end and that of its guest, by two queues to a DomU of two processors, and
# to our blkfront with other rings and segments.
#
# limit: 360
# reports: block-uring-create
# reports: block-uring-attach block-uring-beside block-uring-filesystem block-uring-verify block-uring-steady
# reports: block-uring-discard block-uring-resize block-uring-device block-uring-secure block-uring-again block-uring-unplug
# reports: block-uring-restarted block-uring-killed block-uring-destroyed block-uring-queues block-uring-modes
# reports: block-uring-end

mib=$((1 << 20))

# Disks that a domain has from its beginning: one that names the backend and the script, and, as the kernel has no
# backend yet, one that names the script alone.
create() {
    local disk front
    truncate -s 16M /disks/first /disks/second
    uring_start
    disk='"format=raw,vdev=xvda,backendtype=tap,script=block-causeway,target=/disks/first"'
    disk+=', "format=raw,vdev=xvdb,script=block-causeway,target=/disks/second"'
    domu_start d0 "disk=[$disk]" xen-blkfront
    for disk in xvda xvdb; do
        front=$(disk_front d0 $disk)
        must await_value 20 "$front/state" 4
        domu_must d0 "fio --name=v --filename=/dev/$disk --allow_file_create=0 --direct=1 --rw=randwrite --bs=4k --size=256k --verify=crc32c"
    done
    must grep -q "/backend/vbd3/" <<<"$(xenstore-read "$(disk_front d0 xvda)/backend")"
    must grep -q "/backend/vbd/" <<<"$(xenstore-read "$(disk_front d0 xvdb)/backend")"
    domu_stop d0
    within 10 no_disk
    rm /disks/first /disks/second
}

# What the backend has open of /disks.
no_disk() { ! ls -l "/proc/$(cat /run/uring.pid)/fd" | grep -q /disks/; }

attach() {
    must modprobe xen-blkback
    truncate -s 96M /disks/one
    domu_start d1
    domu_must d1 'modprobe xen-blkfront max_ring_page_order=2'
    grants_of "$(domu_id d1)" >/run/lab/grants
    uring_attach d1 xvda /disks/one
    front=$(disk_front d1 xvda)
    must await_value 20 "$front/state" 4
    domu_must d1 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    must grep -q "/backend/vbd3/" <<<"$(xenstore-read "$front/backend")"
    for key in max-ring-page-order=4 feature-max-indirect-segments=256 feature-persistent=1 feature-flush-cache=1 \
        feature-barrier=1 feature-discard=1 multi-queue-max-queues=4 sectors=196608 sector-size=512; do
        expect_eq "${key%=*}" "$(xenstore-read "$(disk_back d1 xvda)/${key%=*}")" "${key#*=}"
    done
    expect_eq "the ring's order" "$(xenstore-read "$front/ring-page-order")" 2
    expect_eq "feature-persistent" "$(xenstore-read "$front/feature-persistent")" 1
    expect_eq "the number of segments" "$(domu_run d1 'cat /sys/block/xvda/queue/max_segments')" 32
    xl block-list d1 | grep -q "^51712 .*/backend/vbd3/"
}

# A stock disk of the same guest is none of its business.
beside() {
    device=$(disk_make stock 16)
    disk_attach d1 xvdc "$device"
    must await_value 20 "$(disk_front d1 xvdc)/state" 4
    domu_must d1 'fio --name=v --filename=/dev/xvdc --direct=1 --rw=randwrite --bs=4k --size=1m --verify=crc32c'
    must_fail grep -q "vbd $(domu_id d1)/51744" /run/uring.log
    disk_detach d1 xvdc
    disk_remove stock
}

filesystem() {
    domu_must d1 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt'
    domu_must d1 'head -c 8m /dev/urandom >/run/copy && cp /run/copy /mnt/file && umount /mnt'
    domu_must d1 'e2fsck -fn /dev/xvda && mount -t ext4 /dev/xvda /mnt'
    domu_must d1 'cmp /mnt/file /run/copy && umount /mnt'
}

verify() {
    domu_limit=120
    local fio='fio --filename=/dev/xvda --direct=1 --ioengine=libaio --verify=crc32c --offset=48m --size=2m'
    domu_must d1 "$fio --name=a --rw=randwrite --bs=4k --iodepth=32 --fsync=32"
    domu_must d1 "$fio --name=b --rw=write --bs=128k --iodepth=1"
    domu_must d1 "$fio --name=c --rw=randrw --bsrange=4k-512k --iodepth=32"
    domu_must d1 "$fio --name=d --rw=randwrite --bs=4k --iodepth=1 --numjobs=4 --offset_increment=2m --size=256k"
    [ "$(uring_stat flushes)" -gt 0 ] || fail "no flush arrived"
    expect_eq "the number of failures" "$(uring_stat io_errors)" 0
    expect_eq "the number of refusals" "$(uring_stat refused)" 0
}

# Grants that the guest uses again stay mapped: no call for them.
steady() {
    local run='fio --name=s --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randread --bs=4k --iodepth=32 --size=4m'
    domu_must d1 "$run"
    local mapped pages
    mapped=$(uring_stat mapped_grants)
    pages=$(uring_stat persistent_pages)
    domu_must d1 "$run"
    [ "$(uring_stat persistent_pages)" -ge $((pages + 1000)) ] || fail "pages were not used again"
    [ "$(uring_stat mapped_grants)" -le $((mapped + 32)) ] || fail "more and more grants are mapped"
    expect_eq "the number of copies" "$(uring_stat copied_pages)" 0
}

discard() {
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M seek=64 count=16 oflag=direct'
    local before=$(($(stat -c %b /disks/one) / 2048))
    domu_must d1 "blkdiscard --offset $((64 * mib)) --length $((16 * mib)) /dev/xvda"
    local after=$(($(stat -c %b /disks/one) / 2048))
    [ $after -le $((before - 15)) ] || fail "the file has $after MiB, and had $before"
    domu_must d1 "cmp -n $((16 * mib)) /dev/xvda /dev/zero $((64 * mib)) 0"
}

resize() {
    truncate -s 128M /disks/one
    kill -HUP "$(cat /run/uring.pid)"
    within 20 resized 128
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M seek=120 count=4 oflag=direct'
}

resized() { [ "$(domu_run d1 'blockdev --getsize64 /dev/xvda')" = $(($1 * mib)) ]; }

# A block device of 4096 bytes a sector, and one that is read only.
device() {
    device=$(disk_make four 64 --sector-size 4096)
    uring_attach d1 xvdb "$device"
    must await_value 20 "$(disk_front d1 xvdb)/state" 4
    expect_eq "the sector size" "$(domu_run d1 'cat /sys/block/xvdb/queue/logical_block_size')" 4096
    domu_must d1 'fio --name=v --filename=/dev/xvdb --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --size=2m --verify=crc32c'
    [ "$(uring_stat copied_pages)" -gt 0 ] || fail "direct I/O was done on pages of the guest"
    domu_must d1 'blkdiscard --offset 0 --length 1m /dev/xvdb'
    disk_detach d1 xvdb
    uring_attach d1 xvdb "$device" access=ro
    must await_value 20 "$(disk_front d1 xvdb)/state" 4
    domu_must d1 '[ "$(blockdev --getro /dev/xvdb)" = 1 ] && dd if=/dev/xvdb of=/dev/null bs=64k count=16 iflag=direct'
    must_fail domu_run d1 'dd if=/dev/zero of=/dev/xvdb bs=4k count=1 oflag=direct'
    disk_detach d1 xvdb
    disk_remove four
}

# A device that can erase securely: Dom0 is the frontend of a backend that says what it is asked for.
secure() {
    must modprobe xen-blkfront
    honest_start 0 xvdd discard-secure=1
    within 10 test -b /dev/xvdd
    uring_attach d1 xvdb /dev/xvdd
    must await_value 20 "$(disk_front d1 xvdb)/state" 4
    expect_eq "discard-secure" "$(xenstore-read "$(disk_back d1 xvdb)/discard-secure")" 1
    domu_must d1 'blkdiscard --secure --offset 1M --length 2M /dev/xvdb'
    honest_asked "discard 2048 4096 secure"
    disk_detach d1 xvdb
    honest_end
}

again() {
    domu_must d1 'head -c 1m /dev/urandom >/run/copy && dd if=/run/copy of=/dev/xvda bs=64k seek=512 oflag=direct status=none'
    disk_detach d1 xvda
    domu_must d1 '[ ! -b /dev/xvda ]'
    expect_eq "the number of grants mapped" "$(grants_of "$(domu_id d1)")" "$(cat /run/lab/grants)"
    uring_attach d1 xvda /disks/one
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    domu_must d1 'dd if=/dev/xvda bs=64k skip=512 count=16 iflag=direct status=none | cmp - /run/copy'
}

# A disk in use is taken away: its programs see errors, not a hang, and the guest has no grant of it mapped.
unplug() {
    local code=0
    domu_must d1 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    # It is at it.
    domu_must d1 'for i in $(seq 200); do set -- $(cat /sys/block/xvda/stat); [ $(($1 + $5)) -ge 1000 ] && exit 0
        sleep 0.05; done; cat /sys/block/xvda/stat; exit 1'
    disk_detach d1 xvda
    domu_join d1 load 30 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 'n=0; while [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    expect_eq "the number of grants mapped" "$(grants_of "$(domu_id d1)")" "$(cat /run/lab/grants)"
    uring_attach d1 xvda /disks/one
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
}

# Its end and new beginning while the guest writes: the guest waits, and what it wrote is there. Writes to the disk take
# 40 ms, so some are under way all the time; each block is written once, where nothing was, and read when all are.
load() {
    echo "fio --name=v --filename=/dev/xvdb --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=32" \
        "--numjobs=2 --offset=$1 --offset_increment=16m --size=12m --verify=crc32c --verify_fatal=1"
}

# Whether this backend is at it, and several writes wait for the slow disk.
writing() {
    [ "$(uring_stat writes)" -gt 0 ] &&
        domu_run d1 'read -r reads writes </sys/block/xvdb/inflight; [ "$writes" -ge 8 ]'
}

restarted() {
    must modprobe dm-delay
    local slow
    slow=$(disk_make slow 64)
    must dmsetup create slow --noudevsync --noudevrules --table "0 $((64 << 11)) delay $slow 0 0 $slow 0 40"
    uring_attach d1 xvdb /dev/dm-0
    must await_value 20 "$(disk_front d1 xvdb)/state" 4
    domu_must d1 'n=0; until [ -b /dev/xvdb ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    domu_spawn d1 load "$(load 0)"
    for _ in 1 2; do
        within 10 writing
        uring_end TERM
        expect_eq "the state that it left" "$(xenstore-read "$(disk_back d1 xvdb)/state")" 4
        uring_start
    done
    domu_join d1 load 120
    expect_eq "the frontend's state" "$(xenstore-read "$(disk_front d1 xvdb)/state")" 4
}

# What was under way is done by the next one. Direct I/O is done on copies of the guest's pages: on the pages themselves
# Linux cannot unmap them in a PV Dom0 once their process was killed, and says so for each (docs/src/dom0-service.md).
killed() {
    uring_end TERM
    uring_start
    domu_spawn d1 load "$(load 32m)"
    local under_way='/51728 queue .: goes on, with [1-9]' round
    for round in 1 2 3; do
        within 10 writing
        uring_log_begins
        uring_end KILL
        uring_start
        within 10 grep "$under_way" /run/uring.log
        grep "$under_way" /run/uring.log
    done
    domu_join d1 load 120
    expect_eq "the frontend's state" "$(xenstore-read "$(disk_front d1 xvdb)/state")" 4
}

# The guest dies in the middle of writes, to a disk that is copied and to one whose pages stay mapped: nothing of it stays,
# and the backend is as before.
destroyed() {
    domu_spawn d1 load "$(load 0) --do_verify=0 --time_based --runtime=100"
    domu_spawn d1 mapped 'fio --name=m --filename=/dev/xvda --allow_file_create=0 --direct=1 --ioengine=libaio --rw=randwrite \
        --bs=16k --iodepth=16 --offset=8m --size=16m --time_based --runtime=100'
    within 10 writing
    uring_end TERM
    uring_start
    within 10 writing
    local id
    id=$(domu_id d1)
    [ "$(grants_of "$id")" -gt $(($(cat /run/lab/grants) + 50)) ] || fail "few grants are mapped"
    within 10 writing
    domu_stop d1
    within 20 nothing_mapped
    no_domain_lingers
    expect_eq "the number of grants mapped" "$(grants_of "$id")" 0
    expect_eq "the number of journals" "$(ls /run/uring | wc -l)" 0
}

nothing_mapped() { ! grep -q /dev/xen/gntdev "/proc/$(cat /run/uring.pid)/maps"; }

# Two processors write each by a queue of its own.
queues() {
    domu_start d2 vcpus=2 xen-blkfront
    uring_attach d2 xvda /disks/one
    must await_value 20 "$(disk_front d2 xvda)/state" 4
    expect_eq "the number of queues" "$(xenstore-read "$(disk_front d2 xvda)/multi-queue-num-queues")" 2
    domu_must d2 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done
        head -c 2m /dev/urandom >/run/copy
        for cpu in 0 1; do
            at=$((cpu * 64))
            taskset -c $cpu dd if=/run/copy of=/dev/xvda bs=16k skip=$at seek=$at count=64 oflag=direct status=none &
        done
        wait; dd if=/dev/xvda bs=128k count=16 iflag=direct status=none | cmp - /run/copy'
    local writes
    mapfile -t writes < <(causeway stats --json --socket /run/uring.sock | grep -o '"writes": *[0-9]*' | grep -o '[0-9]*$')
    expect_eq "the writes of each queue" "${writes[*]}" "64 64"
    domu_stop d2
}

# Rings of one page and of sixteen, requests of few and of very many segments, and pages that are mapped for one request.
modes() {
    local order asked segments persistent
    truncate -s 64M /disks/modes
    domu_start d3
    while read -r order asked segments persistent <&9; do
        domu_must d3 "insmod /modules/causeway-blkfront.ko max_ring_page_order=$order max_indirect_segments=$asked \
            feature_persistent=$persistent"
        uring_attach d3 xvda /disks/modes
        must await_value 20 "$(disk_front d3 xvda)/state" 4
        domu_must d3 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
        expect_eq "the ring's order" "$(xenstore-read "$(disk_front d3 xvda)/ring-page-order" 2>/dev/null || echo 0)" "$order"
        expect_eq "segments" "$(domu_run d3 cat /sys/block/xvda/queue/max_segments)" "$segments"
        domu_must d3 'fio --name=v --filename=/dev/xvda --allow_file_create=0 --direct=1 --ioengine=libaio --rw=randwrite \
            --bsrange=4k-1m --iodepth=16 --size=8m --verify=crc32c --verify_fatal=1 --randrepeat=0'
        disk_detach d3 xvda
        domu_must d3 'rmmod causeway_blkfront'
    done 9<<<$'4 0 11 1\n0 256 256 1\n2 32 32 0'
    domu_stop d3
    rm /disks/modes
}

end() {
    uring_end TERM
    cat /run/uring.all /run/uring.log
    must dmsetup remove --noudevsync --noudevrules slow
    must rmmod xen_blkback
    must_fail grep ERROR /run/uring.all /run/uring.log
}

for part in create attach beside filesystem verify steady discard resize device secure again unplug restarted killed destroyed queues modes end; do
    check block-uring-$part $part
done
