# SPDX-License-Identifier: MIT OR Apache-2.0
# The backend in user space, as a Dom0 service.

# uring_start [OPTIONS...]: starts it, to go on with what one before left. Its log is /run/uring.log.
uring_start() {
    RUST_LOG=info causeway backend --hypervisor dev --state /run/uring --stats /run/uring.sock "$@" \
        >>/run/uring.log 2>&1 8>&- &
    echo $! >/run/uring.pid
    within 10 causeway stats --socket /run/uring.sock
}

# uring_end SIGNAL: ends it, and waits until it has gone.
uring_end() {
    kill "-$1" "$(cat /run/uring.pid)"
    within 20 uring_gone
}

# uring_log_begins: what was logged up to now goes to /run/uring.all.
uring_log_begins() {
    cat /run/uring.log >>/run/uring.all
    : >/run/uring.log
}

uring_gone() { ! kill -0 "$(cat /run/uring.pid)"; }

# uring_attach DOMU VDEV IMAGE [OPTIONS...]: attaches a file or block device through it, by xl.
uring_attach() {
    local domu=$1 vdev=$2 image=$3
    shift 3
    must xl block-attach "$domu" format=raw "vdev=$vdev" backendtype=tap script=block-causeway "$@" "target=$image"
}

# uring_stat KEY: the sum of a statistic over all queues.
uring_stat() {
    causeway stats --json --socket /run/uring.sock | grep -o "\"$1\": *[0-9]*" | grep -o '[0-9]*$' |
        { sum=0; while read -r n; do sum=$((sum + n)); done; echo $sum; }
}
