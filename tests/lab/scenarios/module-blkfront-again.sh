# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront with a backend, a user-space program of Dom0, that goes in the middle of requests and comes back: it is
# asked anew for what it did not answer, in the order of before and once each, and nothing while it has its memory mapped.
# It comes back with other limits while an administrator changes what waits for all requests. In the end one keeps memory
# of a disk that is gone: that disk stays, and its numbers with it.
#
# limit: 300
# debug-kernel: yes
# reports: module-blkfront-again-start module-blkfront-again-anew module-blkfront-again-unloaded
# reports: module-blkfront-again-kept module-blkfront-again-end
# tolerates: WARNING: g.e.

ours=/modules/causeway-blkfront.ko

start() {
    must modprobe xen-blkback
    domu_start d1 $ours
}

# Backends that go in the middle of requests and come back with other limits, while an administrator changes what waits
# until all requests have ended.
anew() {
    domu_spawn d1 many 'while [ ! -e /run/enough ]; do for disk in /dev/xvd[b-e]; do [ -b $disk ] || continue
        fio --name=m --filename=$disk --direct=1 --ioengine=libaio --rw=randrw --bsrange=4k-16k --iodepth=16 \
            --offset=1m --size=24m --time_based --runtime=2 --allow_file_create=0 >/dev/null; done; sleep 0.05; done; exit 0'
    domu_spawn d1 limits 'while [ ! -e /run/enough ]; do for queue in /sys/block/xvd[b-e]/queue; do [ -d $queue ] || continue
        echo 32 >$queue/max_sectors_kb; echo 40 >$queue/max_sectors_kb; cat $queue/max_segments; done; sleep 0.05; done; exit 0'
    must hostile --frontend "$(domu_id d1)" --device 51728 --count 4 --attack again
    domu_must d1 ': >/run/enough'
    domu_join d1 many 60 >/dev/null
    # Beside the errors of disks that went.
    expect_eq "the limits that it saw" "$(domu_join d1 limits 60 | grep -x '[0-9]*' | sort -nu | xargs)" "11 32"
}

# No disk hangs, so the module goes.
unloaded() {
    domu_must d1 "rmmod causeway_blkfront"
    no_leaks d1
    domu_must d1 "insmod $ours"
    domu_must d1 '! dmesg | grep -E "blocked for more than|leaking g.e."'
}

# A disk whose memory a backend keeps mapped stays, and its numbers with it.
kept() {
    domu_spawn d1 hung 'until [ -b /dev/xvdf ]; do sleep 0.05; done
        while dd if=/dev/xvdf of=/dev/null bs=16k count=16 iflag=direct; do :; done'
    must hostile --frontend "$(domu_id d1)" --device 51792 --count 1 --attack keep
    domu_must d1 'dmesg | grep "does not let go of memory: the disk stays"'
    disk_offer d1 xvdf "$(disk_make two 8)"
    within 20 refused
    domu_must d1 '! dmesg | grep "duplicate filename"'
    must_fail domu_run d1 'rmmod causeway_blkfront'
}

refused() { xenstore-read "/local/domain/$(domu_id d1)/error/device/vbd/51792/error" | grep "16 connecting to the backend"; }

end() {
    domu_stop d1
    must rmmod xen_blkback
}

check module-blkfront-again-start start
check module-blkfront-again-anew anew
check module-blkfront-again-unloaded unloaded
check module-blkfront-again-kept kept
check module-blkfront-again-end end
