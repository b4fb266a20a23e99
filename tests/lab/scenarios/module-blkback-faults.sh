# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkback while its frontend, its domain, its toolstack or its own module goes away in the middle of writes, and while
# a frontend writes nonsense into xenstore. Nothing stays behind: no page of Dom0, no domain, no open disk.
#
# limit: 500
# debug-kernel: yes
# reports: module-blkback-faults-start module-blkback-faults-unplug module-blkback-faults-rmmod
# reports: module-blkback-faults-keys module-blkback-faults-states module-blkback-faults-frontend-unbound
# reports: module-blkback-faults-destroy module-blkback-faults-end
# tolerates: rejecting I/O to offline device

writes="fio --name=w --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite --bsrange=4k-128k"
writes="$writes --blockalign=4k --time_based --runtime=120"

devices() { ls -d /sys/bus/xen-backend/devices/vbd-* 2>/dev/null; }
no_device() { [ -z "$(devices)" ]; }
no_thread() { [ "$(ps | grep -c '[0-9]\.xvd[a-z]-[0-9]')" = 0 ]; }
let_go() { losetup -d "$(disk_loop "$1")"; rm "/disks/$1"; }
disk_loop() { losetup -j "/disks/$1" | cut -d: -f1; }
written() { cat /sys/bus/xen-backend/devices/vbd-*-51712/statistics/wr_req; }

# Begins to write, and comes back when the disk is busy.
busy() {
    local before
    domu_spawn "$1" writes "$writes"
    before=$(written)
    within 20 sh -c "[ \$(cat /sys/bus/xen-backend/devices/vbd-*-51712/statistics/wr_req) -gt $((before + 100)) ]"
}

# The programs that used the disk see errors, and no hang.
writes_fail() {
    local code=0
    domu_join d1 writes 30 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
}

start() {
    must insmod /modules/causeway-blkback.ko
    domu_start d1 xen-blkfront
    domu_start d2 xen-blkfront
    mapped_pages >/run/lab/mapped
    disk_attach d2 xvdb "$(disk_make other 16)"
    disk_attach d1 xvda "$(disk_make one 64)"
    must await_value 15 "$(disk_front d1 xvda)/state" 4
}

# What the other guest has must go on working.
other_works() {
    domu_must d2 'dd if=/dev/urandom of=/tmp/r bs=4k count=64 status=none && dd if=/tmp/r of=/dev/xvdb bs=4k oflag=direct status=none &&
        dd if=/dev/xvdb bs=4k count=64 iflag=direct status=none | cmp - /tmp/r'
}

unplug() {
    for _ in 1 2; do
        busy d1
        disk_detach d1 xvda
        let_go one
        writes_fail
        disk_attach d1 xvda "$(disk_make one 64)"
        must await_value 15 "$(disk_front d1 xvda)/state" 4
    done
    other_works
}

# served COUNT: so many reads and writes since the module was loaded.
served() {
    cd /sys/bus/xen-backend/devices/vbd-*-51712/statistics && [ $(($(cat rd_req) + $(cat wr_req))) -gt "$1" ]
}

# What was taken is finished and answered, what was not stays in the ring, and the next module goes on with it: nothing
# is lost, and the frontend need not know.
unload() {
    domu_spawn d1 verify "until [ -e /run/enough ]; do fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio \
        --iodepth=32 --rw=randwrite --bs=4k --size=4m --verify=crc32c --loops=2 || exit; done"
    for _ in 1 2 3; do
        within 20 served 200
        for device in $(devices); do echo "${device##*/}" >/sys/bus/xen-backend/drivers/causeway-vbd/unbind; done
        must rmmod causeway_blkback
        no_thread
        must insmod /modules/causeway-blkback.ko
        must await_value 15 "$(disk_back d1 xvda)/state" 4
        other_works
    done
    within 20 served 200
    domu_must d1 'touch /run/enough'
    domu_join d1 verify 60
}

# Why our backend of d1's disk does not go on, in xenstore.
reason() { echo "/local/domain/0/error/${1#/local/domain/0/}/error"; }

# A frontend that is a shell. What it may write, this domain writes in its place: that takes a tenth of the time.
keys() {
    domu_stop d1
    domu_start d1
    disk_offer d1 xvda "$(disk_loop one)"
    local back path right pair key value was
    back=$(disk_back d1 xvda) path=$(disk_front d1 xvda)
    must await_value 10 "$back/state" 2
    right='ring-ref=8 event-channel=3 protocol=x86_64-abi feature-persistent=1'
    for pair in $right; do xenstore-write "$path/${pair%%=*}" "${pair#*=}"; done
    for pair in "ring-ref=0" "ring-ref=4294967295" "ring-ref=x" "event-channel=0" "event-channel=99" "event-channel=-1" \
        "protocol=ia64-abi" "ring-page-order=5" "ring-page-order=4" "multi-queue-num-queues=0" "multi-queue-num-queues=9999" \
        "feature-persistent=2" "ring-ref=$(printf '9%.0s' $(seq 1000))"; do
        key=${pair%%=*} value=${pair#*=}
        xenstore-write -- "$path/$key" "$value" "$path/state" 3
        must await_value 10 "$back/state" 5
        must xenstore-read "$(reason "$back")"
        xenstore-rm "$(reason "$back")"
        was=$(tr ' ' '\n' <<<"$right" | sed -n "s/^$key=//p")
        if [ -n "$was" ]; then xenstore-write "$path/$key" "$was"; else xenstore-rm "$path/$key"; fi
        xenstore-write "$path/state" 6
        must await_value 10 "$back/state" 6
        xenstore-write "$path/state" 1
        must await_value 10 "$back/state" 2
    done
    other_works
}

log_lines() { dmesg | grep -c causeway-vbd; }

# Through all states and none, as fast as it can. Then in order, and anew each time: what this may cost the log is used up
# soon, and the reason stands in xenstore all the same.
states() {
    local back path state before more
    back=$(disk_back d1 xvda) path=$(disk_front d1 xvda)
    before=$(log_lines)
    domu_must d1 'for round in 1 2; do for state in 1 3 4 5 6 0 2 7 8 9 99 -1 x 4294967296; do
        xenstore-write -- device/vbd/51712/state $state; done; done'
    domu_must d1 'for key in ring-ref event-channel protocol feature-persistent; do xenstore-rm device/vbd/51712/$key; done
        xenstore-write device/vbd/51712/state 6'
    must await_value 15 "$back/state" 6
    domu_must d1 'xenstore-write device/vbd/51712/state 1'
    must await_value 10 "$back/state" 2
    for state in $(seq 99 122); do
        xenstore-write "$path/state" "$state"
        must await_value 10 "$(reason "$back")" "22 xenstore key state = \"$state\" is not from 0 to 8"
        must await_value 10 "$back/state" 5
        xenstore-write "$path/state" 6
        must await_value 10 "$back/state" 6
        xenstore-write "$path/state" 1
        must await_value 10 "$back/state" 2
    done
    more=$(($(log_lines) - before))
    echo "$more lines of the log"
    [ "$more" -le 18 ] || fail "states that are none are $more lines of the log"
    domu_must d1 'modprobe xen-blkfront'
    must await_value 15 "$path/state" 4
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=4k count=10 iflag=direct status=none'
    other_works
}

unbound() {
    busy d1
    domu_must d1 'echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind'
    must await_value 15 "$(disk_back d1 xvda)/state" 6
    writes_fail
    # Linux's frontend does not say by itself that it begins anew. Were it told so with its module loaded, its bus would
    # probe it at once, and a backend that it finds still Closed is one that it closes for.
    domu_must d1 'rmmod xen_blkfront && xenstore-write device/vbd/51712/state 1'
    must await_value 15 "$(disk_back d1 xvda)/state" 2
    domu_must d1 'modprobe xen-blkfront'
    must await_value 15 "$(disk_front d1 xvda)/state" 4
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=4k count=10 iflag=direct status=none'
}

# Three times, so that what is lost each time shows: of a disk in use about 1000 pages are mapped.
destroy() {
    local round id before='' after
    # All of the file, which lies in memory.
    domu_must d1 'dd if=/dev/zero of=/dev/xvda bs=1M count=64 oflag=direct status=none'
    for round in 1 2 3; do
        [ $round = 1 ] || again
        busy d1
        id=$(domu_id d1)
        within 10 keeps_grants "$id"
        more_mapped 100 || fail "$(mapped_pages) pages are mapped, and there were $(cat /run/lab/mapped)"
        domu_stop d1
        within 10 no_thread_of_d1
        no_domain_lingers
        expect_eq "grants of the domain" "$(grants_of "$id")" 0
        after=$(free_memory)
        before=${before:-$after}
        echo "$after kB are free"
    done
    # The debug kernel keeps what was freed for a while, and looks for leaks itself.
    [ -e /sys/kernel/debug/kmemleak ] || [ "$after" -ge $((before - 4096)) ] || fail "$before kB were free, then $after"
    let_go one
    other_works
}

# more_mapped COUNT: whether this domain has so many more pages of others mapped than before there was a disk.
more_mapped() {
    local before
    before=$(cat /run/lab/mapped)
    [ "$before" = unknown ] || [ "$(mapped_pages)" -ge $((before + $1)) ]
}

# keeps_grants ID: whether many of its grants are mapped.
keeps_grants() { [ "$(cat "/sys/bus/xen-backend/devices/vbd-$1-51712/statistics/persistent_grants")" -gt 100 ]; }

# The domain again, and its disk.
again() {
    domu_start d1 xen-blkfront
    disk_attach d1 xvda "$(disk_loop one)"
}

no_thread_of_d1() { [ "$(devices | wc -l)" = 1 ]; }

end() {
    disk_detach d2 xvdb
    echo "$(cat /run/lab/mapped) pages of others were mapped before there was a disk, now $(mapped_pages)"
    if [ "$(cat /run/lab/mapped)" != unknown ] && more_mapped 1; then fail "pages stay mapped, or are lost"; fi
    domu_stop d2
    within 10 no_device
    let_go other
    must rmmod causeway_blkback
    no_thread
    expect_eq "lines of lost pages" "$(dmesg | grep -i 'foreign page\|leaking' || true)" ""
}

check module-blkback-faults-start start
check module-blkback-faults-unplug unplug
check module-blkback-faults-rmmod unload
check module-blkback-faults-keys keys
check module-blkback-faults-states states
check module-blkback-faults-frontend-unbound unbound
check module-blkback-faults-destroy destroy
check module-blkback-faults-end end
