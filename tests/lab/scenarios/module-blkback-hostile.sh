# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkback and a domain that plays every attack of tests/hostile, while another domain verifies what it writes to its
# own disk. After each attack a legal read is served; at the end the log is short, the other domain has lost nothing, and
# nothing stays behind: no grant, no thread, no memory, no domain.
#
# limit: 450
# debug-kernel: yes
# reports: module-blkback-hostile-start
# reports: module-blkback-hostile-{garbage,ahead,behind,segments,sectors,grants,indirect,revoke,events,keys,hasty,rare,narrow,write,states}
# reports: module-blkback-hostile-not-persistent module-blkback-hostile-storm module-blkback-hostile-cdrom
# reports: module-blkback-hostile-log module-blkback-hostile-read-only module-blkback-hostile-large module-blkback-hostile-closed
# reports: module-blkback-hostile-good
# reports: module-blkback-hostile-rings module-blkback-hostile-destroyed

# Blocks of memory that are there from the start: what a disk takes later would look like a leak.
disk() {
    dd if=/dev/zero of="/disks/$1" bs=1M count="$2" status=none
    losetup --find --show "/disks/$1"
}

log_lines() { dmesg | wc -l; }

threads() { ps | grep -c "[[ ]$(domu_id bad)\.xvda-[0-9]" || true; }

start() {
    must insmod /modules/causeway-blkback.ko
    domu_start good xen-blkfront
    domu_start bad xen-evtchn,xen-gntalloc,xen-gntdev
    grants_of "$(domu_id bad)" >/run/lab/grants
    disk_attach good xvda "$(disk good 16)"
    disk_offer bad xvda "$(disk bad 16)"
    # Once by the rules, so that what is there from then on is not counted.
    domu_must bad 'hostile --attack behind --count 1'
    hostile_witness
    log_lines >/run/lab/lines
    free_memory >/run/lab/memory
}

# With grants that are mapped for each request.
not_persistent() {
    local attack parameter=/sys/module/causeway_blkback/parameters/feature_persistent
    echo N >$parameter
    for attack in grants indirect revoke segments; do hostile_attack $attack; done
    expect_eq "feature-persistent" "$(xenstore-read "$(disk_back bad xvda)/feature-persistent")" 0
    echo Y >$parameter
}

# Of 20000 doorbells, nearly all for nothing, few come to the driver: what follows one for nothing is let in late.
storm() {
    local bus events spurious late
    bus=/sys/bus/xen-backend/devices/vbd-$(domu_id bad)-51712/xenbus
    events=$(cat "$bus/events") spurious=$(cat "$bus/spurious_events") late=$(cat "$bus/jiffies_eoi_delayed")
    domu_must bad 'hostile --attack events --count 1'
    events=$(($(cat "$bus/events") - events)) spurious=$(($(cat "$bus/spurious_events") - spurious))
    late=$(($(cat "$bus/jiffies_eoi_delayed") - late))
    echo "$events events, $spurious of them for nothing, $late ticks of delay"
    [ $spurious -ge 3 ]
    [ $late -ge 3 ]
    [ $events -le 500 ]
}

# A CD is shown as one; xl makes it read only.
cdrom() {
    disk_offer bad xvdc "$(disk cd 1)" devtype=cdrom
    domu_must bad 'hostile --device 51744 --attack behind --count 1'
    expect_eq "info of a CD" "$(xenstore-read "$(disk_back bad xvdc)/info")" 5
    bad_lets_go xvdc
    disk_remove cd
}

# Who writes to a disk that is only to be read is refused: `write` sees that in the answers, and here are the data. The
# block device itself could be written.
read_only() {
    local before
    must dd if=/dev/urandom of=/disks/known bs=1M count=1 status=none
    before=$(md5sum </disks/known)
    disk_offer bad xvdd "$(losetup --find --show /disks/known)" access=ro
    domu_must bad 'hostile --device 51760 --attack write --count 1'
    expect_eq "info" "$(xenstore-read "$(disk_back bad xvdd)/info")" 4
    bad_lets_go xvdd
    expect_eq "the data" "$(md5sum </disks/known)" "$before"
    disk_remove known
}

large() {
    hostile_large
    disk_offer bad xvde "$(losetup --find --show /disks/large)"
    hostile_discards_large
    disk_remove large
}

# Reads the statistics of all disks, until told to stop.
read_statistics() {
    local rounds=0
    while [ -e /run/lab/reading ]; do
        if cat /sys/bus/xen-backend/devices/vbd-*/statistics/* >/dev/null; then rounds=$((rounds + 1)); fi
    done
    echo "statistics were read $rounds times"
    [ $rounds -ge $((5 * seeds)) ]
}

# The queues whose statistics are read come and go meanwhile.
states() {
    : >/run/lab/reading
    trap 'rm -f /run/lab/reading' EXIT
    read_statistics &
    hostile_attack states
    rm /run/lab/reading
    wait $!
}

# A frontend cannot fill the log of this domain: 16 lines at once, then one in 10 s, and the bus has as many to say.
log() {
    local more
    more=$(($(log_lines) - $(cat /run/lab/lines)))
    echo "$more lines"
    [ "$more" -le 45 ] || fail "a frontend made $more lines of the log"
}

# What was mapped is given back as soon as the frontend says that it is closed.
closed() {
    [ "$(threads)" -gt 0 ]
    domu_must bad 'xenstore-write device/vbd/51712/state 6'
    must await_value 15 "$(disk_back bad xvda)/state" 6
    expect_eq "threads" "$(threads)" 0
    expect_eq "grants of the domain" "$(grants_of "$(domu_id bad)")" "$(cat /run/lab/grants)"
}

# A ring that cannot be mapped makes a line of the bus and one of ours. Of each kind there are 16 at once, then one in ten
# seconds, of which the attacks before may have left few: after a minute there are some again. A legal frontend is served
# after that.
rings() {
    local before more most began
    sleep 60
    began=$SECONDS before=$(log_lines)
    domu_must bad 'cd / && for round in $(seq 30); do
        xenstore-write device/vbd/51712/ring-ref 99999 device/vbd/51712/event-channel 3 device/vbd/51712/protocol x86_64-abi
        for state in 3 6 1; do xenstore-write device/vbd/51712/state $state && sleep 0.05; done
    done'
    more=$(($(log_lines) - before))
    most=$((2 * (16 + (SECONDS - began) / 10 + 1)))
    echo "$more lines, at most $most"
    [ "$more" -ge 4 ] && [ "$more" -le $most ] || fail "30 rings made $more lines of the log, not $most"
    domu_must bad 'hostile --attack behind --count 1'
}

# Nothing is lost by a domain that dies, and nothing was by all the attacks before.
destroyed() {
    local start before after
    start=$(cat /run/lab/memory)
    destroy_bad
    before=$(free_memory)
    domu_start bad xen-evtchn,xen-gntalloc,xen-gntdev
    disk_offer bad xvda "$(losetup -j /disks/bad | cut -d: -f1)"
    destroy_bad
    after=$(free_memory)
    no_domain_lingers
    expect_eq "threads of disks that are gone" \
        "$(ps | grep '[0-9]\.xvda-[0-9]' | grep -v "$(domu_id good)\.xvda-" || true)" ""
    echo "$start kB free at the start, $before after one such domain, $after after the next"
    # The debug kernel keeps what was freed for a while, and looks for leaks itself.
    if [ ! -e /sys/kernel/debug/kmemleak ]; then
        [ "$after" -ge $((before - 4096)) ] || fail "$before kB were free, then $after"
        [ "$after" -ge $((start - 4096)) ] || fail "$start kB were free at the start, then $after"
    fi
    domu_stop good
    must rmmod causeway_blkback
}

# In the middle of an attack.
destroy_bad() {
    domu_must bad 'hostile --attack behind --count 1'
    hostile_goes_on
    domu_stop bad
    within 10 no_device
}

no_device() { [ "$(ls -d /sys/bus/xen-backend/devices/vbd-* | wc -l)" = 1 ]; }

check module-blkback-hostile-start start
for name in garbage ahead behind segments sectors grants indirect revoke events keys hasty rare narrow write; do
    check "module-blkback-hostile-$name" hostile_attack $name
done
check module-blkback-hostile-states states
check module-blkback-hostile-not-persistent not_persistent
check module-blkback-hostile-storm storm
check module-blkback-hostile-cdrom cdrom
check module-blkback-hostile-log log
check module-blkback-hostile-read-only read_only
check module-blkback-hostile-large large
check module-blkback-hostile-closed closed
check module-blkback-hostile-good hostile_witness_ends 3
check module-blkback-hostile-rings rings
check module-blkback-hostile-destroyed destroyed
