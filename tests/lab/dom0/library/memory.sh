# SPDX-License-Identifier: MIT OR Apache-2.0
# What is left when something has gone.

# free_memory [DOMU]: KiB that are free in Dom0, or in a DomU, when nothing is kept that could be read again.
free_memory() {
    local command='sync; echo 3 >/proc/sys/vm/drop_caches; sed -n "s/^MemFree: *\([0-9]*\) kB/\1/p" /proc/meminfo'
    if [ $# -gt 0 ]; then domu_must "$1" "$command"; else must bash -c "$command"; fi
}

# no_leaks DOMU: the debug kernel finds no memory there that nothing points to. It waits 5 s before it suspects anything,
# and a second look clears what was moving.
no_leaks() {
    [ -e /sys/kernel/debug/kmemleak ] || return 0
    domu_must "$1" 'for i in 1 2; do sleep 6; echo scan >/sys/kernel/debug/kmemleak; done
        cat /sys/kernel/debug/kmemleak' >/run/lab/leaks
    expect_eq "what nothing points to" "$(head -n 40 /run/lab/leaks)" ""
}

# no_domain_lingers: none was destroyed that cannot go, since somebody has a page of it.
no_domain_lingers() { expect_eq "domains that do not go" "$(xl list | grep null || true)" ""; }

# grants_of DOMID: how many grants of a domain anybody has mapped, as Xen counts them.
grants_of() {
    xl dmesg -c >/dev/null
    xl debug-keys g
    sleep 1
    # A line for each that is, below the headline of the domain that granted.
    xl dmesg | tr -d '\r' | sed -n "/grant-table for remote d$1 /,/localdom/p" | { grep -c '\[0x' || true; }
}
