# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkback with the stock frontend: all that a disk of stock xl can do, in every shape that the frontend can ask for.
#
# limit: 600
# reports: module-blkback-attach module-blkback-verify module-blkback-flush module-blkback-discard module-blkback-secure
# reports: module-blkback-errors module-blkback-unopened module-blkback-order module-blkback-statistics module-blkback-unused module-blkback-resize
# reports: module-blkback-limits module-blkback-bursts module-blkback-batched module-blkback-reattach module-blkback-script
# reports: module-blkback-create module-blkback-read-only module-blkback-4kn module-blkback-indirect
# reports: module-blkback-not-persistent module-blkback-ring-order module-blkback-queues
# reports: module-blkback-block-list module-blkback-end

parameter() { echo "$2" >"/sys/module/causeway_blkback/parameters/$1"; }

# The folder in sysfs of the one device there is.
device() { echo /sys/bus/xen-backend/devices/vbd-*-*; }
statistic() { cat "$(device)/statistics/$1"; }
view() { echo "/sys/kernel/debug/causeway-blkback/$(basename "$(device)")"; }

connected() { must await_value 15 "$(disk_front d1 xvda)/state" 4; }

# pattern OPTIONS...: writes what can be told apart, and reads it back.
pattern() {
    domu_must d1 "fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --verify=crc32c --minimal $* >/dev/null"
}

attach() {
    must insmod /modules/causeway-blkback.ko
    domu_start d1
    domu_must d1 'modprobe xen-blkfront max_ring_page_order=2'
    disk_attach d1 xvda "$(disk_make one 64)"
    connected
    expect_eq "ring-page-order" "$(xenstore-read "$(disk_front d1 xvda)/ring-page-order")" 2
    back=$(disk_back d1 xvda)
    for key in max-ring-page-order=4 feature-max-indirect-segments=256 feature-persistent=1 feature-flush-cache=1 \
        feature-barrier=1 feature-discard=1 sectors=131072 sector-size=512 info=0 hotplug-status=connected; do
        expect_eq "${key%=*}" "$(xenstore-read "$back/${key%=*}")" "${key#*=}"
    done
    loop=$(losetup -j /disks/one | cut -d: -f1)
    for key in physical-sector-size=queue/physical_block_size discard-granularity=queue/discard_granularity; do
        expect_eq "${key%=*}" "$(xenstore-read "$back/${key%=*}")" "$(cat "/sys/block/${loop#/dev/}/${key#*=}")"
    done
    domu_must d1 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && cp -r /usr/sbin /mnt && umount /mnt'
    domu_must d1 'e2fsck -fn /dev/xvda'
}

verify() {
    pattern --rw=write --bs=128k --iodepth=8 --size=8m
    pattern --rw=randwrite --bs=4k --iodepth=1 --size=1m
    pattern --rw=randwrite --bsrange=512-64k --blockalign=512 --iodepth=32 --size=4m
    pattern --rw=randrw --bs=4k --iodepth=16 --numjobs=2 --size=2m --offset_increment=16m
}

flush() {
    before=$(statistic f_req)
    pattern --rw=randwrite --bs=4k --iodepth=4 --size=256k --fsync=4
    [ "$(statistic f_req)" -ge $((before + 8)) ] || fail "$before flushes before, $(statistic f_req) after"
}

discard() {
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M count=32 oflag=direct status=none'
    [ "$(du -m /disks/one | cut -f1)" -ge 32 ]
    domu_must d1 'blkdiscard -o 8M -l 16M /dev/xvda'
    [ "$(du -m /disks/one | cut -f1)" -le 50 ] || fail "the file still has $(du -m /disks/one)"
    domu_must d1 'dd if=/dev/xvda bs=1M skip=8 count=16 iflag=direct status=none | cmp -n 16777216 - /dev/zero'
    domu_must d1 'blkdiscard /dev/xvda'
    expect_eq "blocks of the file" "$(stat -c %b /disks/one)" 0
    [ "$(statistic ds_req)" -ge 2 ]
    # Not of a disk for which the toolstack does not want it.
    disk_attach d1 xvdb "$(disk_make whole 8)" no-discard
    expect_eq "discard-enable" "$(xenstore-read "$(disk_back d1 xvdb)/discard-enable")" 0
    expect_eq "feature-discard" "$(xenstore-read "$(disk_back d1 xvdb)/feature-discard")" 0
    expect_eq "the most of a discard" "$(domu_run d1 'cat /sys/block/xvdb/queue/discard_max_bytes')" 0
    disk_detach d1 xvdb
    disk_remove whole
}

# Of a disk that fails from a block on, the guest sees the errors of what reaches that block, and no others.
errors() {
    local loop border=$((16384 - 32)) way
    loop=$(disk_make half 16)
    must modprobe dm-mod
    printf '%s\n' "0 $border linear $loop 0" "$border $((32768 - border)) error" |
        must dmsetup create half --noudevsync --noudevrules
    disk_attach d1 xvdb /dev/dm-0
    for way in 'if=/dev/xvdb of=/dev/null iflag=direct skip' 'if=/dev/zero of=/dev/xvdb oflag=direct seek'; do
        domu_must d1 "dd bs=4k count=1 $way=$((border / 8 - 1))"
        fails "dd bs=4k count=1 $way=$((border / 8))"
        fails "dd bs=64k count=1 $way=$((border / 128))"
        domu_must d1 "dd bs=64k count=1 $way=$((border / 128 - 1))"
    done
    disk_detach d1 xvdb
    must dmsetup remove --noudevsync --noudevrules half
    disk_remove half
}

# A block device that is none: both ends close, the reason stands in xenstore, and the next disk may come.
unopened() {
    local error
    error=/local/domain/0/error/backend/vbd/$(domu_id d1)/51728/error
    mknod /dev/nothing b 42 7
    disk_offer d1 xvdb /dev/nothing
    must await_value 10 "$(disk_back d1 xvdb)/state" 6
    expect_eq "the reason" "$(xenstore-read "$error")" "6 opening block device 2a:7: error -6"
    disk_detach d1 xvdb
    rm /dev/nothing
    disk_attach d1 xvdb "$(disk_make next 8)"
    domu_must d1 'dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct'
    disk_detach d1 xvdb
    disk_remove next
}

# fails COMMAND: it does in d1, by an error of the disk.
fails() {
    local said
    if said=$(domu_run d1 "$1 2>&1"); then fail "\`$1\` did not fail"; fi
    grep -q 'Input/output error' <<<"$said" || fail "\`$1\` failed otherwise: $said"
}

# A device that can erase securely: Dom0 is the frontend of a backend that says what it is asked for.
secure() {
    expect_eq "a loop device's discard-secure" "$(xenstore-read "$(disk_back d1 xvda)/discard-secure")" 0
    must_fail domu_run d1 'blkdiscard --secure /dev/xvda'
    must modprobe xen-blkfront
    honest_start 0 xvdd discard-secure=1 discard-granularity=65536 discard-alignment=8192
    within 10 test -b /dev/xvdd
    disk_attach d1 xvdb /dev/xvdd
    for key in discard-secure=1 discard-granularity=65536 discard-alignment=8192; do
        expect_eq "${key%=*}" "$(xenstore-read "$(disk_back d1 xvdb)/${key%=*}")" "${key#*=}"
    done
    domu_must d1 'blkdiscard --secure --offset 1M --length 2M /dev/xvdb'
    honest_asked "discard 2048 4096 secure"
    disk_detach d1 xvdb
    honest_end
}

# What is rare reaches the device in the order that it has to have: Dom0 is the frontend of a backend that tells. A PV
# domain can be both: of one with page tables of its own, Xen takes a page away where it maps what the domain granted itself
# (guest_physmap_add_entry).
order() {
    domu_start d2 xen-evtchn,xen-gntalloc,xen-gntdev
    honest_start 0 xvdd discard-secure=1
    within 10 test -b /dev/xvdd
    disk_offer d2 xvdb /dev/xvdd
    domu_must d2 'hostile --device 51728 --attack rare --count 1'
    honest_asked flush "write 8" flush flush "write 16" flush "discard 8 16 secure"
    # Nobody is there to close the disk when `hostile` has ended.
    domu_must d2 'xenstore-write device/vbd/51728/state 6'
    must await_value 15 "$(disk_back d2 xvdb)/state" 6
    disk_detach d2 xvdb
    honest_end
    domu_stop d2
}

statistics() {
    expect_eq "physical_device" "$(cat "$(device)/physical_device")" "$(xenstore-read "$(disk_back d1 xvda)/physical-device")"
    expect_eq "mode" "$(cat "$(device)/mode")" w
    reads=$(statistic rd_req) sectors=$(statistic rd_sect)
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=4k count=100 iflag=direct status=none'
    [ $(($(statistic rd_req) - reads)) -ge 100 ] || fail "$(statistic rd_req) reads after $reads"
    [ $(($(statistic rd_sect) - sectors)) -ge 800 ]
    sectors=$(statistic wr_sect)
    domu_must d1 'dd if=/dev/zero of=/dev/xvda bs=4k count=100 oflag=direct status=none'
    expect_eq "sectors written" $(($(statistic wr_sect) - sectors)) 800
    [ "$(statistic persistent_grants)" -gt 0 ]
    expect_eq "pages mapped for one request each" "$(statistic mapped_grants)" 0
    expect_eq "requests refused" "$(statistic refused)" 0
    parameter log_stats 1
    within 20 sh -c "dmesg | grep -q '([0-9]*.xvda-0): oo .* rd .* wr .* f .* ds .* pg: .*/1056'"
    parameter log_stats 0
    # All that was asked for is answered.
    grep -q '^queue 0: slots 128, req_prod \([0-9]*\), .*, rsp_prod \1, .*, port [0-9]*$' "$(view)" ||
        fail "debugfs says: $(cat "$(view)")"
}

# Grants that stay mapped stay no longer than they are of use.
unused() {
    [ "$(statistic persistent_grants)" -gt 0 ]
    parameter persistent_grant_unused_seconds 1
    within 30 none_stays
    parameter persistent_grant_unused_seconds 60
    pattern --rw=randwrite --bs=4k --iodepth=8 --size=256k
    [ "$(statistic persistent_grants)" -gt 0 ]
}

none_stays() { [ "$(statistic persistent_grants)" = 0 ]; }

resize() {
    truncate -s 96M /disks/one
    losetup -c "$(losetup -j /disks/one | cut -d: -f1)"
    must await_value 10 "$(disk_back d1 xvda)/sectors" 196608
    within 10 domu_run d1 '[ "$(blockdev --getsize64 /dev/xvda)" = 100663296 ]'
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M seek=95 count=1 oflag=direct status=none'
}

# How long 300 reads of 4 KiB take, in milliseconds, once KEY is set to RATE. A busy machine may take longer than it has
# to, never shorter.
limited() {
    xenstore-write "$(disk_back d1 xvda)/$1" "$2"
    domu_must d1 'fio --name=l --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=8 --rw=randread --bs=4k --number_ios=300 --output-format=json' |
        sed -n 's/.*"runtime" : \([0-9]*\).*/\1/p' | head -1
    xenstore-rm "$(disk_back d1 xvda)/$1"
}

# The burst is a tenth of a second's.
limits() {
    before=$(statistic throttled)
    # A frontend that tells its state again and again gains nothing by it.
    domu_spawn d1 state 'for i in $(seq 10); do xenstore-write device/vbd/51712/state 4; sleep 0.2; done'
    took=$(limited iops-limit 100)
    [ "$took" -ge 2700 ] || fail "300 reads at 100 a second took $took ms"
    took=$(limited bandwidth-limit 409600)
    [ "$took" -ge 2700 ] || fail "300 reads of 4 KiB at 400 KiB a second took $took ms"
    [ $(($(statistic throttled) - before)) -ge 400 ] || fail "$(statistic throttled) waits after $before"
    # A limit that is taken away holds nobody up any more.
    xenstore-write "$(disk_back d1 xvda)/iops-limit" 1
    before=$(statistic throttled)
    domu_spawn d1 slow 'dd if=/dev/xvda of=/dev/null bs=4k count=40 iflag=direct status=none'
    within 10 waits_more "$before"
    xenstore-rm "$(disk_back d1 xvda)/iops-limit"
    domu_join d1 slow 10
}

# waits_more COUNT: whether a limit has made more requests wait than so many.
waits_more() { [ "$(statistic throttled)" -gt "$1" ]; }

# After a pause as many may go at once as the toolstack says: 250 of 300 requests, and the rest at 100 a second.
bursts() {
    local back took
    back=$(disk_back d1 xvda)
    xenstore-write "$back/iops-burst" 250
    took=$(limited iops-limit 100)
    xenstore-rm "$back/iops-burst"
    [ "$took" -ge 450 ] || fail "300 reads at 100 a second after 250 at once took $took ms"
    [ "$took" -le 1500 ] || fail "250 reads did not go at once: 300 took $took ms"
    xenstore-write "$back/bandwidth-burst" $((250 * 4096))
    took=$(limited bandwidth-limit 409600)
    xenstore-rm "$back/bandwidth-burst"
    [ "$took" -ge 450 ] || fail "300 reads at 400 KiB a second after 1000 KiB at once took $took ms"
    [ "$took" -le 1500 ] || fail "1000 KiB did not go at once: 1200 took $took ms"
}

# A file is xl's to make a loop device of, by its script, and to free again.
script() {
    truncate -s 16M /disks/file
    disk_attach d1 xvdb /disks/file
    loop=$(losetup -j /disks/file | cut -d: -f1)
    [ -b "$loop" ] || fail "no loop device has the file"
    expect_eq "the device" "$(xenstore-read "$(disk_back d1 xvdb)/node")" "$loop"
    domu_must d1 'fio --name=v --filename=/dev/xvdb --direct=1 --rw=randwrite --bs=4k --size=256k --verify=crc32c'
    disk_detach d1 xvdb
    within 10 sh -c '[ -z "$(losetup -j /disks/file)" ]'
    rm /disks/file
}

# A disk that a domain has from its beginning.
create() {
    truncate -s 16M /disks/first
    domu_start d2 'disk=["format=raw,vdev=xvda,target=/disks/first"]' xen-blkfront
    must await_value 20 "$(disk_back d2 xvda)/state" 4
    [ -e "/sys/bus/xen-backend/drivers/causeway-vbd/vbd-$(domu_id d2)-51712" ]
    domu_must d2 'fio --name=v --filename=/dev/xvda --direct=1 --rw=randwrite --bs=4k --size=256k --verify=crc32c'
    domu_stop d2
    within 10 sh -c '[ -z "$(losetup -j /disks/first)" ]'
    rm /disks/first
}

# Events that d2's disk has had.
events() { domu_must d2 "awk '/blkif/ { sum += \$2 } END { print sum }' /proc/interrupts"; }

# The frontend is told of many answers at once, though its domain goes before Dom0 whenever it has something to do: of a
# disk of memory, which ends reads while they are given to it, and of a file, whose reads end one by one. Linux's frontend
# pushes each request by itself; ours what there is.
batched() {
    local reads before told disk
    reads='fio --name=b --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randread --bs=4k --number_ios=1024'
    reads+=' --size=16m --iodepth=32 --iodepth_batch_submit=32 --iodepth_batch_complete_min=32 --minimal >/dev/null'
    must modprobe null_blk nr_devices=1 gb=1 memory_backed=1 irqmode=0
    domu_start d2 /modules/causeway-blkfront.ko
    must xl sched-credit2 -d d2 -w 65535
    for disk in /dev/nullb0 "$(disk_make two 64)"; do
        disk_attach d2 xvda "$disk"
        must await_value 15 "$(disk_front d2 xvda)/state" 4
        domu_must d2 'for i in $(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.1; done; exit 1'
        domu_must d2 "$reads"
        before=$(events)
        domu_must d2 "$reads"
        told=$(($(events) - before))
        echo "$told events for 1024 reads of $disk"
        [ $told -ge 32 ] && [ $told -le 64 ] || fail "$told events for 1024 reads of $disk, 32 at a time"
        disk_detach d2 xvda
    done
    disk_remove two
    domu_stop d2
    must rmmod null_blk
}

reattach() {
    disk_detach d1 xvda
    domu_must d1 '[ ! -b /dev/xvda ]'
    disk_remove one
    [ ! -e "$(device)" ] || fail "the device stays: $(device)"
    disk_attach d1 xvda "$(disk_make one 64)"
    connected
    pattern --rw=randwrite --bs=4k --iodepth=8 --size=1m
}

# with_disk LOSETUP-OPTIONS ATTACH-OPTIONS: exchanges the disk.
with_disk() {
    disk_detach d1 xvda
    disk_remove one
    disk_attach d1 xvda "$(disk_make one 64 $1)" $2
    connected
}

read_only() {
    with_disk "" access=ro
    expect_eq "info" "$(xenstore-read "$(disk_back d1 xvda)/info")" 4
    expect_eq "mode" "$(cat "$(device)/mode")" r
    domu_must d1 '[ "$(blockdev --getro /dev/xvda)" = 1 ] && dd if=/dev/xvda of=/dev/null bs=1M count=4 status=none'
    if domu_run d1 'dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct'; then fail "it was written"; fi
}

four_k() {
    with_disk "--sector-size 4096"
    back=$(disk_back d1 xvda)
    expect_eq "sectors" "$(xenstore-read "$back/sectors")" 131072
    expect_eq "sector-size" "$(xenstore-read "$back/sector-size")" 4096
    expect_eq "physical-sector-size" "$(xenstore-read "$back/physical-sector-size")" 4096
    domu_must d1 '[ "$(blockdev --getss /dev/xvda) $(blockdev --getsize64 /dev/xvda)" = "4096 67108864" ]'
    pattern --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=16 --size=4m
    with_disk
}

# frontend VCPUS PARAMETERS...: the same disk for a frontend with other parameters. Linux's does not let go of its module
# once a disk was taken from it, so it is one of another domain.
frontend() {
    domu_stop d1
    if [ "$1" = 1 ]; then domu_start d1; else domu_start d1 vcpus="$1"; fi
    shift
    domu_must d1 "modprobe xen-blkfront $*"
    disk_attach d1 xvda "$(losetup -j /disks/one | cut -d: -f1)"
    connected
}

# The most segments, and the smallest ring: Linux's frontend takes memory for all that could be in it at once.
indirect() {
    frontend 1 max_indirect_segments=256
    expect_eq "segments" "$(domu_run d1 'cat /sys/block/xvda/queue/max_segments')" 256
    pattern --rw=write --bs=1m --iodepth=4 --size=8m
    pattern --rw=randwrite --bsrange=4k-1m --blockalign=4k --iodepth=8 --size=8m
}

# The largest ring, and no indirect request.
ring_order() {
    parameter max_queues 4
    frontend 2 max_ring_page_order=4 max_indirect_segments=11
    expect_eq "ring-page-order" "$(xenstore-read "$(disk_front d1 xvda)/ring-page-order")" 4
    pattern --rw=randwrite --bs=4k --iodepth=256 --size=2m
}

queues() {
    expect_eq "multi-queue-max-queues" "$(xenstore-read "$(disk_back d1 xvda)/multi-queue-max-queues")" 4
    expect_eq "multi-queue-num-queues" "$(xenstore-read "$(disk_front d1 xvda)/multi-queue-num-queues")" 2
    [ "$(ps | grep -c '[.]xvda-1')" = 1 ]
    pattern --rw=randwrite --bsrange=4k-128k --blockalign=4k --iodepth=64 --numjobs=2 --size=1m --offset_increment=16m
    for queue in 0 1; do
        grep -q "^queue $queue: .*req_prod [1-9]" "$(view)" || fail "queue $queue was not used: $(cat "$(view)")"
    done
}

# Prints the most pages that were mapped for one request each, at a time.
most_mapped() {
    local most=0 now
    while [ -e /run/lab/looking ]; do
        now=$(statistic mapped_grants)
        [ "$now" -le $most ] || most=$now
        sleep 0.005
    done
    echo $most >/run/lab/most
}

# 4096 pages are asked for at a time; requests wait for those beyond 2048. The disk takes its time, so that it can be seen.
bounded() {
    local loop
    loop=$(losetup -j /disks/one | cut -d: -f1)
    disk_detach d1 xvda
    must modprobe dm-delay
    must dmsetup create slow --noudevsync --noudevrules --table "0 $((64 << 11)) delay $loop 0 0 $loop 0 50"
    disk_attach d1 xvda /dev/dm-0
    connected
    : >/run/lab/looking
    trap 'rm -f /run/lab/looking' EXIT
    most_mapped &
    pattern --rw=write --bs=1m --iodepth=16 --size=16m
    rm /run/lab/looking
    wait $!
    most=$(cat /run/lab/most)
    echo "at most $most pages were mapped"
    [ "$most" -gt 512 ] && [ "$most" -le 2048 ] || fail "$most pages were mapped at a time"
    expect_eq "pages mapped for one request each" "$(statistic mapped_grants)" 0
    expect_eq "grants mapped for good" "$(statistic persistent_grants)" 0
    disk_detach d1 xvda
    must dmsetup remove --noudevsync --noudevrules slow
}

# Pages to map grants into are kept, as many as the parameter says, and none for a while when memory is short.
buffered() {
    disk_attach d1 xvda "$(losetup -j /disks/one | cut -d: -f1)"
    connected
    pattern --rw=randwrite --bs=64k --iodepth=4 --size=1m
    [ "$(statistic free_pages)" -ge 16 ]
    echo 2 >/proc/sys/vm/drop_caches
    within 5 none_free
    parameter max_buffer_pages 4
    pattern --rw=randwrite --bs=64k --iodepth=4 --size=1m
    [ "$(statistic free_pages)" -le 4 ]
    parameter max_buffer_pages 1024
    parameter buffer_squeeze_duration_ms 600000
    echo 2 >/proc/sys/vm/drop_caches
    pattern --rw=randwrite --bs=64k --iodepth=4 --size=1m
    within 5 none_free
    parameter buffer_squeeze_duration_ms 10
    echo 2 >/proc/sys/vm/drop_caches
    sleep 0.1
    pattern --rw=randwrite --bs=64k --iodepth=4 --size=1m
    [ "$(statistic free_pages)" -ge 16 ]
    disk_detach d1 xvda
}

none_free() { [ "$(statistic free_pages)" = 0 ]; }

not_persistent() {
    parameter feature_persistent N
    with_disk
    expect_eq "feature-persistent" "$(xenstore-read "$(disk_back d1 xvda)/feature-persistent")" 0
    pattern --rw=randwrite --bs=4k --iodepth=32 --size=4m
    bounded
    buffered
    parameter feature_persistent Y
    # Fewer than are in use: some stay mapped, others are mapped each time.
    parameter max_persistent_grants 16
    disk_attach d1 xvda "$(losetup -j /disks/one | cut -d: -f1)"
    connected
    pattern --rw=randwrite --bs=4k --iodepth=32 --size=4m
    [ "$(statistic persistent_grants)" -gt 0 ]
    [ "$(statistic persistent_grants)" -le 16 ]
    parameter max_persistent_grants 1056
    expect_eq "requests refused" "$(statistic refused)" 0
}

block_list() {
    xl block-list d1 | grep -q "^51712 *0 .* 4 "
}

end() {
    exec 7<"$(view)"
    domu_stop d1
    disk_remove one
    [ ! -e "$(device)" ]
    # A file that is open does not outlive the module, nor the device in it.
    if cat <&7; then fail "a device that is gone was shown"; fi
    if rmmod causeway_blkback; then fail "unloaded under an open file"; fi
    exec 7<&-
    must rmmod causeway_blkback
    [ ! -e /sys/kernel/debug/causeway-blkback ]
    # More than there can be is the most that there can be.
    must insmod /modules/causeway-blkback.ko max_ring_page_order=9
    expect_eq "the order in force" "$(cat /sys/module/causeway_blkback/parameters/max_ring_page_order)" 4
    must rmmod causeway_blkback
    expect_eq "lines of lost pages" "$(dmesg | grep -i 'foreign page' || true)" ""
}

check module-blkback-attach attach
check module-blkback-verify verify
check module-blkback-flush flush
check module-blkback-discard discard
check module-blkback-secure secure
check module-blkback-errors errors
check module-blkback-unopened unopened
check module-blkback-order order
check module-blkback-statistics statistics
check module-blkback-unused unused
check module-blkback-resize resize
check module-blkback-limits limits
check module-blkback-bursts bursts
check module-blkback-batched batched
check module-blkback-reattach reattach
check module-blkback-script script
check module-blkback-create create
check module-blkback-read-only read_only
check module-blkback-4kn four_k
check module-blkback-indirect indirect
check module-blkback-not-persistent not_persistent
check module-blkback-ring-order ring_order
check module-blkback-queues queues
check module-blkback-block-list block_list
check module-blkback-end end
