# SPDX-License-Identifier: MIT OR Apache-2.0
# What an idle disk costs in memory, for each end beside stock's: four disks, each used once and then left alone.
#
# limit: 240
# reports: module-memory-start module-memory-back module-memory-front

disks='a b c d'

start() {
    must insmod /modules/causeway-blkback.ko
    must modprobe xen-blkback
    domu_start stock memory=256 xen-blkfront
    domu_start ours memory=256 /modules/causeway-blkfront.ko
    for n in $disks; do disk_make $n 8 >/run/lab/device-$n; done
}

# What the kernel has in use, KiB. What is freed late is waited for.
used='sync; sleep 5; echo 3 >/proc/sys/vm/drop_caches; sleep 5; n=0
    for part in SUnreclaim KernelStack VmallocUsed Percpu; do
        n=$((n + $(sed -n "s/^$part: *\([0-9]*\) kB/\1/p" /proc/meminfo)))
    done; echo $n'

# The frontends take whole pages, which are none of these parts.
taken='sync; sleep 5; echo 3 >/proc/sys/vm/drop_caches; sleep 5; sed -n "s/^MemFree: *\([0-9]*\) kB/-\1/p" /proc/meminfo'

# attach DOMU BACKEND: and uses each disk once.
attach() {
    for n in $disks; do disk_attach "$1" xvd$n "$(cat /run/lab/device-$n)" "$2"; done
    domu_must "$1" "for n in $disks; do dd if=/dev/xvd\$n of=/dev/null bs=64k count=16 iflag=direct status=none; done"
}

detach() {
    for n in $disks; do disk_detach "$1" xvd$n; done
}

# compare END STOCK OURS: KiB of four disks.
compare() {
    echo "memory of an idle disk, $1: stock $(($2 / 4)) KiB, ours $(($3 / 4)) KiB"
    [ "$3" -le $(($2 * 5 / 4 + 256)) ] || fail "the $1 of four idle disks takes $3 KiB, stock's $2"
}

# The first pair of ends allocates what later ones find, so it does not count.
back() {
    local before costs='' kind
    for kind in stock ours; do
        attach stock $kind
        detach stock
    done
    for kind in stock ours; do
        before=$(sh -c "$used")
        attach stock $kind
        costs="$costs $(($(sh -c "$used") - before))"
        detach stock
    done
    compare backend $costs
}

front() {
    local before costs='' end
    for end in stock ours; do
        attach $end stock
        detach $end
        before=$(domu_must $end "$taken")
        attach $end stock
        costs="$costs $(($(domu_must $end "$taken") - before))"
        detach $end
    done
    compare frontend $costs
}

check module-memory-start start
check module-memory-back back
check module-memory-front front
