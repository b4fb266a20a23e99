# SPDX-License-Identifier: MIT OR Apache-2.0
# The backend in user space and a domain that plays every attack of tests/hostile, while another domain verifies what it
# writes to its own disk. After each attack a legal read is served; at the end the log is short, the other domain has lost
# nothing, and nothing stays behind: no grant, no thread, no domain.
#
# limit: 300
# debug-kernel: yes
# reports: block-uring-hostile-start
# reports: block-uring-hostile-{garbage,ahead,behind,segments,sectors,grants,indirect,revoke,events,keys,hasty,rare,narrow,write,states}
# reports: block-uring-hostile-log block-uring-hostile-read-only block-uring-hostile-closed block-uring-hostile-good
# reports: block-uring-hostile-destroyed

lines_of_bad() { grep -c "vbd $(domu_id bad)/" /run/uring.log || true; }

threads_of() { cat "/proc/$(cat /run/uring.pid)"/task/*/comm | grep -c "^vbd-$1-" || true; }

no_thread_of() { [ "$(threads_of "$1")" = 0 ]; }

some_thread_of() { ! no_thread_of "$1"; }

start() {
    truncate -s 16M /disks/good /disks/bad
    uring_start
    domu_start good xen-blkfront
    domu_start bad xen-evtchn,xen-gntalloc,xen-gntdev
    grants_of "$(domu_id bad)" >/run/lab/grants
    uring_attach good xvda /disks/good
    must await_value 20 "$(disk_front good xvda)/state" 4
    domu_must good 'n=0; until [ -b /dev/xvda ]; do [ $n -lt 100 ] || exit 1; n=$((n + 1)); sleep 0.1; done'
    uring_attach bad xvda /disks/bad
    hostile_witness
}

# A frontend cannot fill the log: 16 lines at once, then one in 10 s.
log() {
    local lines
    lines=$(lines_of_bad)
    grep "vbd $(domu_id bad)/" /run/uring.log
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
    domu_must bad 'xenstore-write device/vbd/51760/state 6'
    must await_value 15 "$(disk_back bad xvdd)/state" 6
    disk_detach bad xvdd
    expect_eq "the data" "$(md5sum </disks/known)" "$before"
    rm /disks/known
}

# What was mapped is given back as soon as the frontend says that it is closed.
closed() {
    [ "$(threads_of "$(domu_id bad)")" -gt 0 ]
    domu_must bad 'xenstore-write device/vbd/51712/state 6'
    must await_value 15 "$(disk_back bad xvda)/state" 6
    expect_eq "threads" "$(threads_of "$(domu_id bad)")" 0
    expect_eq "grants of the domain" "$(grants_of "$(domu_id bad)")" "$(cat /run/lab/grants)"
}

destroyed() {
    local bad
    bad=$(domu_id bad)
    # In the middle of an attack.
    domu_must bad 'hostile --attack behind --count 1'
    hostile_goes_on
    # It connects anew with each seed.
    within 20 some_thread_of "$bad"
    domu_stop bad
    within 10 no_thread_of "$bad"
    expect_eq "grants of the domain" "$(grants_of "$bad")" 0
    no_domain_lingers
    domu_must good 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
    domu_stop good
    uring_end TERM
}

check block-uring-hostile-start start
for name in garbage ahead behind segments sectors grants indirect revoke events keys hasty rare narrow write states; do
    check "block-uring-hostile-$name" hostile_attack $name
done
check block-uring-hostile-log log
check block-uring-hostile-read-only read_only
check block-uring-hostile-closed closed
check block-uring-hostile-good hostile_witness_ends 3
check block-uring-hostile-destroyed destroyed
