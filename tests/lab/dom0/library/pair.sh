# SPDX-License-Identifier: MIT OR Apache-2.0
# What every pair of block ends must be able to do together. The disk is xvda of the DomU `d1`, on /disks/pair.

# pair_begin BACKEND: loads it, and makes it the one that `pair_attach` uses.
pair_begin() {
    echo "$1" >/run/lab/backend
    truncate -s 64M /disks/pair
    case $1 in
        stock) must modprobe xen-blkback ;;
        ours) must insmod /modules/causeway-blkback.ko ;;
        uring) uring_start ;;
        qemu) ;; # xl started one for the domain
    esac
    pair_attach
}

# pair_end: unloads it.
pair_end() {
    case $(cat /run/lab/backend) in
        stock) must rmmod xen_blkback ;;
        ours) must rmmod causeway_blkback ;;
        uring) uring_end TERM ;;
        qemu) ;;
    esac
    rm /disks/pair
}

# pair_attach: and waits until both ends are connected. Kernel backends take a loop device on the file.
pair_attach() {
    case $(cat /run/lab/backend) in
        stock | ours) disk_attach d1 xvda "$(losetup --find --show /disks/pair)" ;;
        uring) uring_attach d1 xvda /disks/pair ;;
        qemu) disk_attach d1 xvda /disks/pair backendtype=qdisk ;;
    esac
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    must await_value 20 "$(disk_back d1 xvda)/state" 4
    domu_must d1 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
}

pair_detach() {
    local back
    back=$(disk_back d1 xvda)
    disk_detach d1 xvda
    domu_must d1 'n=0; while [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    within 20 pair_gone "$back"
    losetup -j /disks/pair | cut -d: -f1 | xargs -r losetup -d
}

pair_gone() { ! xenstore-exists "$1"; }

# pair_offer KEY DEFAULT: what the backend says of itself. pair_choice: what the frontend says.
pair_offer() { xenstore-read "$(disk_back d1 xvda)/$1" 2>/dev/null || echo "$2"; }
pair_choice() { xenstore-read "$(disk_front d1 xvda)/$1" 2>/dev/null || echo "$2"; }

# pair_check PREFIX BACKEND: all checks of a pair, PREFIX-BACKEND-attach to PREFIX-BACKEND-end.
pair_check() {
    local part
    check "$1-$2-attach" pair_begin "$2"
    for part in features files verify flush discard resize again; do check "$1-$2-$part" pair_part $part; done
    check "$1-$2-end" pair_end
}

# Nothing is shown by a disk that is not there.
pair_part() {
    expect_eq "the frontend's state" "$(xenstore-read "$(disk_front d1 xvda)/state" 2>&1)" 4
    "pair_$1"
}

# What was agreed on is the most that both ends can do. Frontends are loaded with max_ring_page_order=2, and want 32
# segments when nobody says otherwise.
pair_features() {
    local order segments granularity most
    expect_eq "the number of queues" "$(pair_choice multi-queue-num-queues 1)" \
        "$(pair_least "$(domu_run d1 nproc)" "$(pair_offer multi-queue-max-queues 1)")"
    expect_eq "the ABI" "$(pair_choice protocol x86_64-abi)" x86_64-abi
    order=$(pair_choice ring-page-order 0)
    # Of a disk that is plugged in later QEMU offers it after the frontend has looked, Linux' or ours.
    [ "$(cat /run/lab/backend) $order" = "qemu 0" ] ||
        expect_eq "the ring's order" "$order" "$(pair_least 2 "$(pair_offer max-ring-page-order 0)")"
    segments=$(pair_least 32 "$(pair_offer feature-max-indirect-segments 0)")
    [ "$segments" -gt 11 ] || segments=11
    expect_eq "the number of segments" "$(domu_run d1 cat /sys/block/xvda/queue/max_segments)" "$segments"
    # A frontend that keeps grants says so whatever the backend offers; the backend decides.
    expect_eq "feature-persistent" "$(pair_choice feature-persistent 0)" 1
    most=$(domu_run d1 cat /sys/block/xvda/queue/discard_max_hw_bytes)
    if [ "$(pair_offer feature-discard 0)" = 0 ]; then
        expect_eq "most of a discard" "$most" 0
    else
        [ "$most" -gt 0 ] || fail "discard was offered, and the disk has none"
        granularity=$(domu_run d1 cat /sys/block/xvda/queue/discard_granularity)
        expect_eq "the granularity of discards" "$granularity" "$(pair_offer discard-granularity "$granularity")"
    fi
    expect_eq "sectors" "$(pair_offer sectors none)" 131072
    expect_eq "sector-size" "$(pair_offer sector-size none)" 512
    expect_eq "the disk's size" "$(domu_run d1 blockdev --getsz /dev/xvda)" 131072
    local cache='write through'
    [ "$(pair_offer feature-flush-cache 0)" = 0 ] || cache='write back'
    expect_eq "the disk's cache" "$(domu_run d1 cat /sys/block/xvda/queue/write_cache)" "$cache"
}

# pair_least A B: the lesser.
pair_least() { if [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi; }

# How many flushes the backend has done.
pair_flushes() {
    case $(cat /run/lab/backend) in
        stock | ours) cat "/sys/bus/xen-backend/devices/vbd-$(domu_id d1)-51712/statistics/f_req" ;;
        uring) uring_stat flushes ;;
        # QEMU does not count those of a guest, so here it is what the guest's disk has done.
        qemu) domu_run d1 'set -- $(cat /sys/block/xvda/stat); echo ${16}' ;;
    esac
}

# Sixteen writes, and a flush after each fourth.
pair_flush() {
    local before after
    before=$(pair_flushes)
    domu_must d1 'fio --name=f --filename=/dev/xvda --direct=1 --rw=randwrite --bs=4k --size=64k --fsync=4 --end_fsync=1' >/dev/null
    after=$(pair_flushes)
    [ $((after - before)) -ge 4 ] || fail "$before flushes before, $after after"
}

pair_files() {
    domu_must d1 'mke2fs -q -F -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt &&
        seq 100000 >/mnt/file && sync /mnt/file && umount /mnt'
    domu_must d1 'e2fsck -fn /dev/xvda && mount -t ext4 -o ro /dev/xvda /mnt &&
        seq 100000 | cmp - /mnt/file && umount /mnt'
}

# Random and sequential, depth 1 and 32, one and four jobs.
pair_verify() {
    local jobs='' mode depth count
    for mode in randwrite write; do
        for depth in 1 32; do
            for count in 1 4; do
                jobs+=" --name=$mode-$depth-$count --stonewall --rw=$mode --iodepth=$depth --numjobs=$count"
            done
        done
    done
    domu_limit=$((120 * LAB_PATIENCE)) domu_must d1 "fio --output-format=terse --terse-version=3 --filename=/dev/xvda --direct=1 --ioengine=libaio \
        --bsrange=4k-64k --size=512k --offset=32m --offset_increment=1m --verify=crc32c --verify_fatal=1 $jobs | cut -d';' -f3,5"
}

# Given-up sectors read as zeros here, and Dom0 gets the memory back.
pair_discard() {
    if [ "$(pair_offer feature-discard 0)" = 0 ]; then
        must_fail domu_run d1 'blkdiscard /dev/xvda'
        return
    fi
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M count=16 seek=40 oflag=direct 2>/dev/null'
    local before after
    before=$(du -k /disks/pair | cut -f1)
    domu_must d1 'blkdiscard -q -o 40M -l 16M /dev/xvda'
    domu_must d1 'dd if=/dev/xvda bs=1M skip=40 count=16 iflag=direct 2>/dev/null | cmp -n 16777216 - /dev/zero'
    after=$(du -k /disks/pair | cut -f1)
    [ $((before - after)) -ge 16384 ] || fail "the file had $before KiB and has $after: they were not discarded"
}

# The guest sees a disk that grew without anybody's help.
pair_resize() {
    truncate -s 96M /disks/pair
    case $(cat /run/lab/backend) in
        stock | ours) losetup -j /disks/pair | cut -d: -f1 | xargs losetup -c ;;
        qemu) pair_qemu_resize $((96 << 20)) ;;
    esac
    # A backend may look only when it is asked for something.
    domu_must d1 "n=0; until [ \$(blockdev --getsz /dev/xvda) = 196608 ]; do
        [ \$n -lt 100 ] || exit 1; n=\$((n + 1)); dd if=/dev/xvda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; sleep 0.1; done"
    domu_must d1 'dd if=/dev/urandom of=/dev/xvda bs=1M count=1 seek=95 oflag=direct 2>/dev/null'
}

# What xl passes on to the domain's QEMU, so that it can be told to let a disk grow: its monitor for people cannot.
pair_qemu='device_model_args=["-qmp","tcp:127.0.0.1:4444,server=on,wait=off"]'

# pair_qemu_resize BYTES
pair_qemu_resize() {
    local drive answer
    drive=$(xl qemu-monitor-command d1 'info block' | sed -n 's/^\(xvda[^ :]*\).*/\1/p' | head -n 1)
    ip link set lo up
    exec 7<>/dev/tcp/127.0.0.1/4444
    echo '{"execute":"qmp_capabilities"}' >&7
    echo '{"execute":"block_resize","arguments":{"node-name":"'"$drive"'","size":'"$1"'},"id":"grow"}' >&7
    while read -r -t 10 answer <&7; do
        case $answer in *'"grow"'*) break ;; esac
    done
    exec 7<&- 7>&-
    case $answer in *'"return"'*) ;; *) fail "QEMU did not resize $drive: $answer" ;; esac
}

# Detached and attached again, what was written is there.
pair_again() {
    local was
    domu_must d1 'seq 1000 | dd of=/dev/xvda bs=4k seek=2048 conv=sync oflag=direct 2>/dev/null'
    pair_detach
    pair_attach
    was=$(domu_run d1 'dd if=/dev/xvda bs=4k skip=2048 count=1 iflag=direct 2>/dev/null | head -c 3893 | md5sum')
    expect_eq "what was written" "$was" "$(seq 1000 | md5sum)"
    pair_detach
}
