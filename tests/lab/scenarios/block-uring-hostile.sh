# SPDX-License-Identifier: MIT OR Apache-2.0
# The backend in user space and a domain that plays every attack of tests/hostile, while another domain verifies what it
# writes to its own disk. After each attack a legal read is served; at the end the log is short, the other domain has lost
# nothing, and nothing stays behind: no grant, no thread, no memory, no domain.
#
# limit: 300
# debug-kernel: yes
# reports: block-uring-hostile-start
# reports: block-uring-hostile-{garbage,ahead,behind,segments,sectors,grants,indirect,revoke,events,keys,hasty,rare,narrow,write,states}
# reports: block-uring-hostile-log block-uring-hostile-read-only block-uring-hostile-large block-uring-hostile-closed block-uring-hostile-copies
# reports: block-uring-hostile-good
# reports: block-uring-hostile-destroyed

lines_of_bad() { grep -c "vbd $(domu_id bad)/" /run/uring.log || true; }

threads_of() { cat "/proc/$(cat /run/uring.pid)"/task/*/comm | grep -c "^vbd-$1-" || true; }

no_thread_of() { [ "$(threads_of "$1")" = 0 ]; }

some_thread_of() { ! no_thread_of "$1"; }

# What the backend's process has of memory, in KiB.
resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(cat /run/uring.pid)/status"; }

start() {
    # Blocks of memory that are there from the start: what a disk takes later would look like a leak.
    for disk in good bad direct; do dd if=/dev/zero of=/disks/$disk bs=1M count=16 status=none; done
    uring_start
    domu_start good xen-blkfront
    domu_start bad xen-evtchn,xen-gntalloc,xen-gntdev
    grants_of "$(domu_id bad)" >/run/lab/grants
    uring_attach good xvda /disks/good
    must await_value 20 "$(disk_front good xvda)/state" 4
    domu_must good 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    uring_attach bad xvda /disks/bad
    # Once by the rules, so that what is there from then on is not counted.
    domu_must bad 'hostile --attack behind --count 1'
    hostile_witness
    dmesg | wc -l >/run/lab/lines
    resident >/run/lab/resident
    free_memory >/run/lab/memory
}

# A frontend cannot fill the log: 16 lines at once, then one in 10 s.
log() {
    local lines kernel
    lines=$(lines_of_bad) kernel=$(($(dmesg | wc -l) - $(cat /run/lab/lines)))
    grep "vbd $(domu_id bad)/" /run/uring.log
    [ $kernel -le 16 ] || fail "a frontend made $kernel lines of the kernel's log"
    [ "$lines" -ge 4 ] && [ "$lines" -le $((17 + SECONDS / 10)) ] || fail "a frontend made $lines lines of the log"
}

# Who writes to a disk that is only to be read is refused: `write` sees that in the answers, and here are the data.
read_only() {
    local before
    must dd if=/dev/urandom of=/disks/known bs=1M count=1 status=none
    before=$(md5sum </disks/known)
    uring_attach bad xvdd /disks/known access=ro
    domu_must bad 'hostile --device 51760 --attack write --count 1'
    expect_eq "info" "$(xenstore-read "$(disk_back bad xvdd)/info")" 4
    bad_lets_go xvdd
    expect_eq "the data" "$(md5sum </disks/known)" "$before"
    rm /disks/known
}

large() {
    hostile_large
    uring_attach bad xvde /disks/large
    hostile_discards_large
    rm /disks/large
}

# What was mapped is given back as soon as the frontend says that it is closed.
closed() {
    [ "$(threads_of "$(domu_id bad)")" -gt 0 ]
    domu_must bad 'xenstore-write device/vbd/51712/state 6'
    must await_value 15 "$(disk_back bad xvda)/state" 6
    expect_eq "threads" "$(threads_of "$(domu_id bad)")" 0
    expect_eq "grants of the domain" "$(grants_of "$(domu_id bad)")" "$(cat /run/lab/grants)"
}

# A block device, whose data are copied from the guest's pages and into them where Dom0 is PV.
copies() {
    local attack loop pages
    loop=$(losetup --find --show /disks/direct)
    uring_attach bad xvdb "$loop"
    pages=$(uring_stat copied_pages)
    for attack in garbage segments sectors grants indirect revoke; do
        domu_limit=200 domu_must bad "hostile --device 51728 --attack $attack --count $seeds"
    done
    pages=$(($(uring_stat copied_pages) - pages))
    echo "$pages pages were copied"
    [ "$(cat /sys/hypervisor/guest_type)" != PV ] || [ $pages -gt 0 ] || fail "nothing was copied"
    bad_lets_go xvdb
    losetup -d "$loop"
}

# Nothing is lost by a domain that dies, and nothing was by all the attacks before.
destroyed() {
    local memory resident
    destroy_bad
    domu_start bad xen-evtchn,xen-gntalloc,xen-gntdev
    uring_attach bad xvda /disks/bad
    destroy_bad
    no_domain_lingers
    memory=$(free_memory) resident=$(resident)
    echo "$(cat /run/lab/memory) kB free at the start, $memory at the end; the backend had $(cat /run/lab/resident) kB, and has $resident"
    [ "$resident" -le $(($(cat /run/lab/resident) + 4096)) ] || fail "the backend has $resident kB"
    # The debug kernel keeps what was freed for a while, and looks for leaks itself.
    [ -e /sys/kernel/debug/kmemleak ] || [ "$memory" -ge $(($(cat /run/lab/memory) - 4096)) ] || fail "$memory kB are free"
    domu_must good '[ -b /dev/xvda ] && dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
    domu_stop good
    uring_end TERM
}

# In the middle of an attack.
destroy_bad() {
    local bad
    bad=$(domu_id bad)
    domu_must bad 'hostile --attack behind --count 1'
    hostile_goes_on
    # It connects anew with each seed.
    within 20 some_thread_of "$bad"
    domu_stop bad
    within 10 no_thread_of "$bad"
    expect_eq "grants of the domain" "$(grants_of "$bad")" 0
}

check block-uring-hostile-start start
for name in garbage ahead behind segments sectors grants indirect revoke events keys hasty rare narrow write states; do
    check "block-uring-hostile-$name" hostile_attack $name
done
check block-uring-hostile-log log
check block-uring-hostile-read-only read_only
check block-uring-hostile-large large
check block-uring-hostile-closed closed
check block-uring-hostile-copies copies
check block-uring-hostile-good hostile_witness_ends 3
check block-uring-hostile-destroyed destroyed
