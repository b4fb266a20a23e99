# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront when an end goes: in the middle of verified writes our blkback is unbound from the disk and bound again,
# and closes the connection and comes back, with pages that stay mapped and with pages of the requests themselves; the
# writes go on and nothing is lost. A backend in user space is killed in the middle of them, and goes on. The frontend
# is unbound from a disk in use and bound again, and a disk in use is taken away: its programs see errors, not a hang.
#
# limit: 180
# reports: module-blkfront-restart-start module-blkfront-restart-persistent module-blkfront-restart-direct
# reports: module-blkfront-restart-killed module-blkfront-restart-rebind module-blkfront-restart-unplug
# reports: module-blkfront-restart-end

ours=/modules/causeway-blkfront.ko
front=/sys/bus/xen/drivers/causeway-vbd
back=/sys/bus/xen-backend/drivers/causeway-vbd

start() {
    must insmod /modules/causeway-blkback.ko
    domu_start d1 $ours
    # Disks that take their time, so that there is always something unanswered.
    must modprobe dm-delay
    for disk in one two; do
        must dmsetup create $disk --noudevsync --noudevrules --table "0 $((64 << 11)) delay $(disk_make $disk 64) 0 20"
    done
    disk_attach d1 xvda /dev/dm-0
}

# writes_begin DISK, writes_end: some 3 s of verified writes in one go, which must not notice anything.
writes_begin() {
    domu_spawn d1 writes "fio --name=v --filename=/dev/$1 --direct=1 --ioengine=libaio --rw=randwrite \
        --bsrange=4k-128k --iodepth=16 --offset=8m --size=8m --loops=10 --verify=crc32c --verify_fatal=1 --randrepeat=0"
}

writes_end() {
    domu_join d1 writes 60 >/run/lab/writes || { tail -n 5 /run/lab/writes; fail "the writes ended with an error"; }
}

# anew: how many requests the frontend has asked for anew.
anew() { domu_must d1 'cat /sys/bus/xen/devices/vbd-51712/statistics/anew'; }

# The next driver of the backend takes the rings over, with what is unanswered in them. When the backend closes the
# connection instead, and is there for another one, the frontend asks for all of it anew.
restarts() {
    local before
    domu_must d1 "echo vbd-51712 >$front/unbind; rmmod causeway_blkfront; insmod $ours $1"
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; dmesg | tail -5; exit 1'
    before=$(anew)
    writes_begin xvda
    sleep 0.7
    echo "vbd-$(domu_id d1)-51712" >$back/unbind
    sleep 0.3
    echo "vbd-$(domu_id d1)-51712" >$back/bind
    sleep 0.3
    for round in 1 2; do
        xenstore-write "$(disk_back d1 xvda)/state" 5
        sleep 0.3
        must await_value 20 "$(disk_back d1 xvda)/state" 4
        must await_value 20 "$(disk_front d1 xvda)/state" 4
        sleep 0.2
    done
    writes_end
    [ "$(anew)" -gt "$before" ] || fail "nothing was asked for anew: the backend was idle when it went"
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
}

persistent() { restarts feature_persistent=1; }

direct() { restarts feature_persistent=0; }

killed() {
    uring_start
    uring_attach d1 xvdb /dev/dm-1
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvdb ] && exit 0; sleep 0.2; done; exit 1'
    writes_begin xvdb
    for round in 1 2; do
        sleep 0.7
        uring_end KILL
        uring_start
    done
    sleep 0.5
    writes_end
    disk_detach d1 xvdb
    uring_end TERM
}

# Whoever uses the disk gets errors; then it is there again, with what it had.
rebind() {
    domu_must d1 'seq 1000 | dd of=/dev/xvda bs=4k conv=sync oflag=direct 2>/dev/null'
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    sleep 0.7
    domu_must d1 "echo vbd-51712 >$front/unbind; [ ! -b /dev/xvda ]"
    code=0; domu_join d1 load 20 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 "echo vbd-51712 >$front/bind; for i in \$(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; exit 1"
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    expect_eq "what was written" "$(domu_run d1 'dd if=/dev/xvda bs=4k count=1 iflag=direct 2>/dev/null | head -c 3893 | md5sum')" "$(seq 1000 | head -c 3893 | md5sum)"
}

unplug() {
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=30 --offset=8m --size=16m'
    sleep 0.7
    disk_detach d1 xvda
    code=0; domu_join d1 load 20 >/dev/null || code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] || fail "programs that used the disk ended with $code"
    domu_must d1 '[ ! -b /dev/xvda ]'
    disk_attach d1 xvda /dev/dm-0
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
}

end() {
    disk_detach d1 xvda
    domu_must d1 'rmmod causeway_blkfront'
    domu_stop d1
    must rmmod causeway_blkback
}

check module-blkfront-restart-start start
check module-blkfront-restart-persistent persistent
check module-blkfront-restart-direct direct
check module-blkfront-restart-killed killed
check module-blkfront-restart-rebind rebind
check module-blkfront-restart-unplug unplug
check module-blkfront-restart-end end
