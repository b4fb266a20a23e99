# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront in each of its ways of working, with Linux' own backend: pages that stay mapped, pages of the requests
# themselves, pages in between for a backend that is not trusted; few and many segments, large rings, two queues, blocks
# of 4 KiB, and a disk that is only read. The module is unloaded and loaded between them, and its disks come back. A
# backend that tells what it is asked for shows how writes become durable and discards secure, what of a page that is not
# written it can see, what becomes of a disk's geometry, and that what it fails has failed.
#
# limit: 460
# reports: module-blkfront-modes-start module-blkfront-modes-persistent module-blkfront-modes-direct
# reports: module-blkfront-modes-untrusted module-blkfront-modes-trusted-key module-blkfront-modes-few-segments
# reports: module-blkfront-modes-large module-blkfront-modes-queues module-blkfront-modes-4kn
# reports: module-blkfront-modes-read-only module-blkfront-modes-durable module-blkfront-modes-secure
# reports: module-blkfront-modes-alone module-blkfront-modes-geometry module-blkfront-modes-errors
# reports: module-blkfront-modes-end

ours=/modules/causeway-blkfront.ko
front=/sys/bus/xen/drivers/causeway-vbd

start() {
    must modprobe xen-blkback max_queues=4
    # Two processors of which only one runs: loading a module has them wait for each other, and here they share one.
    domu_start d1 vcpus=2
    domu_must d1 "echo 0 >/sys/devices/system/cpu/cpu1/online; insmod $ours"
    disk_attach d1 xvda "$(disk_make one 64)"
}

# load PARAMETERS: the module anew, and its disk with it.
load() {
    domu_must d1 "for device in $front/vbd-*; do [ -e \$device ] && basename \$device >$front/unbind; done; rmmod causeway_blkfront; insmod $ours $* && for i in \$(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; dmesg | tail -5; exit 1"
}

# statistic NAME: of the disk, since the module was loaded.
statistic() { domu_must d1 "cat /sys/bus/xen/devices/vbd-51712/statistics/$1"; }

# Writes and reads at every alignment, in one, several and very many pages.
verified() {
    domu_must d1 "fio --filename=/dev/xvda --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 \\
        --randrepeat=0 --allow_file_create=0 --name=random --rw=randwrite --bsrange=512-512k --iodepth=16 --offset=8m --size=3m --fsync=32 \\
        --name=large --stonewall --rw=write --bs=1m --iodepth=4 --offset=32m --size=4m" >/dev/null
}

front_key() { xenstore-read "$(disk_front d1 xvda)/$1" 2>/dev/null; }

persistent() {
    load
    expect_eq "feature-persistent" "$(front_key feature-persistent)" 1
    expect_eq "segments" "$(domu_run d1 'cat /sys/block/xvda/queue/max_segments')" 32
    must_fail front_key ring-page-order
    verified
    [ "$(statistic pages)" -gt 0 ] || fail "no page stays mapped"
    [ "$(statistic indirect)" -gt 0 ] || fail "no request was indirect"
}

direct() {
    load feature_persistent=0
    expect_eq "feature-persistent" "$(front_key feature-persistent)" 0
    verified
}

untrusted() {
    load feature_persistent=0 trusted=0
    verified
}

# What the toolstack says of one disk counts as well: the backend gets pages of its own then.
trusted_key() {
    load feature_persistent=0 max_indirect_segments=0
    verified
    expect_eq "pages of its own" "$(statistic pages)" 0
    xenstore-write "$(disk_front d1 xvda)/trusted" 0
    load feature_persistent=0 max_indirect_segments=0
    verified
    [ "$(statistic pages)" -gt 0 ] || fail "it gets pages of requests"
    xenstore-write "$(disk_front d1 xvda)/trusted" 1
}

few_segments() {
    load max_indirect_segments=0 feature_persistent=0
    expect_eq "segments" "$(domu_run d1 'cat /sys/block/xvda/queue/max_segments')" 11
    verified
    expect_eq "indirect requests" "$(statistic indirect)" 0
}

large() {
    load max_indirect_segments=256 max_ring_page_order=4
    expect_eq "ring-page-order" "$(front_key ring-page-order)" 4
    expect_eq "segments" "$(domu_run d1 'cat /sys/block/xvda/queue/max_segments')" 256
    verified
    load max_indirect_segments=256 max_ring_page_order=2 feature_persistent=0
    expect_eq "ring-page-order" "$(front_key ring-page-order)" 2
    verified
}

queues() {
    domu_must d1 'echo 1 >/sys/devices/system/cpu/cpu1/online'
    load max_queues=2
    expect_eq "queues" "$(front_key multi-queue-num-queues)" 2
    expect_eq "queues of the disk" "$(domu_run d1 'ls -d /sys/block/xvda/mq/* | wc -l')" 2
    domu_must d1 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=32 --numjobs=4 --offset_increment=4m --size=1m --verify=crc32c'
    for queue in 0 1; do
        domu_must d1 "grep '^queue $queue: Connected, .* req_prod [1-9]' /sys/kernel/debug/causeway-blkfront/vbd-51712"
    done
    domu_must d1 'echo 0 >/sys/devices/system/cpu/cpu1/online'
    domu_must d1 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=32 --size=1m --verify=crc32c'
}

fourkn() {
    disk_attach d1 xvdb "$(disk_make two 64 --sector-size 4096)"
    expect_eq "logical block" "$(domu_run d1 'cat /sys/block/xvdb/queue/logical_block_size')" 4096
    for persistent in 1 0; do
        load feature_persistent=$persistent
        domu_must d1 'for i in $(seq 50); do [ -b /dev/xvdb ] && exit 0; sleep 0.2; done; exit 1'
        domu_must d1 'fio --name=v --filename=/dev/xvdb --direct=1 --ioengine=libaio --rw=randwrite --bsrange=4k-512k --iodepth=16 --offset=8m --size=3m --verify=crc32c --randrepeat=0 --allow_file_create=0'
        domu_must d1 'mke2fs -q -t ext4 /dev/xvdb && e2fsck -fn /dev/xvdb'
    done
    disk_detach d1 xvdb
}

read_only() {
    disk_attach d1 xvdc "$(disk_make three 16)" access=ro
    domu_must d1 '[ "$(cat /sys/block/xvdc/ro)" = 1 ]'
    domu_must d1 'dd if=/dev/xvdc of=/dev/null bs=64k count=16 iflag=direct && ! dd if=/dev/zero of=/dev/xvdc bs=4k count=1 oflag=direct'
    disk_detach d1 xvdc
}

# told KEY=VALUE... --OPTION=VALUE...: the disk xvdd of a backend that tells.
told() {
    honest_start "$(domu_id d1)" xvdd "$@"
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvdd ] && exit 0; sleep 0.2; done; exit 1'
}

two_durable_writes() {
    domu_must d1 'fio --name=d --filename=/dev/xvdd --direct=1 --sync=dsync --rw=write --bs=4k --size=8k' >/dev/null
}

# A flush after each write that has to be durable; one request where barriers are all there is; nothing without either.
# Linux flushes once more when such a write of a program has ended.
durable() {
    told
    two_durable_writes
    honest_asked "write 0" flush flush "write 8" flush flush
    domu_must d1 'fio --name=d --filename=/dev/xvdd --direct=1 --rw=write --bs=4k --size=8k --end_fsync=1' >/dev/null
    honest_asked "write 0" "write 8" flush
    honest_end
    told feature-flush-cache=0 feature-barrier=1
    two_durable_writes
    honest_asked "write barrier 0" "write barrier" "write barrier 8" "write barrier"
    honest_end
    told feature-flush-cache=0
    two_durable_writes
    honest_asked "write 0" "write 8"
    honest_end
}

# A discard that is to be secure is asked for as such, or not at all.
secure() {
    told discard-secure=1
    domu_must d1 'blkdiscard --secure --offset 1M --length 2M /dev/xvdd'
    honest_asked "discard 2048 4096 secure"
    domu_must d1 'blkdiscard --offset 1M --length 2M /dev/xvdd'
    honest_asked "discard 2048 4096"
    honest_end
    told discard-secure=0
    must_fail domu_run d1 'blkdiscard --secure --offset 1M --length 2M /dev/xvdd'
    honest_asked
    honest_end
}

# A disk that is not trusted shows its backend nothing but what is written, whether the module's parameter says so or the
# toolstack, and whether or not pages may stay mapped. One that is trusted saves that work: the look does find it there.
alone() {
    load
    seen_of_writes
    [ "$beside" -gt 0 ] || fail "they lay alone: $(cat /run/honest.log)"
    seen_of_writes feature-persistent=1
    [ "$beside" -gt 0 ] || fail "they lay alone, on pages that were used: $(cat /run/honest.log)"
    seen_of_writes --front=trusted=0
    expect_eq "writes to a disk that is not trusted which show more" "$beside" 0
    seen_of_writes --front=trusted=0 feature-persistent=1
    expect_eq "such writes by pages that may stay mapped" "$beside" 0
    load trusted=0
    seen_of_writes
    expect_eq "such writes by a module that trusts nobody" "$beside" 0
}

# seen_of_writes WORD...: of `told WORD...`, eight writes of a sector each, whose data lie side by side in memory, after as
# many of a page each. `beside` is how many show the backend more than they write.
seen_of_writes() {
    local writes='fio --name=s --filename=/dev/xvdd --direct=1 --ioengine=libaio --iodepth=8 --rw=write'
    told "$@"
    domu_must d1 "$writes --bs=4k --size=32k --buffer_pattern=0xa5" >/dev/null
    : >/run/honest.log
    domu_must d1 "$writes --bs=512 --size=4k --buffer_pattern=0x5a" >/dev/null
    expect_eq "writes" "$(grep -c '^write ' /run/honest.log)" 8
    beside=$(grep -c '^write .*, beside other data$' /run/honest.log || true)
    honest_end
}

# queue_of DISK KEY: what its queue says.
queue_of() { domu_run d1 "cat /sys/block/$1/queue/$2"; }

# All of it but the alignment of discards, in whose place Linux' sysfs shows the disk's own.
geometry() {
    told physical-sector-size=4096 discard-granularity=65536 discard-alignment=8192 info=6
    expect_eq "physical block" "$(queue_of xvdd physical_block_size)" 4096
    expect_eq "logical block" "$(queue_of xvdd logical_block_size)" 512
    expect_eq "granularity of discards" "$(queue_of xvdd discard_granularity)" 65536
    expect_eq "removable, read-only" "$(domu_run d1 'echo $(cat /sys/block/xvdd/removable /sys/block/xvdd/ro)')" "1 1"
    honest_end
    told feature-discard=0
    expect_eq "most of a discard" "$(queue_of xvdd discard_max_bytes)" 0
    expect_eq "removable, read-only" "$(domu_run d1 'echo $(cat /sys/block/xvdd/removable /sys/block/xvdd/ro)')" "0 0"
    honest_end
}

# A disk with a bad sector: what reaches that fails, and is no data; what does not is none the worse, before and after.
errors() {
    local persistent round
    load
    for persistent in 0 1; do
        told feature-persistent=$persistent feature-max-indirect-segments=32 --fail=1003
        for round in 1 2; do
            transfers 4k 124 126
            : >/run/honest.log
            domu_must d1 "! $(read_of 4k 125)"
            expect_eq "what fails" "$(grep fails /run/honest.log)" "read 1000, fails"
            # In a request of many pages, too.
            domu_must d1 "! $(read_of 128k 3)"
            transfers 128k 2 4
            : >/run/honest.log
            domu_must d1 "! $(write_to 4k 125)"
            honest_asked "write 1000, fails"
        done
        honest_end
    done
}

# read_of BYTES BLOCK, write_to BYTES BLOCK: the command for one block of so many bytes.
read_of() { echo "dd if=/dev/xvdd of=/dev/null bs=$1 skip=$2 count=1 iflag=direct"; }

write_to() { echo "dd if=/dev/zero of=/dev/xvdd bs=$1 seek=$2 count=1 oflag=direct"; }

# transfers BYTES BLOCK...: each of these is written and read.
transfers() {
    local bytes=$1 block
    shift
    for block; do domu_must d1 "$(write_to "$bytes" "$block") && $(read_of "$bytes" "$block")"; done
}

end() {
    disk_detach d1 xvda
    domu_must d1 'rmmod causeway_blkfront'
    domu_stop d1
    must rmmod xen_blkback
}

check module-blkfront-modes-start start
check module-blkfront-modes-persistent persistent
check module-blkfront-modes-direct direct
check module-blkfront-modes-untrusted untrusted
check module-blkfront-modes-trusted-key trusted_key
check module-blkfront-modes-few-segments few_segments
check module-blkfront-modes-large large
check module-blkfront-modes-queues queues
check module-blkfront-modes-4kn fourkn
check module-blkfront-modes-read-only read_only
check module-blkfront-modes-durable durable
check module-blkfront-modes-secure secure
check module-blkfront-modes-alone alone
check module-blkfront-modes-geometry geometry
check module-blkfront-modes-errors errors
check module-blkfront-modes-end end
