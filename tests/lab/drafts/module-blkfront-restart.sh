# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront when its backend goes: our blkback is unbound from the disk in the middle of verified writes and bound
# again, twice, with pages that stay mapped and with pages of the requests themselves; the writes go on and nothing is
# lost. A disk in use is taken away under load, and its programs see errors, not a hang.
#
# limit: 240
# reports: module-blkfront-restart-start module-blkfront-restart-persistent module-blkfront-restart-direct
# reports: module-blkfront-restart-unplug module-blkfront-restart-end

ours=/modules/causeway-blkfront.ko
front=/sys/bus/xen/drivers/causeway-vbd
backend=/modules/causeway-blkback.ko
back=/sys/bus/xen-backend/drivers/causeway-vbd

start() {
    must insmod $backend
    domu_start d1 $ours
    disk_attach d1 xvda "$(disk_make one 64)"
}

load() {
    domu_must d1 "for device in $front/vbd-*; do [ -e \$device ] && basename \$device >$front/unbind; done; rmmod causeway_blkfront; insmod $ours $* && for i in \$(seq 50); do [ -b /dev/xvda ] && exit 0; sleep 0.2; done; dmesg | tail -5; exit 1"
}

restarts() {
    load "$1"
    domu_spawn d1 writes 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randwrite --bsrange=4k-128k --iodepth=16 --offset=8m --size=32m --verify=crc32c --verify_fatal=1'
    for round in 1 2; do
        sleep 2
        echo "vbd-$(domu_id d1)-51712" >$back/unbind
        sleep 1
        echo "vbd-$(domu_id d1)-51712" >$back/bind
        must await_value 20 "$(disk_back d1 xvda)/state" 4
        must await_value 20 "$(disk_front d1 xvda)/state" 4
    done
    domu_join d1 writes 120 | grep -q 'err= 0'
    domu_must d1 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct && cd /sys/bus/xen/devices/vbd-51712/statistics && grep . * && [ "$(cat anew)" -gt 0 ]'
}

persistent() { restarts feature_persistent=1; }

direct() { restarts feature_persistent=0; }

unplug() {
    domu_spawn d1 load 'fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --rw=randrw --bs=16k --iodepth=16 --time_based --runtime=60 --size=32m'
    sleep 3
    disk_detach d1 xvda
    domu_join d1 load 60 >/dev/null || true
    domu_must d1 '[ ! -b /dev/xvda ]'
    disk_attach d1 xvda "$(losetup -j /disks/one | cut -d: -f1)"
    must await_value 20 "$(disk_front d1 xvda)/state" 4
    domu_must d1 'for i in $(seq 50); do [ -b /dev/xvda ] && break; sleep 0.2; done; dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct'
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
check module-blkfront-restart-unplug unplug
check module-blkfront-restart-end end
