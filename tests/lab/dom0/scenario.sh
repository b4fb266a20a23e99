# SPDX-License-Identifier: MIT OR Apache-2.0
# What a scenario is written in. `scenario.sh NAME` runs one; see tests/lab/README.md.
#
# Times are those of a machine that has a processor for itself. LAB_PATIENCE, which the runner sets from the load of the
# machine it runs on, multiplies all that are limits.

# --- checks -------------------------------------------------------------------------------------------------------

# check NAME FUNCTION [ARGS...]: runs the function until its first failing command, and reports PASS or FAIL for NAME.
# The scenario goes on with the next check either way. The function runs in a subshell: what later checks need is kept
# in the machine (a domain, a disk), not in variables.
check() {
    local name=$1 why=/run/lab/why
    shift
    echo "lab: ---- $name ($(cut -d' ' -f1 /proc/uptime) s)"
    rm -f "$why"
    set +e
    (
        set -eE -o pipefail
        trap 'code=$?; [ -e '"$why"' ] || echo "line ${BASH_LINENO[0]}: \`$BASH_COMMAND\` ended with $code" >'"$why" ERR
        "$@"
    )
    local code=$?
    if [ $code -eq 0 ]; then
        result "PASS $name"
    else
        : >/run/lab/failed
        result "FAIL $name: $(tr '\n' ' ' <"$why" 2>/dev/null || echo "ended with $code")"
    fi
    return 0
}

# The report is descriptor 8; a copy is on the console, for the story.
result() {
    echo "$1" >&8
    echo "lab: $1"
}

for part in /lab/library/*.sh; do . "$part"; done
. "/lab/scenarios/$1.sh"
