# SPDX-License-Identifier: MIT OR Apache-2.0
# The scenario of `cargo xtask lab bench memory`: what an idle disk costs in memory, for each end beside stock's. Four
# disks, each used once and then left alone. Each round reports a line `RUN END WHOSE KIB`, KiB of one disk; before that
# one of each module, with KiB of its text and data.

disks='a b c d'
rounds='1 2 3'

start() {
    must insmod /modules/causeway-blkback.ko
    must modprobe xen-blkback
    domu_start stock xen-blkfront
    domu_start ours /modules/causeway-blkfront.ko
    for n in $disks; do disk_make $n 8 >/run/lab/device-$n; done
    {
        echo "RUN backend-module ours $(($(cat /sys/module/causeway_blkback/coresize) / 1024))"
        echo "RUN backend-module stock $(($(cat /sys/module/xen_blkback/coresize) / 1024))"
        echo "RUN frontend-module ours $(($(domu_run ours cat /sys/module/causeway_blkfront/coresize) / 1024))"
        echo "RUN frontend-module stock $(($(domu_run stock cat /sys/module/xen_blkfront/coresize) / 1024))"
    } >&8
}

# What is freed late is waited for.
settle='sync; sleep 3; echo 3 >/proc/sys/vm/drop_caches; sleep 2'

# What the kernel has in use, KiB: all that a backend allocates is one of these.
used="$settle; n=0
    for part in SUnreclaim KernelStack VmallocUsed Percpu; do
        n=\$((n + \$(sed -n \"s/^\$part: *\\([0-9]*\\) kB/\\1/p\" /proc/meminfo)))
    done; echo \$n"

# The frontends take whole pages, which are none of these.
taken="$settle; sed -n 's/^MemFree: *\\([0-9]*\\) kB/-\\1/p' /proc/meminfo"

# attach DOMU BACKEND: and uses each disk once.
attach() {
    for n in $disks; do disk_attach "$1" xvd$n "$(cat /run/lab/device-$n)" "$2"; done
    domu_must "$1" "for n in $disks; do dd if=/dev/xvd\$n of=/dev/null bs=64k count=16 iflag=direct status=none; done"
}

detach() {
    for n in $disks; do disk_detach "$1" xvd$n; done
}

# round END WHOSE DOMU BACKEND COMMAND...: the command prints what is in use. The first time nothing is reported: what
# the first disks make allocators take, the next ones find.
round() {
    local before cost
    before=$("${@:5}")
    attach "$3" "$4"
    cost=$((($("${@:5}") - before) / 4))
    detach "$3"
    [ ! -e "/run/lab/warm-$1-$2" ] || echo "RUN $1 $2 $cost" >&8
    : >"/run/lab/warm-$1-$2"
}

back() {
    for _ in 0 $rounds; do
        for whose in stock ours; do round backend $whose stock $whose sh -c "$used"; done
    done
}

front() {
    for _ in 0 $rounds; do
        for whose in stock ours; do round frontend $whose $whose stock domu_must $whose "$taken"; done
    done
}

check bench-memory-start start
check bench-memory-back back
check bench-memory-front front
