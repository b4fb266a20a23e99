# SPDX-License-Identifier: MIT OR Apache-2.0
# The load of `cargo xtask lab bench block`, as a scenario: every frontend with every backend, every cell with each pair.
#
# Words on the kernel's command line, each a list separated by `+`:
#   bench_backs=stock+ours+uring    backends, one after the other in this order
#   bench_fronts=stock+ours         frontends, a DomU each, which take turns within a cell
#   bench_cells=…                   what is done; see `cell`
#   bench_queues=1+2                so many queues, in a DomU of so many CPUs
#   bench_seed=N                    which random places
#   bench_symbols=1                 write symbols to the disk /dev/vda, for a profile
#
# Nothing polls while a load runs: Dom0 waits in a watch. Each run reports a line `RUN FRONT BACK CELL key=value…`.

word() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" /proc/cmdline | tr + ' '; }

# cell NAME: the load's options, for one queue.
cell() {
    case $1 in
        randread4k.d1) echo --warm 64 --requests 250 ;;
        randwrite4k.d1) echo --op write --warm 64 --requests 250 ;;
        randread4k.d32) echo --depth 32 --warm 256 --requests 1280 ;;
        randwrite4k.d32) echo --op write --depth 32 --warm 256 --requests 1280 ;;
        read128k.d8) echo --pattern sequential --block 131072 --depth 8 --warm 64 --requests 128 ;;
        *) fail "no cell $1" ;;
    esac
}

backend_load() {
    case $1 in
        stock) must modprobe xen-blkback max_queues=4 ;;
        ours) must insmod /modules/causeway-blkback.ko max_queues=4 ;;
        uring) uring_start ;;
    esac
}

backend_unload() {
    case $1 in
        stock) must rmmod xen-blkback ;;
        ours) must rmmod causeway-blkback ;;
        uring) uring_end TERM ;;
    esac
}

# attach DOMU BACKEND DEVICE
attach() {
    case $2 in
        uring) uring_attach "$1" xvda "$3" ;;
        *) disk_attach "$1" xvda "$3" ;;
    esac
    must await_value 20 "$(disk_front "$1" xvda)/state" 4
    domu_must "$1" "n=0; until [ -b /dev/xvda ]; do [ \$n -lt 50 ] || exit 1; n=\$((n + 1)); sleep 0.1; done" >/dev/null
}

front_module() {
    case $1 in stock) echo xen-blkfront ;; ours) echo /modules/causeway-blkfront.ko ;; esac
}

# Symbols of modules, which are elsewhere in each domain and after each load; `count` is the run's number.
symbols() {
    [ -n "$(word bench_symbols)" ] || return 0
    {
        echo "== $2 dom0"
        grep '\[' /proc/kallsyms
        echo "== $2 guest"
        domu_must "$1" "grep '\[' /proc/kallsyms"
    } >>/disks/symbols
}

# A disk for each frontend, which all backends serve in turn.
boot() {
    local front
    for front in $(word bench_fronts); do
        disk_make "$front" 64 >"/run/lab/$front.device"
        dd if=/dev/urandom of="/disks/$front" bs=1M count=64 conv=notrunc 2>/dev/null
    done
}

# load QUEUES BACKEND: every cell with every frontend.
load() {
    local queues=$1 back=$2 front name result
    backend_load "$back"
    for front in $(word bench_fronts); do attach "$front$queues" "$back" "$(cat "/run/lab/$front.device")"; done
    for name in $(word bench_cells); do
        for front in $(word bench_fronts); do
            result=$(domu_must "$front$queues" \
                "blkload /dev/xvda $(cell "$name") --threads $queues --seed $(word bench_seed)")
            echo "RUN $front $back $name.q$queues $result" >&8
            symbols "$front$queues" "$(next_run)"
        done
    done
    for front in $(word bench_fronts); do disk_detach "$front$queues" xvda; done
    backend_unload "$back"
}

next_run() {
    local n
    n=$(cat /run/lab/runs 2>/dev/null || echo 0)
    echo $((n + 1)) >/run/lab/runs
    echo "$n"
}

domus() {
    local front
    for front in $(word bench_fronts); do
        domu_start "$front$1" memory=256 "vcpus=$1" "$(front_module "$front")"
    done
}

gone() {
    local front
    for front in $(word bench_fronts); do domu_stop "$front$1"; done
}

write_symbols() {
    {
        echo "== xen"
        cat /proc/xen/xensyms
        echo "== kernel"
        grep -v '\[' /proc/kallsyms
        cat /disks/symbols
    } >/disks/all-symbols
    must insmod /lab/virtio_blk.ko
    within 10 test -b /dev/vda
    dd if=/disks/all-symbols of=/dev/vda bs=1M conv=sync 2>/dev/null
    sync
}

check bench-block-boot boot
for queues in $(word bench_queues); do
    check "bench-block-domus-q$queues" domus "$queues"
    for back in $(word bench_backs); do check "bench-block-$back-q$queues" load "$queues" "$back"; done
    check "bench-block-gone-q$queues" gone "$queues"
done
[ -z "$(word bench_symbols)" ] || check bench-block-symbols write_symbols
