# SPDX-License-Identifier: MIT OR Apache-2.0
# A disk of tests/hostile whose backend keeps the rules, can what no other disk of the lab can, and tells what it is
# asked for.

# honest_start DOMID VDEV [KEY=VALUE...] [--OPTION=VALUE...]: makes it the disk of a domain, whose frontend is there. Its
# backend offers flush and discard, and what the keys say; options are those of `hostile`, such as --front=trusted=0. What
# it is asked for, a line each, is in /run/honest.log.
honest_start() {
    local id=$1 number word words=()
    number=$(disk_number "$2")
    shift 2
    for word; do
        case $word in --*) words+=("$word") ;; *) words+=("--offer=$word") ;; esac
    done
    rm -f /run/honest.log
    hostile --frontend "$id" --device "$number" --honest "${words[@]}" >>/run/honest.log 2>&1 8>&- &
    echo $! >/run/honest.pid
    echo "/local/domain/0/backend/hostile/$id/$number" >/run/honest.path
    must await_value 20 "$(cat /run/honest.path)/state" 4
    must await_value 20 "/local/domain/$id/device/vbd/$number/state" 4
}

# honest_asked LINE...: what it was asked for since it was last looked at, other than to read, is this.
honest_asked() {
    local asked wanted
    asked=$(grep -v '^read ' /run/honest.log || true)
    : >/run/honest.log
    wanted=$(printf '%s\n' "$@")
    expect_eq "what the backend was asked for" "${asked//$'\n'/; }" "${wanted//$'\n'/; }"
}

# honest_end: takes the disk away, in the check that began it.
honest_end() {
    xenstore-write "$(cat /run/honest.path)/state" 5
    within 40 honest_gone
    wait "$(cat /run/honest.pid)" || fail "it did not end well: $(tail -n 3 /run/honest.log)"
}

honest_gone() { ! kill -0 "$(cat /run/honest.pid)"; }
