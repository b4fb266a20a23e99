# SPDX-License-Identifier: MIT OR Apache-2.0
# What of our wrappers over Linux' Xen support no driver uses yet, tried by a module of its own in a DomU and in Dom0: a
# driver that `module_xenbus_driver!` declares, and copies by Xen, of pages that the domain grants to itself; and the clock
# by which drivers wait.
#
# limit: 60
# debug-kernel: yes
# reports: module-selftest-domu module-selftest-dom0

# The device, to be made by a shell that runs where its domain may write.
device='path=$home/device/selftest/0
    xenstore-write $path/backend $path $path/backend-id ${home##*/} $path/state 1
    insmod /modules/causeway-selftest.ko
    for i in $(seq 100); do result=$(xenstore-read $path/result 2>/dev/null) && break; sleep 0.1; done
    echo "the result: ${result:-none}"
    echo selftest-0 >/sys/bus/xen/drivers/causeway-selftest/unbind
    rmmod causeway_selftest && xenstore-rm $path && [ "$result" = passed ]'

domu() {
    domu_start d1
    # A domain may write in its device folders only; the toolstack makes this one.
    xenstore-write "$(domu_path d1)/device/selftest" ""
    xenstore-chmod "$(domu_path d1)/device/selftest" "n$(domu_id d1)"
    domu_must d1 "home=$(domu_path d1); $device"
    domu_stop d1
}

dom0() { must bash -c "home=/local/domain/0; $device"; }

check module-selftest-domu domu
check module-selftest-dom0 dom0
