# SPDX-License-Identifier: MIT OR Apache-2.0
# Attacks of tests/hostile on a backend: a domain `bad` plays them, while a domain `good` uses its own disk.

# Seeds of each attack. Under the debug kernel each takes ten times as long.
seeds=2
[ ! -e /sys/kernel/debug/kmemleak ] || seeds=1

# hostile_attack NAME: once with each seed. After each, `hostile` itself sees that a legal read is served.
hostile_attack() {
    domu_limit=200 domu_must bad "hostile --attack $1 --count $seeds" >/run/lab/outcomes
    cat /run/lab/outcomes
    expect_eq "attacks done" "$(grep -c "^$1 with seed" /run/lab/outcomes)" $seeds
}

# hostile_goes_on: begins an attack that does not end by itself, and returns in the middle of it.
hostile_goes_on() {
    domu_spawn bad more 'hostile --attack grants --count 100000'
    within 20 domu_run bad 'grep "^grants with seed 1:" /run/more.out'
}

# bad_lets_go VDEV: nobody is there to close the disk when `hostile` has ended.
bad_lets_go() {
    domu_must bad "xenstore-write device/vbd/$(disk_number "$1")/state 6"
    must await_value 15 "$(disk_back bad "$1")/state" 6
    disk_detach bad "$1"
}

# hostile_large: makes /disks/large, with data at the borders of the 4 GiB that one operation of the block layer discards.
hostile_large() {
    local mib
    truncate -s 9G /disks/large
    for mib in 0 1 4095 4096 4097 8191 8192 8193 9215; do
        must dd if=/dev/urandom of=/disks/large bs=1M count=1 seek=$mib conv=notrunc status=none
    done
}

# hostile_discards_large: one request of `bad`, whose xvde it is, discards all of it, and nothing is left out.
hostile_discards_large() {
    domu_must bad "hostile --device $(disk_number xvde) --attack whole --count 1"
    expect_eq "blocks of the file" "$(stat -c %b /disks/large)" 0
    bad_lets_go xvde
}

# hostile_witness: the domain `good` verifies what it writes to /dev/xvda, until told to stop.
hostile_witness() {
    domu_spawn good verify 'rounds=0
        while [ ! -e /run/enough ]; do
            fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bsrange=4k-32k \
                --size=2m --rate_iops=300 --verify=crc32c --verify_fatal=1 --randseed=$rounds --allow_file_create=0 --minimal >/dev/null || exit 1
            rounds=$((rounds + 1))
        done
        echo $rounds'
}

# hostile_witness_ends ROUNDS: it has lost nothing, and came to that many rounds.
hostile_witness_ends() {
    local rounds
    domu_must good 'touch /run/enough'
    rounds=$(domu_join good verify 100) || fail "what was written is not what is read: $rounds"
    echo "$rounds rounds"
    [ "$rounds" -ge "$1" ] || fail "$rounds rounds"
}
