# SPDX-License-Identifier: MIT OR Apache-2.0
# What is left when something has gone.

# free_memory [DOMU]: KiB that are free in Dom0, or in a DomU, when nothing is kept that could be read again. Linux keeps
# some megabytes of free pages at hand for each processor, which MemFree leaves out.
free_memory() {
    local command='sync; echo 3 >/proc/sys/vm/drop_caches
        free=$(sed -n "s/^MemFree: *\([0-9]*\) kB/\1/p" /proc/meminfo)
        for pages in $(sed -n "s/^ *count: *\([0-9]*\)\$/\1/p" /proc/zoneinfo); do free=$((free + pages * 4)); done
        echo $free'
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

# mapped_pages: how many pages of Dom0 stand for pages of other domains: all that Linux has made for that, without those
# that are free. The debug kernel shows its memory to nobody, so there it is not known.
mapped_pages() {
    local range pages=0
    [ -e /proc/kcore ] || { echo unknown; return; }
    while read -r range; do
        pages=$((pages + (16#${range#*-} - 16#${range%-*} + 1) / 4096))
    done < <(sed -n 's/^ *\([0-9a-f]*-[0-9a-f]*\) : Xen scratch$/\1/p' /proc/iomem)
    echo $((pages - $(kernel_word list_count)))
}

# kernel_word NAME: what a variable of 32 bits of the running kernel is now. It can be sent to a DomU as it is.
kernel_word() {
    local address=$((16#$(sed -n "s/^\([0-9a-f]*\) [a-zA-Z] $1$/\1/p" /proc/kallsyms))) i offset start size
    for ((i = 0; i < $(od -An -tu2 -j56 -N2 /proc/kcore); i++)); do
        read -r offset start _ _ size < <(od -An -v -w40 -td8 -j$((64 + 56 * i + 8)) -N40 /proc/kcore)
        if ((address >= start && address < start + size)); then
            dd if=/proc/kcore bs=4 count=1 iflag=skip_bytes skip=$((offset + address - start)) 2>/dev/null | od -An -td4
            return
        fi
    done
}
