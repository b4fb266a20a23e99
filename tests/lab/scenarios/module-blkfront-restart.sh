# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront when its backend goes in the middle of writes: our blkback closes the connection while the disk holds on to
# what it was given, with pages that stay mapped and with pages of the requests themselves; it is unloaded; a backend in
# user space is killed. What was not answered is asked for anew, each request ends once, and every block that was
# written has what was written to it. So it is when the disk holds on for longer than the backend's driver waits, when
# the domain is saved and restored, when it is short of grants, and with two queues, of which the next backend takes but
# one. The frontend is unbound from a disk in use and bound again, and a disk in use is taken away: its programs see
# errors, not a hang.
#
# limit: 450
# debug-kernel: yes
# reports: module-blkfront-restart-start module-blkfront-restart-persistent module-blkfront-restart-direct
# reports: module-blkfront-restart-held module-blkfront-restart-unloaded module-blkfront-restart-killed
# reports: module-blkfront-restart-saved module-blkfront-restart-scarce module-blkfront-restart-rebind
# reports: module-blkfront-restart-reload module-blkfront-restart-unplug module-blkfront-restart-forced
# reports: module-blkfront-restart-queues module-blkfront-restart-end

ours=/modules/causeway-blkfront.ko
front=/sys/bus/xen/drivers/causeway-vbd
back=/sys/bus/xen-backend/drivers/causeway-vbd

start() {
    must insmod /modules/causeway-blkback.ko
    domu_start d1 memory=$((${LAB_MEMORY:-256} * 3 / 4)) max_grant_frames=4 $ours
    # Disks that take their time, so that there is always something unanswered.
    must modprobe dm-delay
    for name in one two; do
        must dmsetup create $name --noudevsync --noudevrules --table "0 $((64 << 11)) delay $(disk_make $name 64) 0 20"
    done
    disk_attach d1 xvda /dev/dm-0
}

# disk_node DISK: its folder on the DomU's bus.
disk_node() { echo "/sys/bus/xen/devices/vbd-$(disk_number "$1")"; }

# writes_begin DISK [OPTIONS], writes_end DISK: writes until told to end, each block of which is read and compared
# afterwards, with the number of the write. They must not notice anything, and each request must end once: what the
# frontend has asked the backend for is what has ended, and what was asked for anew.
writes_begin() {
    domu_must d1 'rm -f /run/enough'
    domu_spawn d1 writes "while :; do fio --name=v --filename=/dev/$1 --direct=1 --ioengine=libaio --rw=randwrite \
        --bsrange=4k-128k --iodepth=16 --offset=8m --size=16m --loops=2 --verify=crc32c --verify_fatal=1 --randrepeat=0 \
        ${*:2} || exit; [ ! -e /run/enough ] || exit 0; done"
}

writes_end() {
    domu_must d1 'touch /run/enough'
    domu_join d1 writes 60 >/run/lab/writes || { tail -n 5 /run/lab/writes; fail "the writes ended with an error"; }
    domu_must d1 "cd $(disk_node "$1")/statistics; read -r r _ _ _ w _ _ _ _ _ _ d _ _ _ f _ </sys/block/$1/stat
        echo \"\$(cat requests) asked for, \$(cat anew) of them anew; ended: \$r \$w \$d \$f\"
        [ \$((\$(cat requests) - \$(cat anew))) = \$((r + w + d + f)) ] && [ \"\$(xargs </sys/block/$1/inflight)\" = '0 0' ]"
}

# in_flight DISK WHAT: waits until several writes (w), or several of reads and writes (r+w), are.
in_flight() {
    domu_must d1 "for i in \$(seq 500); do read -r r w </sys/block/$1/inflight; [ \$(($2)) -ge 8 ] && exit 0; sleep 0.01; done
        cat /sys/block/$1/inflight; exit 1"
}

# frozen DISK: how many requests are under way, while nobody answers any: one at least.
frozen() {
    domu_must d1 "read -r r w </sys/block/$1/inflight; echo \$((r + w)); [ \$((r + w)) -ge 1 ]"
}

# hold: the disk of xvda holds on to what it was given, `count` requests.
hold() {
    in_flight xvda w
    must dmsetup suspend --noflush --nolockfs one
    sleep 0.2
    count=$(frozen xvda)
}

# connected DISK: waits until both ends are.
connected() {
    must await_value 20 "$(disk_back d1 "$1")/state" 4
    must await_value 20 "$(disk_front d1 "$1")/state" 4
}

# anew DISK COUNT: waits until the frontend has taken so many requests back to ask for them anew.
anew() {
    domu_must d1 "for i in \$(seq 100); do [ \$(cat $(disk_node "$1")/statistics/anew) -ge $2 ] && exit 0; sleep 0.05; done
        cat $(disk_node "$1")/statistics/anew; exit 1"
}

load() {
    domu_must d1 "echo vbd-51712 >$front/unbind; rmmod causeway_blkfront; insmod $ours $1
        for i in \$(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; dmesg | tail -5; exit 1"
}

# The next driver of the backend takes the rings over, with what is unanswered in them. When the backend closes the
# connection instead, the frontend takes back what the disk still works on, and asks for it anew when both have closed.
restarts() {
    total=0
    load "$1"
    writes_begin xvda
    for _ in 1 2; do closes; done
    in_flight xvda w
    echo "vbd-$(domu_id d1)-51712" >$back/unbind
    sleep 0.1
    echo "vbd-$(domu_id d1)-51712" >$back/bind
    writes_end xvda
}

# The backend closes the connection amid writes, and connects again. The frontend has asked anew for `total` by now.
closes() {
    local count
    hold
    xenstore-write "$(disk_back d1 xvda)/state" 5
    sleep 0.2
    must dmsetup resume one
    total=$((total + count))
    anew xvda $total
    connected xvda
}

persistent() { restarts feature_persistent=1; }

direct() { restarts feature_persistent=0; }

# The driver lets go of a disk that holds on to what it was given, and takes the device again: it does not serve the rings
# as long as that is so. Nor is it unloaded.
held() {
    local device unloading count
    device=vbd-$(domu_id d1)-51712
    load feature_persistent=1
    writes_begin xvda
    hold
    echo "$device" >$back/unbind
    echo "$device" >$back/bind
    sleep 3
    must_fail grep '^queue' "/sys/kernel/debug/causeway-blkback/$device"
    must dmsetup resume one
    within 10 grep '^queue' "/sys/kernel/debug/causeway-blkback/$device"
    hold
    echo "$device" >$back/unbind
    rmmod causeway_blkback &
    unloading=$!
    sleep 2
    kill -0 $unloading || fail "the module went while the disk had requests"
    must dmsetup resume one
    wait $unloading || fail "rmmod ended with $?"
    must insmod /modules/causeway-blkback.ko
    writes_end xvda
}

# While no driver is there the toolstack closes the connection, and the next driver is another one.
unloaded() {
    local count
    load feature_persistent=1
    writes_begin xvda
    in_flight xvda w
    echo "vbd-$(domu_id d1)-51712" >$back/unbind
    must rmmod causeway_blkback
    sleep 0.2
    count=$(frozen xvda)
    xenstore-write "$(disk_back d1 xvda)/state" 5
    anew xvda "$count"
    must insmod /modules/causeway-blkback.ko
    connected xvda
    writes_end xvda
}

killed() {
    local count
    # The backend's part of the story.
    trap 'tail -n 20 /run/uring.log' EXIT
    uring_start
    uring_attach d1 xvdb /dev/dm-1
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvdb ] && exit 0; sleep 0.2; done; exit 1'
    writes_begin xvdb
    in_flight xvdb w
    uring_end KILL
    frozen xvdb
    # It goes on with the rings by its own means: more ends than was under way.
    count=$(ended xvdb)
    uring_start
    within 20 more_ended xvdb $((count + 32))
    expect_eq "what was asked for anew" "$(domu_run d1 "cat $(disk_node xvdb)/statistics/anew")" 0
    in_flight xvdb r+w
    uring_end KILL
    count=$(frozen xvdb)
    # The next one knows nothing of this connection, and closes it.
    rm -r /run/uring
    uring_start
    anew xvdb "$count"
    connected xvdb
    writes_end xvdb
    disk_detach d1 xvdb
    uring_end TERM
}

# ended DISK: how many reads and writes have.
ended() { domu_must d1 "read -r r _ _ _ w _ </sys/block/$1/stat; echo \$((r + w))"; }
more_ended() { [ "$(ended "$1")" -ge "$2" ]; }

# More is asked for at once than the domain has grants for.
scarce() {
    local persistent
    for persistent in 1 0; do
        load max_ring_page_order=4 max_indirect_segments=256 feature_persistent=$persistent
        writes_begin xvda --bsrange=512k-1m --iodepth=32
        writes_end xvda
        [ "$(domu_run d1 "cat $(disk_node xvda)/statistics/refused")" -gt 0 ] || fail "there were grants for all"
    done
}

# All grants and channels are void, and there is another backend. The disk holds on to what it was given until the domain
# has stopped, so that it is saved amid writes.
saved() {
    local count persistent
    for persistent in 1 0; do
        load feature_persistent=$persistent
        writes_begin xvda
        saved_once
        writes_end xvda
    done
    # The domain goes on as it was when it has only been written down.
    writes_begin xvda
    in_flight xvda w
    count=$(domu_run d1 "cat $(disk_node xvda)/statistics/anew")
    must xl save -c d1 /disks/d1
    rm /disks/d1
    expect_eq "what was asked for anew" "$(domu_run d1 "cat $(disk_node xvda)/statistics/anew")" "$count"
    writes_end xvda
}

saved_once() {
    local count
    hold
    xl save d1 /disks/d1 &
    within 60 stopped d1
    must dmsetup resume one
    wait $! || fail "xl save ended with $?"
    must xl restore /disks/d1
    rm /disks/d1
    xl domid d1 >/run/lab/d1.id
    connected xvda
    anew xvda "$count"
}

# stopped NAME: whether it is suspended, or there is no such domain any more.
stopped() { ! xl list "$1" 2>/dev/null | tail -n 1 | grep -q ' [r-][b-][p-]--- '; }

# Whoever uses the disk gets errors; then it is there again, with what it had.
rebind() {
    domu_must d1 'seq 1000 | dd of=/dev/xvda bs=4k conv=sync oflag=direct 2>/dev/null'
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    in_flight xvda r+w
    domu_must d1 "echo vbd-51712 >$front/unbind; [ ! -b /dev/xvda ]"
    code=0; domu_join d1 load 20 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 "echo vbd-51712 >$front/bind; for i in \$(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; exit 1"
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    same
}

same() {
    expect_eq "what was written" "$(domu_run d1 'dd if=/dev/xvda bs=4k count=1 iflag=direct 2>/dev/null | head -c 3893 | md5sum')" "$(seq 1000 | head -c 3893 | md5sum)"
}

# The module does not go while a disk of its is in use; it goes when the disk is, and its next life has the disk again.
reload() {
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    in_flight xvda r+w
    must_fail domu_run d1 'rmmod causeway_blkfront'
    domu_must d1 "echo vbd-51712 >$front/unbind
        for i in \$(seq 100); do rmmod causeway_blkfront 2>/dev/null && break; sleep 0.1; done
        [ ! -e $front ] || exit 1; insmod $ours"
    code=0; domu_join d1 load 20 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; exit 1'
    same
}

unplug() {
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    in_flight xvda r+w
    disk_detach d1 xvda
    code=0; domu_join d1 load 20 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 '[ ! -b /dev/xvda ]'
    disk_attach d1 xvda /dev/dm-0
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
}

# A disk with a filesystem in use is torn out, without a word between the two ends.
forced() {
    local id code=0
    id=$(domu_id d1)
    domu_must d1 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt'
    domu_spawn d1 load 'while dd if=/dev/zero of=/mnt/file bs=64k count=16 conv=fsync; do :; done; exit 1'
    domu_must d1 'until [ -s /mnt/file ]; do sleep 0.05; done'
    must xl block-detach --force d1 xvda
    domu_join d1 load 20 >/dev/null || code=$?
    expect_eq "how the program that wrote ended" $code 1
    domu_must d1 'umount /mnt; [ ! -b /dev/xvda ]'
    within 10 test ! -e "/sys/bus/xen-backend/devices/vbd-$id-51712"
    disk_attach d1 xvda /dev/dm-0
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
}

# Two processors write by a queue each, and the next backend has one queue for both.
queues() {
    disk_detach d1 xvda
    domu_stop d1
    must rmmod causeway_blkback
    must insmod /modules/causeway-blkback.ko max_queues=2 max_ring_page_order=1
    # Loading a module has its processors wait for each other, and here they share one: only one runs meanwhile.
    domu_start d1 vcpus=2
    domu_must d1 "echo 0 >/sys/devices/system/cpu/cpu1/online; insmod $ours max_queues=2 max_ring_page_order=4
        echo 1 >/sys/devices/system/cpu/cpu1/online"
    disk_attach d1 xvda /dev/dm-0
    expect_eq "queues" "$(xenstore-read "$(disk_front d1 xvda)/multi-queue-num-queues")" 2
    expect_eq "the largest ring" "$(xenstore-read "$(disk_back d1 xvda)/max-ring-page-order")" 1
    expect_eq "the ring" "$(xenstore-read "$(disk_front d1 xvda)/ring-page-order")" 1
    total=0
    writes_begin xvda --numjobs=2 --offset_increment=16m --cpus_allowed=0,1 --cpus_allowed_policy=split
    closes
    domu_must d1 'grep "^queue 1: Connected, .* req_prod [1-9]" /sys/kernel/debug/causeway-blkfront/vbd-51712'
    echo 1 >/sys/module/causeway_blkback/parameters/max_queues
    closes
    must_fail xenstore-read "$(disk_front d1 xvda)/multi-queue-num-queues"
    writes_end xvda
}

end() {
    disk_detach d1 xvda
    domu_must d1 'rmmod causeway_blkfront'
    no_leaks d1
    domu_stop d1
    must rmmod causeway_blkback
}

check module-blkfront-restart-start start
check module-blkfront-restart-persistent persistent
check module-blkfront-restart-direct direct
check module-blkfront-restart-held held
check module-blkfront-restart-unloaded unloaded
check module-blkfront-restart-killed killed
check module-blkfront-restart-scarce scarce
check module-blkfront-restart-rebind rebind
check module-blkfront-restart-reload reload
check module-blkfront-restart-unplug unplug
check module-blkfront-restart-saved saved
check module-blkfront-restart-forced forced
check module-blkfront-restart-queues queues
check module-blkfront-restart-end end
