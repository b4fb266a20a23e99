# SPDX-License-Identifier: MIT OR Apache-2.0
# Our blkfront with a backend that breaks every rule, a user-space program of Dom0: wrong ids, operations and statuses,
# indices that are not possible, a doorbell that does not stop, memory that stays mapped, of requests and of one connection
# after the other, no answer at all, nonsense in xenstore; with memory that is lent to it for each request, and with memory
# that may stay mapped. Programs of the DomU read and write each disk that comes. They see errors and never a hang, another
# disk of the same DomU goes on, and in the end no grant is left, no memory is lost and the log is short.
#
# limit: 360
# debug-kernel: yes
# reports: module-blkfront-hostile-start module-blkfront-hostile-answers module-blkfront-hostile-indices
# reports: module-blkfront-hostile-memory module-blkfront-hostile-persistent
# reports: module-blkfront-hostile-silence module-blkfront-hostile-store
# reports: module-blkfront-hostile-storm module-blkfront-hostile-others module-blkfront-hostile-grants
# reports: module-blkfront-hostile-log module-blkfront-hostile-memory-back module-blkfront-hostile-end
# tolerates: WARNING: g.e.

ours=/modules/causeway-blkfront.ko
front=/sys/bus/xen/drivers/causeway-vbd

# How many grants the DomU's kernel has given out: it counts those that are free, of all in its table. The debug kernel
# shows its memory to nobody, so there it is not known.
grants() {
    domu_must d1 "[ -e /proc/kcore ] || { echo unknown; exit; }
        $(declare -f kernel_word)
        echo \$((\$(kernel_word nr_grant_frames) * 512 - \$(kernel_word gnttab_free_count)))"
}

log_lines() { domu_must d1 'dmesg | wc -l'; }

start() {
    must modprobe xen-blkback
    domu_start d1 $ours
    grants >/run/lab/grants
    disk_attach d1 xvda "$(disk_make one 32)"
    log_lines >/run/lab/lines
    domu_spawn d1 good 'while [ ! -e /run/stop ]; do fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio \
        --rw=randwrite --bs=4k --iodepth=4 --size=64k --verify=crc32c --verify_fatal=1 --randrepeat=0 \
        --allow_file_create=0 || exit 1; sleep 2; done'
    # Reads are indirect requests where there are such. A disk that has gone meanwhile must not become a file of its name.
    domu_spawn d1 bad 'while [ ! -e /run/stop ]; do for disk in /dev/xvd[b-e]; do [ -b $disk ] || continue
        dd if=$disk of=/dev/null bs=64k count=4 iflag=direct
        (exec 3<$disk && dd if=/dev/zero of=/proc/self/fd/3 bs=4k count=8 oflag=direct conv=fsync)
        done; sleep 0.05; done; exit 0'
}

# attack NAME...: each with `count` seeds; under the debug kernel with one, as each takes ten times as long. The backend
# offers `offers` besides.
attack() {
    [ ! -e /sys/kernel/debug/kmemleak ] || count=1
    must hostile --frontend "$(domu_id d1)" --device 51728 --count "$count" "${offers[@]/#/--offer=}" "${@/#/--attack=}"
}

offers=()

# By then what disks and programs take for good is taken.
answers() {
    count=2 attack id twice operation status unsupported garbage
    free_memory d1 >/run/lab/memory
}

indices() { count=2 attack ahead unasked behind scribble events; }

memory() { count=2 attack hold hoard; }

# As with Linux' own backend: pages that may stay mapped, so that the backend has one of them whatever it answers, and
# requests of many pages. A page that is mapped when the disk is gone does not hold the disk up.
persistent() {
    local offers=(feature-persistent=1 feature-max-indirect-segments=64)
    count=1 attack id twice operation garbage hold keep hoard silence
    domu_must d1 '! dmesg | grep "the disk stays"'
}

silence() { count=1 attack silence stall; }

store() { count=8 attack keys; count=2 attack resize states; }

# Doorbells for nothing are known as such, and are fewer than were rung: what follows one is let in late. The disk's own
# count is read as long as there is the disk.
storm() {
    local spurious
    domu_spawn d1 storm 'count=/sys/bus/xen/devices/vbd-51728/statistics/spurious
        until [ -e $count ]; do sleep 0.01; done
        while read -r now 2>/dev/null <$count; do
            last=$now
            sleep 0.01
        done
        echo "$last"'
    count=1 attack events
    spurious=$(domu_join d1 storm 30)
    echo "$spurious of 5000 doorbells for nothing were seen"
    [ "$spurious" -ge 3 ]
    # The debug kernel asks so slowly that the backend rings for nothing between two requests, too.
    [ -e /sys/kernel/debug/kmemleak ] || [ "$spurious" -le 250 ]
}

# Neither the programs that had to do with the bad disks nor those of the good one hang.
others() {
    local errors
    domu_must d1 ': >/run/stop'
    domu_join d1 bad 60 >/run/lab/bad
    errors=$(grep -c 'Input/output error' /run/lab/bad)
    echo "programs saw $errors errors"
    [ "$errors" -ge 5 ]
    domu_join d1 good 60 >/run/lab/good || { tail -n 5 /run/lab/good; fail "the other disk suffered"; }
    domu_must d1 '! ls /dev/xvd[b-e]'
    domu_must d1 '! dmesg | grep -E "blocked for more than|leaking g.e."'
}

# What a backend had mapped goes a second after it let go of it, ten at a time.
grants_left() {
    disk_detach d1 xvda
    within 15 as_before
    echo "$(grants) grants"
}

as_before() { [ "$(grants)" = "$(cat /run/lab/grants)" ]; }

# A disk that is closed for what its backend did is a few lines, whatever that was: there were about 50 disks.
log() {
    local more
    more=$(($(log_lines) - $(cat /run/lab/lines)))
    echo "$more lines of the log"
    [ "$more" -le 500 ] || fail "$more lines of the log"
}

memory_back() {
    local before after
    before=$(cat /run/lab/memory)
    after=$(free_memory d1)
    echo "$before kB free before, $after after"
    no_leaks d1
    # The debug kernel keeps what was freed for a while.
    [ -e /sys/kernel/debug/kmemleak ] || [ "$after" -ge $((before - 2048)) ] ||
        fail "$before kB were free, then $after"
}

end() {
    domu_must d1 'rmmod causeway_blkfront'
    domu_stop d1
    must rmmod xen_blkback
}

check module-blkfront-hostile-start start
check module-blkfront-hostile-answers answers
check module-blkfront-hostile-indices indices
check module-blkfront-hostile-memory memory
check module-blkfront-hostile-persistent persistent
check module-blkfront-hostile-silence silence
check module-blkfront-hostile-store store
check module-blkfront-hostile-storm storm
check module-blkfront-hostile-others others
check module-blkfront-hostile-grants grants_left
check module-blkfront-hostile-log log
check module-blkfront-hostile-memory-back memory_back
check module-blkfront-hostile-end end
